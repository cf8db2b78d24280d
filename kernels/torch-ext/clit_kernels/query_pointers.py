"""Where the queries are, as Triton kernels read it. Needs Triton."""

from typing import NamedTuple

import torch
import triton.language as tl
from torch import Tensor

from .queries import Grid, Points, Queries, tensors

GRID = tl.constexpr(0)
POINTS = tl.constexpr(1)
RASTER = tl.constexpr(2)


class QueryPointers(NamedTuple):
    """Pointers to the queries' nearest pixels and offsets, as their kind ``mode`` lays them out.

    GRID: ``where`` and ``offset`` (rows,), ``col`` and ``col_offset`` (cols,). POINTS: ``where`` and
    ``offset`` (B, N, 2). RASTER: ``offset`` (B, M, h, w, 2). Others are not read.
    """

    mode: int
    where: Tensor
    offset: Tensor
    col: Tensor
    col_offset: Tensor
    number: int
    cols: int

    @classmethod
    def of(cls, queries: Queries) -> "QueryPointers":
        """Those of ``queries``, ``number`` to an image."""
        count = queries.count
        if isinstance(queries, Grid):
            row, row_offset, col, col_offset = (t.contiguous() for t in tensors(queries))
            return cls(GRID.value, row, row_offset.float(), col, col_offset.float(), count, col.shape[0])
        offset = queries.offset.float().contiguous()
        if isinstance(queries, Points):
            index = queries.index.contiguous()
            return cls(POINTS.value, index, offset, index, offset, count, 1)
        return cls(RASTER.value, offset, offset, offset, offset, count, 1)

    @property
    def arguments(self) -> tuple[Tensor, ...]:
        """The four pointers."""
        return self.where, self.offset, self.col, self.col_offset


def axis_starts(index: Tensor, pixels: int) -> Tensor:
    """(pixels + 1,) int32 s: positions [s[p], s[p + 1]) of a non-decreasing ``index`` belong to pixel p."""
    edges = torch.arange(pixels + 1, device=index.device)
    return torch.searchsorted(index.contiguous(), edges, out_int32=True)
