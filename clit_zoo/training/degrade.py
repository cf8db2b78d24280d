"""Low-resolution patches as people's pictures are: blurred, reduced, noisy and compressed, each by chance.

The order is that of a camera and a web site: light is blurred, the picture is reduced, noise comes on top,
and a file is written once or twice. The targets stay the clean pixels, so a model learns to undo all of it.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..evaluation.degradations import gaussian_blur, gaussian_noise, jpeg, motion_blur, poisson_noise, webp

Range = tuple[float, float]

# All but "nearest" are antialiased, and all keep every pixel in place; "nearest" takes the one pixel at the
# centre, or below and right of it where the centre lies between two.
KERNELS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
    "area": None,  # not Pillow's BOX: it takes whole pixels, and of two at equal distance the one on the left
}


@dataclass(frozen=True)
class RandomDegradation:
    """Which degradations there are, and how often. Lengths are in low-resolution pixels.

    Attributes:
        clean: share of the patches that are only reduced, by antialiased bicubic.
        kernels: share of each way to reduce, of the other patches.
        blur: share with isotropic blur; blur_sigma: its range. motion: share blurred along a line instead;
            motion_length: its range.
        noise: share with noise; noise_sigma: its range, in levels of 255. poisson: share of these where it
            grows with brightness. gray_noise: share of these where it is the same in all three channels.
        jpeg, webp: shares written as such a file; quality: its range. subsampled: share of the JPEGs with
            colour at half resolution. twice: share of the files that were a JPEG before, on another grid.
    """

    clean: float = 0.06
    kernels: tuple[tuple[str, float], ...] = (
        ("bicubic", 0.6), ("bilinear", 0.08), ("area", 0.15), ("lanczos", 0.14), ("nearest", 0.03),
    )  # fmt: skip
    blur: float = 0.1
    blur_sigma: Range = (0.1, 0.6)
    motion: float = 0.03
    motion_length: Range = (0.5, 2.0)
    noise: float = 0.3
    noise_sigma: Range = (0.5, 15.0)
    poisson: float = 0.5
    gray_noise: float = 0.25
    jpeg: float = 0.82
    webp: float = 0.08
    quality: tuple[int, int] = (25, 98)
    subsampled: float = 0.6
    twice: float = 0.15

    def __call__(self, crop: np.ndarray, patch: int, rng: np.random.Generator) -> np.ndarray:
        """The low-resolution patch (patch, patch, 3) of a square high-resolution one, both 8 bits."""
        if rng.random() < self.clean:
            return _reduced(crop, patch, "bicubic")
        scale = len(crop) / patch
        names, shares = zip(*self.kernels, strict=True)
        kernel = names[int(rng.choice(len(names), p=shares))]
        chance = rng.random()
        if chance < self.blur:
            crop = gaussian_blur(crop, rng.uniform(*self.blur_sigma) * scale)
        elif chance < self.blur + self.motion:
            crop = motion_blur(crop, rng.uniform(*self.motion_length) * scale, rng.uniform(0, math.pi))
        low = _reduced(crop, patch, kernel)
        if rng.random() < self.noise:
            low = self._noisy(low, rng)
        chance = rng.random()
        if chance < self.jpeg + self.webp:
            if rng.random() < self.twice:
                low = self._jpeg(low, rng)
            if chance < self.jpeg:
                return self._jpeg(low, rng)
            return webp(low, self._quality(rng), shift=_shift(rng))
        return low

    def _noisy(self, low: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        sigma = rng.uniform(*self.noise_sigma)
        if rng.random() < self.poisson:
            return poisson_noise(low, sigma, rng)
        if rng.random() < self.gray_noise:
            noise = sigma * rng.standard_normal((*low.shape[:2], 1), dtype=np.float32)
            return np.clip(np.rint(low + noise), 0, 255).astype(np.uint8)
        return gaussian_noise(low, sigma, rng)

    def _jpeg(self, low: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        subsampled = bool(rng.random() < self.subsampled)
        return jpeg(low, self._quality(rng), subsampled=subsampled, shift=_shift(rng))

    def _quality(self, rng: np.random.Generator) -> int:
        return int(rng.integers(self.quality[0], self.quality[1] + 1))


DEGRADATIONS = {"photo": RandomDegradation()}


def _reduced(crop: np.ndarray, patch: int, kernel: str) -> np.ndarray:
    if kernel == "area":
        share = _overlaps(len(crop), patch)
        low = np.einsum("ij,jkc,lk->ilc", share, crop.astype(np.float32), share, optimize=True)
        return np.rint(low).astype(np.uint8)
    return np.asarray(Image.fromarray(crop).resize((patch, patch), KERNELS[kernel]))


@functools.lru_cache(maxsize=256)
def _overlaps(side: int, patch: int) -> np.ndarray:
    """(patch, side): how much of each of ``patch`` pixels each of ``side`` pixels covers."""
    edges = np.arange(patch + 1)[:, None] * side / patch
    pixels = np.arange(side)
    inside = np.clip(np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels), 0, None)
    return (inside * patch / side).astype(np.float32)


def _shift(rng: np.random.Generator) -> tuple[int, int]:
    """Where the grid begins: any place of a 16x16 block, which is what 4:2:0 codes at a time."""
    return int(rng.integers(16)), int(rng.integers(16))
