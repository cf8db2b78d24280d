"""Training patches: decoded once, drawn by step number.

The patches of step t depend on (seed, t, rank) alone, so a resumed run sees exactly what the uninterrupted one
would have seen, and the data position is one integer.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from .. import geometry
from ..errors import ImageError
from ..geometry import Raster

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}


class Batch(NamedTuple):
    """One step's patches.

    ``image`` (B, 3, p, p) low resolution in [0, 1]; ``raster`` one stratified position per low-resolution
    pixel; ``target`` (B, p * p, 3) the high-resolution pixels there, in [0, 1]; ``cell`` (B, 2).
    """

    image: Tensor
    raster: Raster
    target: Tensor
    cell: Tensor


class Photographs:
    """All pictures of a folder (searched recursively) as uint8 (3, h, w) tensors, decoded once.

    Pictures that cannot be read or are smaller than ``smallest`` on a side are left out; ``skipped`` says
    which and why.

    Raises:
        ImageError: the folder holds no usable picture.
    """

    def __init__(self, folder: str | Path, smallest: int = 96):
        self.images: list[Tensor] = []
        self.skipped: list[tuple[Path, str]] = []
        files = sorted(f for f in Path(folder).rglob("*") if f.suffix.lower() in SUFFIXES)
        for file in tqdm(files, desc="decoding", unit="image", leave=False):
            try:
                with Image.open(file) as picture:
                    pixels = np.array(picture.convert("RGB"))
            except (OSError, ValueError, Image.DecompressionBombError) as error:
                self.skipped.append((file, f"cannot be read: {error}"))
                continue
            if min(pixels.shape[:2]) < smallest:
                self.skipped.append((file, f"smaller than {smallest} pixels"))
                continue
            self.images.append(torch.from_numpy(pixels).permute(2, 0, 1).contiguous())
        if not self.images:
            raise ImageError(
                f"{folder} holds no usable picture ({len(self.skipped)} unreadable or too small): give a folder "
                f"with photographs of at least {smallest} pixels a side"
            )
        # a large picture holds more patches, so it is drawn more often
        areas = np.array([image.shape[1] * image.shape[2] for image in self.images], dtype=np.float64)
        self.shares = areas / areas.sum()


def draw_batch(
    photographs: Photographs, *, seed: int, step: int, rank: int, batch: int, patch: int, scales: tuple[float, float]
) -> Batch:
    """The patches of one step; every patch has its own scale, uniform in ``scales``."""
    rng = np.random.default_rng((seed, step, rank))
    drawn = [_draw_patch(photographs, rng, patch, scales) for _ in range(batch)]
    image, offset, target, cell = (torch.stack(part) for part in zip(*drawn, strict=True))
    return Batch(image, Raster(offset.unsqueeze(1)), target, cell)


def _draw_patch(
    photographs: Photographs, rng: np.random.Generator, patch: int, scales: tuple[float, float]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    source = photographs.images[rng.choice(len(photographs.images), p=photographs.shares)]
    largest = min(source.shape[1:])
    side = min(round(patch * rng.uniform(*scales)), largest)
    top, left = (int(rng.integers(0, n - side + 1)) for n in source.shape[1:])
    high = _turned(source[:, top : top + side, left : left + side], rng).contiguous()
    low = F.interpolate(high.unsqueeze(0), (patch, patch), mode="bicubic", antialias=True)[0]
    offset, target = _stratified(high, patch, rng)
    cell = torch.full((2,), 2 / side)
    return low.float() / 255, offset, target.float() / 255, cell


def _turned(image: Tensor, rng: np.random.Generator) -> Tensor:
    """One of the eight flips and quarter turns."""
    if rng.random() < 0.5:
        image = image.flip(1)
    if rng.random() < 0.5:
        image = image.flip(2)
    return image.transpose(1, 2) if rng.random() < 0.5 else image


def _stratified(high: Tensor, patch: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """One random pixel of ``high`` nearest to each of patch x patch pixels: offsets (p, p, 2), colours (p*p, 3).

    One query per feature pixel makes training a raster (no gathers), and covers the patch evenly.
    """
    side = high.shape[1]
    index, offset = geometry.axis_positions(patch, side)
    counts = torch.bincount(index, minlength=patch)
    starts = counts.cumsum(0) - counts
    picks = [
        starts.view(shape) + (torch.from_numpy(rng.random((patch, patch))) * counts.view(shape)).long()
        for shape in ((patch, 1), (1, patch))
    ]
    offsets = torch.stack((offset[picks[0]], offset[picks[1]]), -1)
    colours = high[:, picks[0], picks[1]].flatten(1).T
    return offsets, colours
