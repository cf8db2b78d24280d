"""The evaluation itself: every image of a folder, at every scale."""

import contextlib
import math
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ClitZooError, ImageError, ScaleError
from .dataset import (
    Original,
    Pair,
    dataset_of,
    images_in,
    left_out_of,
    low_folders,
    make_pair,
    plain_name,
    read_original,
)
from .degradations import degradation
from .metrics import as_rgb
from .protocol import Protocol, protocol_for
from .results import Results, Score, Skipped
from .resume import ResumeError, ResumeFile
from .runners import Runner, as_runner


def evaluate(
    run: Any,
    hr_folder: str | Path,
    scales: Iterable[float],
    protocol: str | Protocol = "auto",
    lr_folder: str | Path | None = None,
    *,
    degrade: str = "",
    dataset: str | None = None,
    limit: int | None = None,
    ssim: bool = True,
    progress: bool = True,
    resume_file: str | Path | None = None,
) -> Results:
    """Score a model on a folder of original pictures.

    Args:
        run: a ``SuperResolver``, ``"bicubic"``, a ``Runner``, or a function ``run(image, size)`` that takes
            uint8 ``(h, w, 3)`` and the output's ``(H, W)`` and returns ``(H, W, 3)``, uint8 or float from
            0 to 1.
        hr_folder: the originals, 8-bit. Each is cropped to a multiple of the scale.
        scales: real numbers ≥ 1.
        protocol: "benchmark", "div2k", "auto" (by the dataset's name), or a ``Protocol``.
        lr_folder: given low-resolution pictures (``low_folders`` says how they are found). Without it they
            are made: MATLAB's bicubic up to ×4, Pillow's above, as in the papers.
        degrade: what happens to the low-resolution pictures first, such as "jpeg:70"; nothing where left
            out. See ``degradations.degradation``.
        dataset: what to call the dataset; by default the folder's name.
        limit: score only the first so many images.
        ssim: measure SSIM as well as PSNR.
        progress: draw a progress bar where there is a terminal.
        resume_file: where finished scores are kept and looked up, one line each.

    Returns:
        ``Results``. Images that cannot be read, are too small, do not fit their low-resolution version or are
        of a format that is not measured are in its ``skipped`` with the reason, and in no average.

    Raises:
        ClitZooError: a folder is missing or empty, or a scale, protocol, degradation or resume file is not
            usable.
        ResumeError: a score could not be kept; its ``results`` are those so far.
    """
    runner = as_runner(run)
    wanted = check_scales(scales)
    folder = Path(hr_folder)
    name = dataset or dataset_of(folder)
    rules = protocol_for(protocol, plain_name(name))
    how = degradation(degrade) if degrade else None
    if limit is not None and limit < 1:
        raise ClitZooError(f"A limit of {limit} images leaves nothing to evaluate: give 1 or more.")
    paths = images_in(folder)[:limit]
    low = low_folders(lr_folder, name, wanted)
    if resume_file is not None and not runner.fingerprint:
        raise ClitZooError(
            "Resuming needs to know when the model changes: pass a model, or a Runner with a fingerprint."
        )

    from tqdm import tqdm

    results = Results(runner.name, protocols={name: f"{rules.name}: {rules.describe()}"})
    with _handed_over(results), contextlib.ExitStack() as stack:
        done = stack.enter_context(ResumeFile(Path(resume_file))) if resume_file is not None else None
        total = len(paths) * len(wanted)
        bar = stack.enter_context(
            tqdm(total=total, desc=name, unit="image", disable=None if progress else True)
        )
        for path in paths:
            try:
                original = read_original(path)
            except ImageError as error:
                results.skipped.append(Skipped(name, path.name, None, str(error)))
                bar.update(len(wanted))
                continue
            for scale in wanted:
                try:
                    pair = make_pair(original, scale, low[scale])
                    pair = pair.degraded(how) if how else pair
                    score, key = _score(runner, rules, original, pair, name, scale, ssim, done)
                except (ClitZooError, OSError, MemoryError) as error:
                    results.skipped.append(Skipped(name, path.name, scale, str(error) or "out of memory"))
                else:
                    results.scores.append(score)
                    if done and key and key not in done:
                        values = {"psnr": score.psnr, "ssim": score.ssim, "seconds": score.seconds}
                        done.add(*key, name=f"{name}/{path.name}", **values)
                bar.update()
        results.skipped += [Skipped(name, file, None, why) for file, why in left_out_of(folder)]
    return results


@contextlib.contextmanager
def _handed_over(results: Results) -> Iterator[None]:
    """Where the resume file fails, hours of scores leave with the error instead of being lost."""
    try:
        yield
    except ResumeError as error:
        error.results = results
        raise


def check_scales(scales: Iterable[float]) -> list[float]:
    """The scales once each, in the order given."""
    found = list(dict.fromkeys(float(scale) for scale in scales))
    for scale in found:
        if not (math.isfinite(scale) and scale >= 1):
            raise ScaleError(f"×{scale:g} cannot be evaluated: scales are numbers from 1 up.")
    if not found:
        raise ScaleError("There is no scale to evaluate: give one such as 2.")
    return found


def _score(
    runner: Runner,
    rules: Protocol,
    original: Original,
    pair: Pair,
    dataset: str,
    scale: float,
    with_ssim: bool,
    done: ResumeFile | None,
) -> tuple[Score, tuple[Any, ...] | None]:
    """The score, and the key under which the resume file, if there is one, has it or is to have it."""
    size = (pair.high.shape[0], pair.high.shape[1])
    if not rules.leaves_some(size, scale):
        raise ImageError(
            f"{original.path.name} is too small: {min(size)} pixels less a border of {rules.shave(scale)} on "
            "each side"
        )
    key, entry = None, None
    if done:
        key = (runner.fingerprint, original.sha256, pair.lr_key, scale, f"{rules}, SSIM {with_ssim}")
        entry = done.get(*key)
    if entry is None:
        low = as_rgb(pair.low())
        start = time.perf_counter()
        output = _enlarge(runner, low, size)
        seconds = time.perf_counter() - start
        values = rules.score(output, pair.high, scale, with_ssim=with_ssim)
        entry = {"psnr": values[0], "ssim": values[1], "seconds": round(seconds, 4)}
    ssim, seconds = entry.get("ssim"), entry.get("seconds", 0.0)
    image = original.path.stem
    return Score(dataset, rules.name, scale, image, pair.lr, entry["psnr"], ssim, seconds), key


def _enlarge(runner: Runner, low: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The runner's output, checked."""
    output = np.asarray(runner(low, size))
    if output.shape != (*size, 3):
        raise ClitZooError(f"{runner.name} returned {output.shape} where {(*size, 3)} was asked for")
    if output.dtype != np.uint8 and not np.isfinite(output).all():
        raise ClitZooError(f"{runner.name} returned values that are not finite")
    return output
