"""One run: steps, what they report, and a state that survives being killed."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..errors import ClitZooError
from ..evaluation import Results
from ..imaging import Picture, write
from ..model import SuperResolver
from ..pretrained import has_bfloat16
from .card import Provenance, training_card
from .cascade import cascade_of, stages_of
from .log import Log, Pace
from .losses import LOSSES
from .patches import Batch, Draw
from .photographs import Photographs
from .prefetch import prefetched
from .processes import Processes, StopSignal
from .recipe import Recipe
from .state import RunState
from .validation import Validation, as_row, mean_psnr

CHECKPOINT = "checkpoint.pt"
BEST, FINAL, SAMPLES = "best", "model", "samples"
ASK_EVERY = 10
"""Steps between two questions to the other processes whether to stop: each costs a message."""
FORECAST_AFTER = 10
"""Steps after which a run says how long it will take."""


class Run:
    """One training run in a folder. Started again, it goes on where it stopped.

    Making one does nothing yet. ``begin`` prepares the model and takes over the folder's checkpoint,
    ``train`` does the steps that are left, and ``finish`` writes the model.

    Everything random in step t comes from (seed, t), so the seed and the step are the random state, the
    position in the data and the position in the schedule; the checkpoint holds the rest (``RunState``).

    Args:
        model: with its starting weights; ``begin`` moves it to the processes' device.
        recipe: what is done.
        photographs: the pictures.
        folder: of the run: log.jsonl, checkpoint.pt, best/, samples/, and model/ at the end.
        processes: of which this is one; itself alone where left out.
        validation: what to measure; nothing where left out, and then there is no best/.
        provenance: what the model cards say of the start and the data.
        save_every: steps between two checkpoints.
        log_every: steps between two rows of the log.
        threads: that draw patches.
        tensorboard: also write TensorBoard's files.
        progress: draw a bar and say how long the run will take.

    Attributes:
        state: what is saved; from ``begin`` on.
        changed: how what is done differs from what the checkpoint's run did, in words.
        pace: speed since the last start.
        stopped_by: the number of the signal that stopped ``train``, if one did.

    Raises:
        ConfigError: a setting does not fit the model or the number of processes.
    """

    state: RunState

    def __init__(
        self,
        model: SuperResolver,
        recipe: Recipe,
        photographs: Photographs,
        folder: str | Path,
        *,
        processes: Processes | None = None,
        validation: Validation | None = None,
        provenance: Provenance | None = None,
        save_every: int = 500,
        log_every: int = 50,
        threads: int = 1,
        tensorboard: bool = True,
        progress: bool = True,
    ):
        self.processes = processes or Processes(model.device)
        device = self.processes.device
        if recipe.bf16 is None:
            recipe = replace(recipe, bf16=device.type == "cuda" and has_bfloat16())
        self.model, self.recipe, self.photographs, self.validation = model, recipe, photographs, validation
        self.provenance = provenance or Provenance("the weights given", photographs.in_words)
        self.folder, self.checkpoint = Path(folder), Path(folder) / CHECKPOINT
        self.save_every, self.log_every, self.threads = save_every, log_every, threads
        self.tensorboard, self.progress = tensorboard, progress
        self.place = device_name(device)
        if self.processes.count > 1:
            self.place += f", {self.processes.count} processes"
        self.parts = recipe.share_of(self.processes.rank, self.processes.count)
        self.drawing = Draw(recipe, cascade_of(model).stages if recipe.freeze_stages else stages_of(model))
        self.pace = Pace()
        self.changed: list[str] = []
        self.stopped_by: int | None = None
        self._measured: tuple[int, Results] | None = None

    def begin(self) -> RunState:
        """Prepare the model and go on from the folder's checkpoint, if there is one; once.

        Raises:
            ClitZooError: the backend cannot serve, or the checkpoint is damaged or another run's.
        """
        if hasattr(self, "state"):
            return self.state
        recipe, model = self.recipe, self.model.to(self.processes.device)
        model.check_backend()
        if recipe.channels_last:
            model.to(memory_format=torch.channels_last)
        recipe.freeze(model)
        _training_mode(model)
        if recipe.compile:  # the encoder's shapes never change; the decoder's time is in few large operations
            cast(nn.Module, model.encoder).compile()
        self.processes.share(model.parameters())
        state = RunState.at_start(model, recipe)
        entry = {"start": self.provenance.start, "data": self.provenance.data, "recipe": asdict(recipe)}
        if self.checkpoint.exists():
            self.changed = state.load(self.checkpoint, entry)
            if not (self.folder / BEST).exists() or not self._comparable(state.best):
                state.best = {}
        if not state.history or (self.changed and state.step < recipe.steps):
            state.history.append({"step": state.step, **entry})
        self.folder.mkdir(parents=True, exist_ok=True)
        self.state = state
        return state

    def train(self, minutes: float | None = None) -> bool:
        """Do the steps that are left; True when all are done, be it in a run that was once longer.

        Stops early, with the state saved, after ``minutes`` or on SIGTERM or the first Ctrl-C.

        Raises:
            ClitZooError: ``begin`` refuses, the loss or a weight is no longer a number, nothing can be
                validated any more, or the processes stand at different steps. The last checkpoint stays.
            OSError: a file cannot be written.
        """
        state = self.begin()
        if not self.processes.same(state.step):
            raise ClitZooError(
                "the processes see different checkpoints: give all the same --out on a shared disk"
            )
        log = Log(self.folder, state.step, self.tensorboard) if self.processes.main else None
        if log is not None:
            self._log_start(log)
        deadline = time.perf_counter() + (60 * minutes if minutes is not None else math.inf)
        shown = self.progress and self.processes.main
        steps = range(state.step, self.recipe.steps)
        # without smoothing: the time left counts validation too, and does not jump with it
        bar = tqdm(
            total=self.recipe.steps, initial=state.step, unit="step", mininterval=2, smoothing=0,
            disable=not shown,
        )  # fmt: skip
        self.pace, window = Pace(), Pace()
        try:
            with bar, prefetched(self._draw, steps, self.threads) as batches, StopSignal() as signal:
                begin = time.perf_counter()
                for batch, waited in batches:
                    state.losses.append(self._update(batch))
                    state.step += 1
                    bar.update()
                    last = state.step == self.recipe.steps
                    to_log = state.step % self.log_every == 0 or last
                    if self.pace.steps in (0, FORECAST_AFTER - 1):
                        float(state.losses[-1])  # waits for the device, which may be behind
                    loss = state.mean_loss() if to_log else 0.0  # waits too
                    spent = time.perf_counter() - begin
                    state.seconds += spent
                    for pace in (self.pace, window):
                        pace.add(spent, waited)
                    if shown and self.pace.steps == FORECAST_AFTER and not last:
                        tqdm.write(self.pace.forecast(self.recipe.steps - state.step))
                    if to_log:
                        bar.set_postfix(loss=f"{loss:.4f}")
                        if log is not None:
                            log.row(state.step, **self._figures(loss, window))
                        window = Pace()
                    validates = self.validation and (state.step % self.validation.every == 0 or last)
                    if validates:
                        self.save()  # a validation that fails or is killed must not cost steps
                        self._validate(log)
                    stops = self._stops(signal.number is not None or time.perf_counter() > deadline)
                    if stops or validates or state.step % self.save_every == 0 or last:
                        self.save()
                    if stops:
                        self.stopped_by = signal.number
                        break
                    begin = time.perf_counter()
        finally:
            if log is not None:
                log.close()
        return state.step >= self.recipe.steps

    def finish(self) -> Path:
        """Write the averaged weights to ``folder``/model, which ``from_pretrained`` takes; return it."""
        step = self.begin().step
        if self.processes.main:
            with self._averaged():
                if self.validation and (self._measured is None or self._measured[0] != step):
                    self._measured = step, self.validation.measure(self.model)
                self._write_model(FINAL, self._measured[1] if self._measured else None)
        self.processes.wait()
        return self.folder / FINAL

    def save(self) -> None:
        """Write the checkpoint; the old one stays until that is done.

        Raises:
            ClitZooError: a loss or a weight is not finite.
            OSError: the file cannot be written.
        """
        if self.processes.main:
            self.state.save(self.checkpoint)
        else:
            self.state.check()
        self.processes.wait()

    def _draw(self, step: int) -> list[Batch]:
        parts = [self.drawing.batch(self.photographs, step, part) for part in self.parts]
        return [part.pinned() for part in parts] if self.processes.device.type == "cuda" else parts

    def _update(self, parts: list[Batch]) -> Tensor:
        """One optimizer step; returns the loss, not yet waited for."""
        recipe, device, state = self.recipe, self.processes.device, self.state
        torch.manual_seed(_torch_seed(recipe.seed, state.step, self.processes.rank))
        for p in self.model.parameters():
            p.grad = None
        total = torch.zeros((), device=device)
        for part in parts:
            batch = part.to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=bool(recipe.bf16)):
                predicted = self.model.decode(self.model.encode(batch.image), batch.where)
            loss = LOSSES[recipe.loss](predicted.float(), batch.target) / len(parts)
            loss.backward()
            total += loss.detach()
        total = self.processes.average(total, self.model.parameters())
        if recipe.clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip)
        state.optimizer.step(recipe.lr_at(state.step))
        state.average.update(self.model, state.step)
        return total

    def _stops(self, asked: bool) -> bool:
        """Whether to stop here: what all processes agree on."""
        if self.processes.count == 1:
            return asked
        return self.state.step % ASK_EVERY == 0 and self.processes.any(asked)

    def _figures(self, loss: float, pace: Pace) -> dict[str, float]:
        return {
            "loss": round(loss, 6),
            "lr": self.recipe.lr_at(self.state.step - 1),
            "steps_per_s": round(pace.speed, 4),
            "patches_per_s": round(pace.speed * self.recipe.batch, 2),
            "data_share": round(pace.waiting, 4),
        }

    def _log_start(self, log: Log) -> None:
        log.row(
            self.state.step,
            event="start",
            model=self.model.config.name,
            parameters=sum(parameter.numel() for parameter in self.model.parameters()),
            recipe=asdict(self.recipe),
            changed=self.changed,
            device=self.place,
            processes=self.processes.count,
            pictures=len(self.photographs.images),
            skipped=self.photographs.skipped,
        )
        if log.missing:
            tqdm.write(log.missing)
        if self.recipe.degrade and self.state.step == 0:
            write_picture(self.folder / SAMPLES / "degraded.png", self.drawing.sheet(self.photographs))

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """The model as it will be used: averaged weights, evaluation mode, nothing compiled for a size."""
        with self.state.average.applied(self.model), torch.compiler.set_stance("force_eager"):
            self.model.eval()
            try:
                yield
            finally:
                _training_mode(self.model)

    def _validate(self, log: Log | None) -> None:
        """Measure the averaged weights and keep them if they are the best so far."""
        validation, state = self.validation, self.state
        if self.processes.main and validation is not None:
            with self._averaged():
                begin = time.perf_counter()
                results = validation.measure(self.model)
                self._measured = state.step, results
                score = mean_psnr(results)
                if log is not None:
                    seconds = round(time.perf_counter() - begin, 2)
                    log.row(state.step, val_seconds=seconds, **as_row(results))
                if not state.best or score > state.best["score"]:
                    self._write_model(BEST, results)
                    state.best = {"score": score, "step": state.step, "of": validation.what}
                pixels = validation.sample(self.model)
            if pixels is not None:
                write_picture(self.folder / SAMPLES / f"step_{state.step:07d}.png", pixels)
                if log is not None:
                    log.picture(state.step, "bicubic, model, original", pixels)
        self.processes.wait()

    def _comparable(self, best: dict[str, Any]) -> bool:
        """Whether those figures can be compared with what this run measures."""
        return self.validation is None or best.get("of", self.validation.what) == self.validation.what

    def _write_model(self, where: str, results: Results | None) -> None:
        card = training_card(self.provenance, self.recipe, self.state, self.place, results)
        self.model.save_pretrained(self.folder / where, overwrite=True, card=card)


def write_picture(path: Path, pixels: np.ndarray) -> None:
    """Write (H, W, 3) uint8, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write(Picture(torch.from_numpy(pixels.transpose(2, 0, 1)[None])), path)


def _training_mode(model: SuperResolver) -> None:
    """The parts that are trained in training mode; the others compute what they will compute in use.

    SwinIR's stochastic depth would be noise that a frozen encoder cannot learn from.
    """
    model.train()
    for part in model.modules():
        parameters = list(part.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            part.eval()


def device_name(device: torch.device) -> str:
    """A device in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"CPU ({threads} thread{'s' * (threads > 1)})" if device.type == "cpu" else device.type


def _torch_seed(seed: int, step: int, rank: int) -> int:
    return int(np.random.SeedSequence((seed, 2, step, rank)).generate_state(1)[0])
