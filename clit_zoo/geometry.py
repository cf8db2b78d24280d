"""Where colours are asked for: output sizes, positions and their cells, the cascade's plan.

Coordinates are pixel centres in [-1, 1], (y, x), as in LIIF (Chen et al., CVPR 2021) and CLIT: pixel i of n
lies at (2 i + 1) / n - 1. A cell is the size of an output pixel in the same units: (2 / H, 2 / W).

A ``Where`` is a set of positions in the picture with their cell; ``where.on(map_size, device)`` is the same
set on one feature map, as ``clit_kernels`` takes it. Nothing else rounds a position to a pixel.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Tensor

import clit_kernels
from clit_kernels import Grid, Points
from clit_kernels.position_bias import has_float64

from .errors import ScaleError

BASE = 4.0
"""Largest factor of one cascade stage (Chen et al., CVPR 2023, section 3.4: trained on factors in [1, 4])."""

MAX_SCALE = 1000.0
"""Beyond this a scale is a typing mistake: a picture of 100x100 pixels would become one of 10 gigapixels."""

TIE_STEPS = 2.0**18
"""Positions within half of 1/TIE_STEPS of a pixel from half-way count as half-way."""

GRID_STEPS = 1e-4
"""A window whose edges lie within this part of an output pixel of the whole picture's pixels shares them."""

MOST_GROWN = 64.0
"""Largest scale at which a window grows to whole feature pixels: beyond, that costs more than the window."""

FRACTION_STEPS = 1 << 16
"""Other edges are rounded to fractions of at most this denominator: 1e-5 of an input pixel at worst."""

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
    if max(height / h, width / w) > MAX_SCALE:
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


class Axis(NamedTuple):
    """Output pixels along one axis, in whole numbers, so that nothing is rounded before it meets a map.

    Attributes:
        start, step, unit: pixel i spans [start + i * step, start + (i + 1) * step] / unit of the picture's
            side. All ``unit`` pixels of the whole picture are (0, 1, unit, unit).
        size: number of pixels.
    """

    start: int
    step: int
    unit: int
    size: int

    @classmethod
    def whole(cls, m: int) -> "Axis":
        """All m pixels of an output."""
        return cls(0, 1, m, m)

    @classmethod
    def between(
        cls, n: int, low: float, high: float, *, whole: int | None = None, size: int | None = None
    ) -> "Axis":
        """Output pixels between two edges, in pixels of the n-pixel input.

        Args:
            n: pixels of the input.
            low, high: the edges, 0 <= low < high <= n.
            whole: pixels of the whole output whose pixels to take: those nearest to the edges.
            size: or so many pixels, from edge to edge.
        """
        if whole is not None:
            start, stop = round(low * whole / n), round(high * whole / n)
            start = min(start, whole - 1)
            return cls.whole(whole).part(start, max(stop, start + 1))
        assert size is not None
        # the edges of a grid of m pixels over the whole picture, where there is one that fits
        m = round(n * size / (high - low))
        start = round(low * m / n)
        if max(abs(low * m / n - start), abs(high * m / n - (start + size))) < GRID_STEPS:
            return cls.whole(m).part(start, start + size)
        first, last = (Fraction(edge).limit_denominator(FRACTION_STEPS) / n for edge in (low, high))
        step = (last - first) / size
        unit = math.lcm(first.denominator, step.denominator)
        return cls(int(first * unit), int(step * unit), unit, size)

    def part(self, start: int, stop: int) -> "Axis":
        """Pixels [start, stop)."""
        return self._replace(start=self.start + start * self.step, size=stop - start)

    def within(self, n: int, low: int, high: int) -> "Axis":
        """The same positions for whom pixels [low, high) of the n-pixel input are the whole picture."""
        start, step, unit = self.start * n - low * self.unit, self.step * n, self.unit * (high - low)
        divisor = math.gcd(start, step, unit)
        return Axis(start // divisor, step // divisor, unit // divisor, self.size)

    def grown(self, least: int, *maps: int) -> tuple["Axis", int]:
        """This axis with pixels added on both sides, and how many before it, for sums in the whole's order.

        There are at least ``least`` pixels. Where maps are named, they lie on at least 3 pixels of the first,
        and all that are nearest to one pixel of a map are there, up to a scale of ``MOST_GROWN``. Products of
        matrices of few rows are summed in another order than those of more (measured: MKL, 1 to 8 rows a
        thread), and exponentials at the end of a row of numbers are rounded otherwise (measured: AVX-512), so
        fewer pixels would not have the bits of the whole.
        """
        if self.start == 0 and self.size == self.unit:
            return self, 0
        low, high = -(self.start // self.step), (self.unit - self.start) // self.step
        if maps and self.scale(maps[0]) > MOST_GROWN:
            maps = ()
        wanted = max([least, *(math.ceil(2 * self.scale(n)) + 1 for n in maps[:1])])
        more = max(wanted - self.size, 0)
        start, stop = max(-(more // 2), low), self.size
        stop = min(stop + more + start, high)
        start = max(min(start, stop - self.size - more), low)
        while start > low and any(self.nearest(start - 1, n) == self.nearest(start, n) for n in maps):
            start -= 1
        while stop < high and any(self.nearest(stop - 1, n) == self.nearest(stop, n) for n in maps):
            stop += 1
        return self.part(start, stop), -start

    def scale(self, n: int) -> float:
        """Output pixels for each of the n pixels of the whole side."""
        return self.unit / (self.step * n)

    def phases(self, n: int) -> int:
        """How many positions relative to the pixels of an n-pixel map the whole picture's pixels have."""
        return int(self.unit) // math.gcd(int(self.step * n), int(self.unit))

    def cell(self, n: int) -> float:
        """Size of an output pixel in half pixels of an n-pixel map."""
        return 2 * n * self.step / self.unit

    def on(self, n: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
        """Nearest pixel (size,) int64 on an n-pixel map and offset (size,) float32 from it, in pixels.

        Half-way positions go to the even pixel, as grid_sample's 'nearest' does. A position's numerator is a
        whole number below 2**53, so a tie is exactly a tie, and a part of an axis has the positions it has in
        the whole.
        """
        i = torch.arange(self.size, dtype=torch.float64)
        start: float = self.start
        step: float = self.step
        unit = self.unit
        if isinstance(unit, int) and unit > 1 << 52:  # of edges that are on nobody's grid
            start, step, unit = start / unit, step / unit, 1
        position = ((2 * start + (2 * i + 1) * step) * n - unit) / (2 * unit)
        index = position.round()
        return index.long().to(device), (position - index).float().to(device)

    def on_map(self, start: int, stop: int, n: int) -> tuple[int, int]:
        """First and last pixel of an n-pixel map that pixels [start, stop) are nearest to."""
        if self.start == 0 and self.step == 1 and start == 0 and stop == self.unit:
            return 0, n - 1
        return self.nearest(start, n), self.nearest(stop - 1, n)

    def nearest(self, i: int, n: int) -> int:
        """``on``'s index of pixel i, in whole numbers: tracing needs no tensor's value."""
        position = (2 * self.start + (2 * i + 1) * self.step) * n - self.unit
        index, rest = position // (2 * self.unit), position % (2 * self.unit)  # a symbolic size has no divmod
        return index + (rest > self.unit or (rest == self.unit and index % 2 == 1))


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
