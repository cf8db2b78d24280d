"""Measuring a model while it trains, by the benchmarks' protocol."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import ConfigError, ImageError
from ..evaluation import Results, bicubic, evaluate, model_runner
from ..evaluation.dataset import images_in, make_pair, read_original
from ..evaluation.evaluate import check_scales
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
        ClitZooError: a folder is missing or empty, or a scale is not usable.
    """

    folders: tuple[Path, ...]
    scales: tuple[float, ...] = (2, 3, 4)
    every: int = 1000
    limit: int | None = None

    def __post_init__(self) -> None:
        check_scales(self.scales)
        if self.every < 1:
            raise ConfigError(f"validation every {self.every} steps: give 1 or more.")
        for folder in self.folders:
            images_in(folder)

    def measure(self, model: SuperResolver) -> Results:
        """PSNR and SSIM of every picture at every scale."""
        runner = model_runner(model)
        parts = [evaluate(runner, f, self.scales, limit=self.limit, progress=False) for f in self.folders]
        return sum(parts[1:], start=parts[0])

    def sample(self, model: SuperResolver) -> np.ndarray:
        """A picture (H, W, 3) uint8 to look at: bicubic, the model and the original, side by side.

        The middle of the first readable picture, at the scale nearest to 4.
        """
        scale = min(self.scales, key=lambda s: abs(s - 4))
        for path in images_in(self.folders[0]):
            try:
                pair = make_pair(read_original(path), scale, None)
            except ImageError:
                continue
            low, high = _colour(pair.low()), _colour(pair.high)
            size = (high.shape[0], high.shape[1])
            made = (model_runner(model)(low, size) * 255).round().clip(0, 255).astype(np.uint8)
            return np.concatenate([_middle(p) for p in (bicubic(low, size), made, high)], axis=1)
        raise ImageError(f"{self.folders[0]} holds no readable picture")


def mean_psnr(results: Results) -> float:
    """The mean over datasets and scales: what "best" means."""
    means = results.means()
    return sum(mean.psnr for mean in means) / len(means)


def as_row(results: Results) -> dict[str, float]:
    """PSNR by dataset and scale, for the log."""
    return {f"{mean.dataset}×{mean.scale:g}": round(mean.psnr, 4) for mean in results.means()}


def _colour(pixels: np.ndarray) -> np.ndarray:
    return np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels


def _middle(pixels: np.ndarray) -> np.ndarray:
    top, left = (max(0, (n - SAMPLE_SIDE) // 2) for n in pixels.shape[:2])
    return pixels[top : top + SAMPLE_SIDE, left : left + SAMPLE_SIDE]
