"""Measuring a model while it trains, by the benchmarks' protocol."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ClitZooError, ConfigError, ImageError
from ..evaluation import Results, bicubic, evaluate, model_method
from ..evaluation.dataset import dataset_names, dataset_of, images_in, make_pair, read_original, sizes_at
from ..evaluation.evaluate import check_scales
from ..evaluation.metrics import as_rgb
from ..evaluation.protocol import protocol_for
from ..model import SuperResolver

SAMPLE_SIDE = 256


@dataclass(frozen=True)
class Validation:
    """What is measured, and how often.

    Attributes:
        folders: of original pictures, one for each dataset.
        scales: real numbers from 1.
        every: steps between two measurements; there is one at the end in any case.
        limit: pictures of each folder to take; all where None.

    Raises:
        ClitZooError: a folder is missing, empty or given twice, a scale is not usable, or no
            picture of a folder can be measured at a scale.
    """

    folders: tuple[Path, ...]
    scales: tuple[float, ...] = (2, 3, 4)
    every: int = 1000
    limit: int | None = None

    def __post_init__(self) -> None:
        check_scales(self.scales)
        dataset_names(self.folders)  # refuses a folder that is given twice
        for folder in self.folders:
            self._check_pictures(folder)

    @property
    def what(self) -> dict[str, Any]:
        """What is measured: scores of different measurements cannot be compared."""
        return {
            "folders": dataset_names(self.folders),
            "scales": check_scales(self.scales),
            "limit": self.limit,
        }

    def measure(self, model: SuperResolver) -> Results:
        """PSNR and SSIM of every picture at every scale."""
        method = model_method(model)
        parts = [
            evaluate(method, folder, self.scales, dataset=name, limit=self.limit, progress=False)
            for folder, name in zip(self.folders, dataset_names(self.folders), strict=True)
        ]
        return sum(parts[1:], start=parts[0])

    def sample(self, model: SuperResolver) -> np.ndarray | None:
        """A picture (H, W, 3) uint8 to look at: bicubic, the model and the original, side by side.

        The middle of the first picture that can be read and enlarged, at the scale nearest to 4; None where
        there is none.
        """
        scale = min(self.scales, key=lambda s: abs(s - 4))
        for path in images_in(self.folders[0]):
            try:
                pair = make_pair(read_original(path), scale, None)
                low, high = as_rgb(pair.low), as_rgb(pair.high)
                size = (high.shape[0], high.shape[1])
                made = (model_method(model)(low, size) * 255).round().clip(0, 255).astype(np.uint8)
                return np.concatenate([_middle(p) for p in (bicubic(low, size), made, high)], axis=1)
            except (ImageError, MemoryError):
                continue
        return None

    def _check_pictures(self, folder: Path) -> None:
        """Raises ConfigError unless every scale has a picture large enough for it.

        Pictures are read until that is so: as a rule, the first one only.
        """
        rules = protocol_for("auto", dataset_of(folder))
        left, reason = check_scales(self.scales), ""
        for path in images_in(folder)[: self.limit]:
            try:
                original = read_original(path)
            except (ImageError, MemoryError) as error:
                reason = reason or str(error) or "out of memory"
                continue
            height, width = original.pixels.shape[:2]
            reason = reason or f"{path.name} is {width}×{height}"
            left = [s for s in left if not rules.leaves_some(sizes_at((height, width), s)[1], s)]
            if not left:
                return
        scales = ", ".join(f"×{s:g}" for s in left)
        raise ConfigError(
            f"no picture of {folder} can be measured at {scales} ({reason}): give larger pictures or other "
            "--val-scales."
        )


def mean_psnr(results: Results) -> float:
    """The mean over datasets and scales: what "best" means.

    Raises:
        ClitZooError: no picture could be scored.
    """
    means = results.means()
    if not means:
        reason = results.skipped[0].reason if results.skipped else "there is none"
        raise ClitZooError(
            f"no validation picture could be measured ({reason}): give other pictures or --val-scales"
        )
    return sum(mean.psnr for mean in means) / len(means)


def as_row(results: Results) -> dict[str, Any]:
    """For the log: PSNR by dataset and scale, and pictures left out, if any, with their reasons."""
    row: dict[str, Any] = {"val": {f"{m.dataset}×{m.scale:g}": round(m.psnr, 4) for m in results.means()}}
    if results.skipped:
        row["val_skipped"] = [(f"{s.dataset}/{s.image}", s.scale, s.reason) for s in results.skipped]
    return row


def _middle(pixels: np.ndarray) -> np.ndarray:
    top, left = (max(0, (n - SAMPLE_SIDE) // 2) for n in pixels.shape[:2])
    return pixels[top : top + SAMPLE_SIDE, left : left + SAMPLE_SIDE]
