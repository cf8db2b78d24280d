"""A stage's q, k and v maps, computed row band by row band.

The maps of a cascade's later stages are 4 and 16 times the input: whole, they are 15 GB each for a 720p input
at x12 in the published size. Here only the rows that one output band reads exist. Rows that the next band
reads too are kept, so nothing is computed twice.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import geometry
from ..geometry import Size
from .sampling import resample_axis

BAND_BYTES = 160 << 20
"""Working set of one band, all stages together. 40 MiB was as fast; below that the halo starts to count."""

COPIES = 6
"""Maps' worth of memory that a row takes while its band is decoded: q, k, v, and a padded copy of each."""


class BandedMap:
    """q, k and v of one stage, by rows.

    Args:
        base: (B, C, h, w) map that all stages share.
        size: this stage's map size; the base is resampled to it bilinearly with zero padding.
        radius: window radius; a query's window and its bilinear sample reach max(radius, 1) rows beyond it.
        weight, bias: (3C, C, 3, 3), (3C,) of the stage's three convolutions.
    """

    def __init__(self, base: Tensor, size: Size, radius: int, weight: Tensor, bias: Tensor):
        self.base, self.size, self.halo = base, size, max(radius, 1)
        self.weight, self.bias = weight, bias
        self.top, self.bottom = 0, 0
        self.kept: Tensor | None = None

    def rows(self, first: int, last: int) -> tuple[int, tuple[Tensor, ...]]:
        """The maps that queries nearest to rows ``first`` to ``last`` read: (their first row, (q, k, v)).

        Neither may be smaller than in the call before. Beyond the returned rows the whole map ends too, or
        nothing reads.
        """
        top = max(first - self.halo, 0)
        bottom = min(last + self.halo + 1, self.size[0])
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
        return top, self.kept.chunk(3, 1)

    def _project(self, top: int, bottom: int) -> Tensor:
        """Rows [top, bottom) of q, k and v, (B, 3C, rows, w)."""
        h, w = self.size
        start, stop = max(top - 1, 0), min(bottom + 1, h)
        if self.size == tuple(self.base.shape[-2:]):
            rows = self.base[:, :, start:stop]
        else:
            device = self.base.device
            index, offset = (
                t.to(device) for t in geometry.axis_positions(self.base.shape[2], h, start, stop)
            )
            rows = resample_axis(self.base, 2, index, offset, "zeros")
            index, offset = (t.to(device) for t in geometry.axis_positions(self.base.shape[3], w))
            rows = resample_axis(rows, 3, index, offset, "zeros")
        rows = F.pad(rows, (0, 0, start - (top - 1), (bottom + 1) - stop))
        return F.conv2d(rows, self.weight, self.bias, padding=(0, 1))


def cut_rows(
    maps: Sequence[BandedMap], rows: int, base: Tensor, *, whole: bool = False
) -> Iterator[tuple[int, int]]:
    """Cut the output's ``rows`` into bands that fit ``BAND_BYTES``, as (start, stop).

    A cut falls between two rows of the coarsest stage where the budget allows, else of the finest, so that
    hardly any feature pixel's hoisted products are computed in two bands.
    """
    pixel_bytes = base.shape[0] * base.shape[1] * base.element_size() * COPIES
    halo = sum(min(2 * m.halo, m.size[0]) * m.size[1] for m in maps) * pixel_bytes
    every = sum(m.size[0] * m.size[1] for m in maps) * pixel_bytes
    if whole or halo + every <= BAND_BYTES:  # in whole numbers: export can prove it for a range of batches
        yield 0, rows
        return
    height = max(1, int((BAND_BYTES - halo) / (every / rows)))
    coarse, fine = maps[0].size[0], maps[-1].size[0]
    start = 0
    while start < rows:
        fitting = range(min(start + height, rows), start, -1)
        beyond = range(min(start + height, rows), rows + 1)
        stop = next(
            i
            for n, candidates in ((coarse, fitting), (fine, fitting), (fine, beyond))
            for i in candidates
            if i == rows or geometry.nearest_pixel(i - 1, n, rows) != geometry.nearest_pixel(i, n, rows)
        )
        yield start, stop
        start = stop
