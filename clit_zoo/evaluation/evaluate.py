"""The evaluation itself: every image of a folder, at every scale."""

import math
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ..errors import ClitZooError, ImageError, ScaleError
from ..geometry import Size
from .dataset import (
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
from .methods import Method, as_method
from .metrics import as_rgb
from .protocol import Protocol, protocol_for
from .results import Results, Score, Skipped
from .resume import ResumeFile


def evaluate(
    method: Any,
    hr_folder: str | Path,
    scales: Iterable[float],
    protocol: str | Protocol = "auto",
    lr_folder: str | Path | None = None,
    *,
    dataset: str | None = None,
    limit: int | None = None,
    degrade: str = "",
    ssim: bool = True,
    progress: bool = True,
    resume_file: str | Path | None = None,
) -> Results:
    """Score a model, or anything else that enlarges, on a folder of original pictures.

    Args:
        method: a ``SuperResolver``, ``"bicubic"``, a ``Method``, or a function ``run(image, size)`` that
            takes uint8 ``(h, w, 3)`` and the output's ``(H, W)`` and returns ``(H, W, 3)``, uint8 or float
            from 0 to 1.
        hr_folder: the originals, 8-bit. Each is cropped to a multiple of the scale.
        scales: real numbers ≥ 1.
        protocol: "benchmark", "div2k", "auto" (by the dataset's name), or a ``Protocol``.
        lr_folder: given low-resolution pictures (``low_folders`` says how they are found). Without it they
            are made: MATLAB's bicubic up to ×4, Pillow's above, as in the papers.
        dataset: what to call the dataset; by default the folder's name.
        limit: score only the first so many images.
        degrade: what happens to the low-resolution pictures first, such as "jpeg:70"; nothing where left
            out. See ``degradations.degradation``.
        ssim: measure SSIM as well as PSNR.
        progress: draw a progress bar where there is a terminal.
        resume_file: where finished scores are kept and looked up, one line each.

    Returns:
        ``Results``. Images that cannot be read, are too small, do not fit their low-resolution version or are
        of a format that is not measured are in its ``skipped`` with the reason, and in no average.

    Raises:
        ClitZooError: the folder is empty, or a scale, protocol, degradation or resume file is not usable.
        OSError: a folder or the resume file cannot be read, or the latter not be written.
    """
    method, scales, folder = as_method(method), check_scales(scales), Path(hr_folder)
    name = dataset or dataset_of(folder)
    rules = protocol_for(protocol, plain_name(name))
    how = degradation(degrade) if degrade else None
    paths, low = images_in(folder)[:limit], low_folders(lr_folder, name, scales)
    if resume_file is not None and not method.key:
        raise ClitZooError(
            "Resuming needs to know when the method changes: pass a model, or a Method with an identity."
        )
    done = None if resume_file is None else ResumeFile(resume_file)
    results = Results(method.name, protocols={name: f"{rules.name}: {rules.describe()}"})
    total = len(paths) * len(scales)
    with tqdm(total=total, desc=name, unit="image", disable=None if progress else True) as bar:
        for path in paths:
            try:
                original = read_original(path)
            except ImageError as error:
                results.skipped.append(Skipped(name, path.name, None, _without_folder(error, path.parent)))
                bar.update(len(scales))
                continue
            for scale in scales:
                try:
                    pair = make_pair(original, scale, low[scale])
                    pair = pair.degraded(how) if how else pair
                    figures = _figures(method, rules, pair, path.name, scale, ssim, done)
                except (ClitZooError, MemoryError) as error:
                    why = _without_folder(error, low[scale] or folder) or "out of memory"
                    results.skipped.append(Skipped(name, path.name, scale, why))
                else:
                    results.scores.append(Score(name, rules.name, scale, path.stem, pair.source, **figures))
                bar.update()
    results.skipped += [Skipped(name, file, None, why) for file, why in left_out_of(folder)]
    return results


def _without_folder(error: Exception, folder: Path) -> str:
    """An error's words: tables and cards name the file and the dataset, and no folder of this machine."""
    return str(error).replace(f"{folder}{os.sep}", "")


def check_scales(scales: Iterable[float]) -> list[float]:
    """The scales once each, in the order given.

    Raises:
        ScaleError: there is none, or one is not a number from 1 up.
    """
    found = list(dict.fromkeys(float(scale) for scale in scales))
    if not found or not all(math.isfinite(scale) and scale >= 1 for scale in found):
        said = ", ".join(f"×{scale:g}" for scale in found) or "Nothing"
        raise ScaleError(f"{said} cannot be evaluated: scales are numbers from 1 up.")
    return found


def _figures(
    method: Method,
    rules: Protocol,
    pair: Pair,
    name: str,
    scale: float,
    with_ssim: bool,
    done: ResumeFile | None,
) -> dict[str, Any]:
    """PSNR, SSIM and seconds of one image, measured or from the resume file."""
    size = (pair.high.shape[0], pair.high.shape[1])
    if not rules.leaves_some(size, scale):
        raise ImageError(
            f"{name} is too small: {min(size)} pixels less a border of {rules.shave(scale)} on each side"
        )
    low = as_rgb(pair.low)

    def measure() -> dict[str, Any]:
        start = time.perf_counter()
        output = _enlarged(method, low, size)
        seconds = round(time.perf_counter() - start, 4)
        psnr, ssim = rules.score(output, pair.high, scale, with_ssim=with_ssim)
        return {"psnr": psnr, "ssim": ssim, "seconds": seconds}

    if done is None:
        return measure()
    return done.lookup([method.key, low, pair.high, scale, rules, with_ssim], measure)


def _enlarged(method: Method, low: np.ndarray, size: Size) -> np.ndarray:
    """The method's output, checked."""
    output = np.asarray(method(low, size))
    if output.shape != (*size, 3) or not np.isfinite(output).all():
        raise ClitZooError(f"{method.name} returned {output.shape} where finite {(*size, 3)} was asked for")
    return output
