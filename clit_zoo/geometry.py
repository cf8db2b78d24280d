"""Pixel centres, cells and the cascade's plan: pure functions of sizes.

Coordinates are pixel centres in [-1, 1], (y, x), as in LIIF (Chen et al., CVPR 2021) and CLIT: pixel i of n
lies at (2 i + 1) / n - 1.
"""

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from clit_kernels import Grid, Points, Raster
from clit_kernels.position_bias import has_float64

from .errors import ScaleError

BASE = 4.0
"""Largest factor of one cascade stage (Chen et al., CVPR 2023, section 3.4: trained on factors in [1, 4])."""

MAX_SCALE = 1000.0
"""Beyond this a scale is a typing mistake: a picture of 100x100 pixels would become one of 10 gigapixels."""

TIE_STEPS = 2.0**18
"""Positions within half of 1/TIE_STEPS of a pixel from half-way count as half-way."""

Size = tuple[int, int]
Factors = tuple[tuple[float, float], ...]


def output_size(
    h: int, w: int, scale: float | Sequence[float] | None = None, size: Sequence[int] | None = None
) -> Size:
    """The output size (H, W) of an h x w picture for a scale, a pair (sy, sx) of them, or a target size.

    Raises:
        ScaleError: both or neither are given, or one is not a number within bounds: scales in
            [1, 1000], sizes not below the input's.
    """
    if (scale is None) == (size is None):
        raise ScaleError("give a scale or a target size, and not both")
    if size is not None:
        numbers = _numbers(size)
        if len(numbers) != 2 or not all(_is_whole(n) for n in numbers):
            raise ScaleError(f"size must be two whole numbers (height, width), got {size!r}")
        height, width = int(numbers[0]), int(numbers[1])
        if height < h or width < w:
            raise ScaleError(
                f"size {width}x{height} (width x height) is smaller than the {w}x{h} input: this library "
                "enlarges; ask for at least the input's size"
            )
    else:
        pair = _numbers(scale)
        pair = pair * 2 if len(pair) == 1 else pair
        if len(pair) != 2:
            raise ScaleError(f"scale must be a number or a pair (sy, sx), got {scale!r}")
        for s in pair:
            if not 1 <= s <= MAX_SCALE:  # NaN is not
                raise ScaleError(f"scale {s:g} is out of range: take a number from 1 to {MAX_SCALE:g}")
        height, width = round(h * pair[0]), round(w * pair[1])
    if max(height / h, width / w) > MAX_SCALE:
        raise ScaleError(f"{w}x{h} to {width}x{height} is more than {MAX_SCALE:g} times; take a smaller size")
    return height, width


def _numbers(given: Any) -> list[Any]:
    """The real numbers of a number, a sequence, an array or a tensor; none where it holds anything else."""
    if hasattr(given, "tolist"):
        given = given.tolist()
    items = list(given) if isinstance(given, Sequence) and not isinstance(given, str | bytes) else [given]
    # int and SymInt first: a compiled graph's symbolic size has an `item` that cannot be traced
    plain = int | float | torch.SymInt
    items = [item.item() if not isinstance(item, plain) and hasattr(item, "item") else item for item in items]
    known = all(isinstance(item, Real | torch.SymInt) and not isinstance(item, bool) for item in items)
    return items if known else []


def _is_whole(number: Any) -> bool:
    # what torch.export traces has no float form
    return isinstance(number, int | torch.SymInt) or (math.isfinite(number) and int(number) == number)


def axis_factors(scale: float, stages: int, base: float = BASE) -> tuple[float, ...]:
    """Split one axis' scale into at most ``stages`` factors: [s] up to the base, else [4, ..., rest].

    The last stage takes whatever is left, so a scale above base**stages still has a plan. The published code
    fails there.
    """
    factors: list[float] = []
    while len(factors) < stages - 1 and scale > base:
        factors.append(base)
        scale /= base
    return (*factors, scale)


def plan(h: int, w: int, size: Size, stages: int) -> list[Size]:
    """Feature-map size of each stage that an h x w picture enlarged to ``size`` passes.

    Stage 1 works at (h, w), stage i > 1 at round(h * product of the factors before i). Each axis plans by
    itself; the shorter plan repeats its last map, so that all stages exist on both axes.
    """
    per_axis = []
    for n, target in zip((h, w), size, strict=True):
        maps, product = [n], 1.0
        for factor in axis_factors(target / n, stages)[:-1]:
            product *= factor
            maps.append(round(n * product))
        per_axis.append(maps)
    depth = max(len(maps) for maps in per_axis)
    rows, cols = (maps + [maps[-1]] * (depth - len(maps)) for maps in per_axis)
    return list(zip(rows, cols, strict=True))


def cell_size(feature: Size, output: Size, batch: int, device: torch.device) -> Tensor:
    """(B, 2) float32 size of an output pixel in half feature pixels: (2 / H * h, 2 / W * w)."""
    pair = [2 * n / m for n, m in zip(feature, output, strict=True)]
    return torch.tensor([pair], dtype=torch.float32, device=device).expand(batch, 2)


def axis_positions(n: int, m: int, start: int = 0, stop: int | None = None) -> tuple[Tensor, Tensor]:
    """Nearest pixel (int64) and offset (float32) on n feature pixels of output pixels [start, stop) of m.

    Half-way positions go to the even pixel, as grid_sample's 'nearest' does. The position's numerator is a
    whole number, so a tie is exactly a tie.
    """
    i = torch.arange(start, m if stop is None else stop, dtype=torch.float64)
    position = ((2 * i + 1) * n - m) / (2 * m)
    index = position.round()
    return index.long(), (position - index).float()


def nearest_pixel(i: int, n: int, m: int) -> int:
    """``axis_positions``' index of output pixel i, in whole numbers: tracing needs no tensor's value."""
    position = (2 * i + 1) * n - m
    index, rest = position // (2 * m), position % (2 * m)  # a symbolic size has no divmod
    return index + (rest > m or (rest == m and index % 2 == 1))


def grid(feature: Size, output: Size, device: torch.device, rows: slice | None = None) -> Grid:
    """All output pixels, or those of output rows ``rows``, on a feature map."""
    part = rows or slice(0, output[0])
    y, y_offset = axis_positions(feature[0], output[0], part.start, part.stop)
    x, x_offset = axis_positions(feature[1], output[1])
    return Grid(y.to(device), y_offset.to(device), x.to(device), x_offset.to(device))


def points(coords: Tensor, feature: Size) -> Points:
    """Positions ``coords`` (B, N, 2) in [-1, 1] on a feature map, computed in float64 where there is one."""
    where = coords.device
    wide = coords.to(where if has_float64(where) else "cpu", torch.float64)
    n = torch.tensor(feature, dtype=torch.float64, device=wide.device)
    position = ((wide + 1) * n - 1) / 2
    # coordinates of a pixel centre carry rounding noise; half-way positions must still go to the even pixel
    index = (position * TIE_STEPS).round().div(TIE_STEPS).round()
    return Points(index.long().to(where), (position - index).float().to(where))


def pixel_centres(n: int, device: torch.device | None = None) -> Tensor:
    """(n,) float64 coordinates of n pixels' centres in [-1, 1] (float32 on MPS)."""
    i = torch.arange(n, dtype=torch.float64)
    centres = (2 * i + 1) / n - 1
    return centres.to(device) if device is None or has_float64(device) else centres.float().to(device)


def raster_coords(raster: Raster) -> Tensor:
    """(B, M * h * w, 2) float64 coordinates in [-1, 1] of a raster's queries, in order (float32 on MPS)."""
    h, w = raster.offset.shape[2:4]
    offset = raster.offset.double() if has_float64(raster.offset.device) else raster.offset.float()
    y = (2 * (torch.arange(h, device=offset.device).view(h, 1) + offset[..., 0]) + 1) / h - 1
    x = (2 * (torch.arange(w, device=offset.device) + offset[..., 1]) + 1) / w - 1
    return torch.stack((y, x), -1).flatten(1, 3)
