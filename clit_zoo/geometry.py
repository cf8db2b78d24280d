"""Where colours are asked for: output sizes, positions and their cells, the cascade's plan.

Coordinates are pixel centres in [-1, 1], (y, x), as in LIIF (Chen et al., CVPR 2021) and CLIT: pixel i of n
lies at (2 i + 1) / n - 1. A cell is the size of an output pixel in the same units: (2 / H, 2 / W).

A ``Where`` is a set of positions in the picture with their cell; ``where.on(map_size, device)`` is the same
set on one feature map, as ``clit_kernels`` takes it. Nothing else rounds a position to a pixel.
"""

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Tensor

import clit_kernels
from clit_kernels import Grid, Points
from clit_kernels.position_bias import has_float64

from .axis import Axis
from .errors import ScaleError

BASE = 4.0
"""Largest factor of one cascade stage (Chen et al., CVPR 2023, section 3.4: trained on factors in [1, 4])."""

MAX_SCALE = 1000.0
"""Beyond this a scale is a typing mistake: a picture of 100x100 pixels would become one of 10 gigapixels."""

TIE_STEPS = 2.0**18
"""Positions within half of 1/TIE_STEPS of a pixel from half-way count as half-way."""

Size = tuple[int, int]
"""(height, width) in pixels, here and everywhere in the library."""

Box = tuple[float, float, float, float]
"""(left, top, right, bottom) in pixels of the input, as Pillow's crop takes it; fractions allowed."""


class Frame(NamedTuple):
    """Where an image lies in the picture that it is a part of.

    Attributes:
        top, left: row and column of its first pixel.
        whole: (h, w) of the picture.
    """

    top: int
    left: int
    whole: Size


def output_size(
    h: float, w: float, scale: float | Sequence[float] | None = None, size: Sequence[int] | None = None
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
                f"size {width}x{height} (width x height) is smaller than the {w:g}x{h:g} input: this library "
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
    if max(height / h, width / w) > MAX_SCALE * (1 + 1e-6):  # the edges of a window are rounded
        raise ScaleError(
            f"{w:g}x{h:g} to {width}x{height} is more than {MAX_SCALE:g} times; take a smaller size"
        )
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


def plan(h: int, w: int, scales: tuple[float, float], stages: int) -> list[Size]:
    """Feature-map size of each stage that an h x w picture enlarged by ``scales`` (y, x) passes.

    Stage 1 works at (h, w), stage i > 1 at round(h * product of the factors before i). Each axis plans by
    itself; the shorter plan repeats its last map, so that all stages exist on both axes.
    """
    per_axis = []
    for n, scale in zip((h, w), scales, strict=True):
        maps, product = [n], 1.0
        for factor in axis_factors(scale, stages)[:-1]:
            product *= factor
            maps.append(round(n * product))
        per_axis.append(maps)
    depth = max(len(maps) for maps in per_axis)
    rows, cols = (maps + [maps[-1]] * (depth - len(maps)) for maps in per_axis)
    return list(zip(rows, cols, strict=True))


class Pixels(NamedTuple):
    """Every pixel of a window, row-major: ``Pixels.whole(size)`` or ``Pixels.window(...)``.

    Attributes:
        rows, cols: its pixels along each axis.
    """

    rows: Axis
    cols: Axis

    @classmethod
    def whole(cls, size: Size) -> "Pixels":
        """The whole picture at output size (H, W)."""
        return cls(Axis.whole(size[0]), Axis.whole(size[1]))

    @classmethod
    def window(
        cls,
        h: int,
        w: int,
        box: Box | None = None,
        scale: float | Sequence[float] | None = None,
        size: Sequence[int] | None = None,
    ) -> "Pixels":
        """A window of an h x w picture.

        Args:
            h, w: the input's size.
            box: what to show, in pixels of the input; all of it where left out.
            scale: a number from 1, or a pair (sy, sx): the window is cut from the whole picture at that
                scale, its edges moved to the nearest pixels' edges there.
            size: or the window's own (height, width) in pixels, from edge to edge of the box.

        Raises:
            ScaleError: as ``output_size``, or the box is empty or reaches beyond the picture.
        """
        if box is None:
            return cls.whole(output_size(h, w, scale, size))
        edges = [float(edge) for edge in _numbers(box)]
        if len(edges) != 4:
            raise ScaleError(f"box must be (left, top, right, bottom) in pixels of the input, got {box!r}")
        left, top, right, bottom = edges
        if not (0 <= left < right <= w and 0 <= top < bottom <= h):
            raise ScaleError(f"box {box!r} is empty or reaches beyond the {w}x{h} input")
        if scale is not None and size is None:
            whole = output_size(h, w, scale)
            rows = Axis.between(h, top, bottom, whole=whole[0])
            return cls(rows, Axis.between(w, left, right, whole=whole[1]))
        height, width = output_size(bottom - top, right - left, scale, size)
        rows = Axis.between(h, top, bottom, size=height)
        return cls(rows, Axis.between(w, left, right, size=width))

    @property
    def size(self) -> Size:
        """(height, width) of the window."""
        return self.rows.size, self.cols.size

    @property
    def maps(self) -> None:
        """A cascade plans its maps from the scale."""
        return None

    def cells(self, map_size: Size, batch: int, device: torch.device) -> Tensor:
        """(B, 2) float32 size of an output pixel in half pixels of a map: (2 / H * h, 2 / W * w)."""
        pair = [self.rows.cell(map_size[0]), self.cols.cell(map_size[1])]
        return torch.tensor([pair], dtype=torch.float32, device=device).expand(batch, 2)

    def on(self, map_size: Size, device: torch.device | None = None) -> Grid:
        """The positions on a feature map."""
        scale = None  # a tracer cannot tell a float from its sizes
        if not torch.compiler.is_compiling():
            scale = (self.rows.scale(map_size[0]), self.cols.scale(map_size[1]))
        return Grid(*self.rows.on(map_size[0], device), *self.cols.on(map_size[1], device), scale)


class Coords(NamedTuple):
    """A list of positions for each image of a batch.

    Attributes:
        coords: (B, N, 2) positions (y, x); the picture spans [-1, 1].
        cell: (B, 2) size (y, x) of an output pixel in the same units.
        maps: sizes of the maps that a cascade's stages work on; planned from the cell where None.
    """

    coords: Tensor
    cell: Tensor
    maps: tuple[Size, ...] | None = None

    def cells(self, map_size: Size, batch: int, device: torch.device) -> Tensor:
        """(B, 2) size of an output pixel in half pixels of a map."""
        return _cells_on(self.cell, map_size)

    def on(self, map_size: Size, device: torch.device | None = None) -> Points:
        """The positions on a feature map."""
        return points(self.coords, map_size)


class Raster(NamedTuple):
    """M random positions nearest to each pixel of the encoder's map: training without gathers.

    Attributes:
        offset: (B, M, h, w, 2) float32 positions (y, x) relative to each pixel's centre, in pixels.
        cell, maps: as in ``Coords``.
    """

    offset: Tensor
    cell: Tensor
    maps: tuple[Size, ...] | None = None

    def cells(self, map_size: Size, batch: int, device: torch.device) -> Tensor:
        """(B, 2) size of an output pixel in half pixels of a map."""
        return _cells_on(self.cell, map_size)

    def on(self, map_size: Size, device: torch.device | None = None) -> clit_kernels.Raster | Points:
        """The positions on a feature map: a raster on their own, a list on any other."""
        if tuple(map_size) == tuple(self.offset.shape[2:4]):
            return clit_kernels.Raster(self.offset)
        return points(raster_coords(self.offset), map_size)


class Blocks(NamedTuple):
    """Positions in small blocks: a cascade makes its later maps around them only.

    Attributes:
        coords: (B, n, Q, 2) positions (y, x) of n blocks; the picture spans [-1, 1].
        cell, maps: as in ``Coords``.
        span: largest extent of a block, as a share of the picture.
    """

    coords: Tensor
    cell: Tensor
    maps: tuple[Size, ...] | None
    span: float

    def cells(self, map_size: Size, batch: int, device: torch.device) -> Tensor:
        """(B, 2) size of an output pixel in half pixels of a map."""
        return _cells_on(self.cell, map_size)

    def on(self, map_size: Size, device: torch.device | None = None) -> Points:
        """The positions on a feature map, block after block."""
        return points(self.coords.flatten(1, 2), map_size)


Where = Pixels | Coords | Raster | Blocks


def _cells_on(cell: Tensor, map_size: Size) -> Tensor:
    """Cells (B, 2) of a picture that spans [-1, 1], in half pixels of a map."""
    return cell * torch.tensor(map_size, dtype=cell.dtype, device=cell.device)


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


def raster_coords(offset: Tensor) -> Tensor:
    """(B, M * h * w, 2) float64 coordinates in [-1, 1] of a raster's positions, in order (float32 on MPS)."""
    h, w = offset.shape[2:4]
    wide = offset.double() if has_float64(offset.device) else offset.float()
    y = (2 * (torch.arange(h, device=offset.device).view(h, 1) + wide[..., 0]) + 1) / h - 1
    x = (2 * (torch.arange(w, device=offset.device) + wide[..., 1]) + 1) / w - 1
    return torch.stack((y, x), -1).flatten(1, 3)
