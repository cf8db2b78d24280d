"""A stage's q, k and v maps, computed row band by row band, for a window's columns only.

The maps of a cascade's later stages are 4 and 16 times the input: whole, they are 15 GB each for a 720p input
at x12 in the published size. Here only what one output band reads exists. Rows that the next band reads too
are kept, so nothing is computed twice.
"""

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..axis import Axis
from ..geometry import Size
from .sampling import resample_axis

BAND_BYTES = 64 << 20
"""Working set of one band, all stages together. 40 MiB was as fast; below that the halo starts to count."""

COPIES = 6
"""Maps' worth of memory that a row takes while its band is decoded: q, k, v, and a padded copy of each."""

LEAST_ELEMENTS = 20_481
"""Numbers that a convolution's input holds at least, where its map has as many.

PyTorch convolves smaller ones by another algorithm on one CPU thread (measured: up to 20,480), whose sums
differ in their last bits; a window must give the bits of the whole picture.
"""


Span = tuple[int, int]
"""First and last pixel of a map that a window's rows or columns are nearest to."""


class BandedMap:
    """Maps of one convolution, by rows: q, k and v of one stage.

    Args:
        base: (B, C, h, w) map that all stages share.
        size: this stage's map size; the base is resampled to it bilinearly with zero padding.
        columns: [first, last] columns of this map that queries are nearest to.
        radius: window radius; a query's window and its bilinear sample reach max(radius, 1) pixels beyond it.
        weight, bias: (3C, C, 3, 3), (3C,) of the stage's three convolutions.
        parts: how many maps they make.

    Attributes:
        left: column of the map at which the returned maps begin; width: their columns.
    """

    def __init__(
        self,
        base: Tensor,
        size: Size,
        columns: Span,
        radius: int,
        weight: Tensor,
        bias: Tensor,
        parts: int = 3,
    ):
        self.base, self.size, self.halo = base, size, max(radius, 1)
        self.weight, self.bias, self.parts = weight, bias, parts
        self.least = math.ceil(LEAST_ELEMENTS / base.shape[1])
        least = self.least // size[0] + 1
        self.left, right = _spread(columns[0] - self.halo, columns[1] + self.halo + 1, size[1], least)
        self.width = right - self.left
        self.top, self.bottom = 0, 0
        self.kept: Tensor | None = None

    def rows(self, first: int, last: int) -> tuple[int, tuple[Tensor, ...]]:
        """The maps that queries nearest to rows ``first`` to ``last`` read: (their first row, (q, k, v)).

        Call with non-decreasing ranges. Rows outside the result are outside the map or unused.
        """
        top, bottom = max(first - self.halo, 0), min(last + self.halo + 1, self.size[0])
        if self.kept is None or top >= self.bottom:
            self.kept = self._project(top, bottom)
        else:
            # a copy of the few rows that both bands read lets go of all others before new ones are made
            parts = [self.kept[:, :, top - self.top :].clone()]
            self.kept = None
            if bottom > self.bottom:
                parts.append(self._project(self.bottom, bottom))
            self.kept = torch.cat(parts, 2)
        self.top, self.bottom = top, bottom
        return top, self.kept.chunk(self.parts, 1)

    def _project(self, top: int, bottom: int) -> Tensor:
        """Rows [top, bottom) of all maps, (B, parts * C, rows, width)."""
        (h, w), left, right = self.size, self.left, self.left + self.width
        base = self.base.permute(0, 2, 3, 1)
        up, down = _spread(top, bottom, h, self.least // self.width + 1)
        start, stop, first, last = max(up - 1, 0), min(down + 1, h), max(left - 1, 0), min(right + 1, w)
        if self.size == tuple(self.base.shape[-2:]):
            part = base[:, start:stop, first:last]
        else:
            rows = Axis.whole(h).part(start, stop).on(base.shape[1], base.device)
            cols = Axis.whole(w).part(first, last).on(base.shape[2], base.device)
            part = resample_axis(resample_axis(base, 1, *rows, "zeros"), 2, *cols, "zeros")
        edges = (first - (left - 1), (right + 1) - last, start - (up - 1), (down + 1) - stop)
        # channels last, as convolutions are fastest; F.pad keeps other strides where there is nothing to pad,
        # and by these PyTorch chooses the order of its sums
        part = F.pad(part, (0, 0, *edges)).contiguous().permute(0, 3, 1, 2)
        return F.conv2d(part, self.weight, self.bias)[:, :, top - up : bottom - up]


def _spread(start: int, stop: int, n: int, least: int) -> tuple[int, int]:
    """[start, stop) within [0, n), made longer on both sides to ``least`` where n has as many."""
    # whole maps need no more, and torch.export would take minutes over it
    if start <= 0 and stop >= n:
        return 0, n
    start, stop = max(start, 0), min(stop, n)
    more = max(least - (stop - start), 0)
    start = max(start - more // 2, 0)
    stop = min(max(stop, start + least), n)
    return max(min(start, stop - least), 0), stop


def cut_rows(
    maps: Sequence[BandedMap], rows: Axis, base: Tensor, *, whole: bool = False
) -> Iterator[tuple[int, int]]:
    """Cut the output's rows into bands that fit ``BAND_BYTES``, as (start, stop).

    A cut falls between two rows of the coarsest stage where the budget allows, else of the finest, so that
    hardly any feature pixel's hoisted products are computed in two bands.
    """
    pixel_bytes = base.shape[0] * base.shape[1] * base.element_size() * COPIES
    ends = [rows.on_map(0, rows.size, m.size[0]) for m in maps]
    heights = [last - first + 1 for first, last in ends]
    halo = sum(min(2 * m.halo, m.size[0]) * m.width for m in maps) * pixel_bytes
    every = sum(height * m.width for height, m in zip(heights, maps, strict=True)) * pixel_bytes
    if whole or halo + every <= BAND_BYTES:  # in whole numbers: export can prove it for a range of batches
        yield 0, rows.size
        return
    height = max(1, int((BAND_BYTES - halo) / (every / rows.size)))
    coarse, fine = maps[0].size[0], maps[-1].size[0]
    start = 0
    while start < rows.size:
        fitting = range(min(start + height, rows.size), start, -1)
        beyond = range(min(start + height, rows.size), rows.size + 1)
        stop = next(
            i
            for n, candidates in ((coarse, fitting), (fine, fitting), (fine, beyond))
            for i in candidates
            if i == rows.size or rows.nearest(i - 1, n) != rows.nearest(i, n)
        )
        yield start, stop
        start = stop
