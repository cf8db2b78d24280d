"""From a name and a folder of photographs to a trained model: what ``clit-zoo train`` does."""

import os
from pathlib import Path

import torch
from tqdm import tqdm

from ..errors import ClitZooError, ConfigError
from .card import Provenance
from .grow import begin_decoder
from .photographs import Photographs
from .processes import Processes
from .recipe import Recipe
from .run import Run
from .start import starting_model
from .validation import Validation

BEGIN_PATCHES = 16
"""Patches that a new decoder's start is fitted to."""


def train(
    model: str | os.PathLike[str],
    data: str | Path,
    out: str | Path,
    recipe: Recipe,
    *,
    from_scratch: bool = False,
    grow_from: str | os.PathLike[str] | None = None,
    stages: int | None = None,
    new_stages: str = "copy",
    name: str | None = None,
    validation: Validation | None = None,
    device: str = "auto",
    backend: str = "auto",
    workers: int | None = None,
    cache: str | Path | None = None,
    minutes: float | None = None,
    save_every: int = 500,
    log_every: int = 50,
    tensorboard: bool = True,
    data_name: str | None = None,
    license: str | None = None,
    datasets: tuple[str, ...] = (),
    command: tuple[str, ...] = (),
) -> Path | None:
    """Train a model; called again with the same ``out``, go on where it stopped, also after a kill.

    In processes that torchrun started, they train it together; an error in one then ends all.

    Args:
        model: a name (``list_models``), a folder or a Hub repository.
        data: folder of photographs, searched recursively.
        out: folder of the run.
        recipe: how it is trained.
        from_scratch: start from random weights.
        grow_from: start from another model's encoder, grown; see ``grow``.
        stages: make the model a cascade of so many.
        new_stages: "copy" or "random", see ``cascade.with_stages``.
        name: what the result is called; see ``starting_model``.
        validation: what to measure on the way; nothing where left out.
        device: as ``from_pretrained`` takes it.
        backend: who computes the decoder.
        workers: threads that draw patches.
        cache: folder for decoded pictures, mapped instead of held in memory.
        minutes: stop, with the state saved, after so many.
        save_every, log_every, tensorboard: as ``Run`` takes them.
        data_name: of the photographs, for the model card; their folder's name where left out.
        license: of the weights, for the model card, such as "apache-2.0".
        datasets: Hub identifiers, for the model card.
        command: how this was called, for the model card.

    Returns:
        The folder of the finished model, which ``from_pretrained`` takes; None if ``minutes`` ended before.

    Raises:
        ClitZooError: something does not fit; what ``Run`` raises.
        OSError: a file or folder cannot be read or written.
        ModuleNotFoundError: there are several processes, and accelerate is missing.
        SystemExit: stopped by SIGTERM or the first Ctrl-C, with the state saved.
    """
    pictures_in = Path(data).resolve()
    for option, place in (("out", out), ("cache", cache)):
        if place is not None and Path(place).resolve().is_relative_to(pictures_in):
            raise ConfigError(
                f"--{option} {place} lies in --data {data}, and its pictures would be trained on: give a "
                "folder outside"
            )
    with Processes.joined(device) as processes:
        say = tqdm.write if processes.main else lambda text: None
        if workers is None:
            workers = max(1, min(8, (os.cpu_count() or 1) // processes.count - 1))
        resolver, start, new_decoder = starting_model(
            model, from_scratch=from_scratch, grow_from=grow_from, stages=stages, new_stages=new_stages,
            name=name, seed=recipe.seed, backend=backend,
        )  # fmt: skip
        # refused before the pictures are decoded, which takes longer
        resolver.to(processes.device).check_backend()
        recipe.share_of(processes.rank, processes.count)
        with processes.main_first():
            photographs = Photographs(
                data, smallest=2 * recipe.patch, cache=cache, threads=workers, progress=processes.main
            )
        for file, reason in photographs.skipped:
            say(f"left out {file}: {reason}")
        pictures = f"{photographs.in_words} of {data_name or pictures_in.name}"
        run = Run(
            resolver, recipe, photographs, out, processes=processes, validation=validation,
            provenance=Provenance(start, pictures, command, license, datasets), save_every=save_every,
            log_every=log_every, threads=workers, tensorboard=tensorboard,
        )  # fmt: skip
        if new_decoder and not run.checkpoint.exists():
            begin_decoder(resolver, run.drawing.batch(photographs, 0, range(BEGIN_PATCHES)).image)
        count = sum(p.numel() for p in resolver.parameters())
        say(
            f"training {resolver.config.name} ({count:,} parameters) on {run.place} "
            f"with {pictures}, {len(photographs.skipped)} left out; crops reach "
            f"×{photographs.reach / recipe.patch:.1f}"
        )
        first = run.begin().step
        if first:
            say("; ".join([f"going on from step {first}", *run.changed]))
        try:
            finished = run.train(minutes)
        except torch.OutOfMemoryError as error:
            raise ClitZooError(
                f"not enough memory ({str(error).splitlines()[0]}): raise --accumulate or lower --batch"
            ) from error
        if run.state.step > first:
            say(
                f"{run.pace.speed:.3g} steps a second, {run.pace.waiting:.1%} of it waiting for data; see "
                f"{run.folder / 'log.jsonl'}"
            )
        if finished:
            folder = run.finish()
            say(f"saved {folder}")
            return folder
        say(f"stopped at step {run.state.step} of {recipe.steps}; the same command goes on from there")
    if run.stopped_by is not None:
        raise SystemExit(128 + run.stopped_by)  # "&&" in a shell must not go on to a model that is not there
    return None
