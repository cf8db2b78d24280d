"""Where a feature map is queried: the nearest feature pixel and the offset from it, per query.

Positions are split into an integer pixel and a remainder in [-0.5, 0.5] feature pixels, because the position
encoding multiplies relative coordinates by up to 2**10 - 1: a float32 position on a 4,000-pixel map is off by
1e-4 pixels, which is 0.2 rad there. The split is computed in float64 and is exact in float32 afterwards.

Three shapes of query set, each with its own order of the Q queries of one image:

* ``Grid``    any rows x any columns, row-major, shared by the batch: full images, bands, tiles.
* ``Points``  a list of N positions for each image: training, single queries.
* ``Raster``  M positions for every feature pixel, (M, h, w) row-major: stratified training. Taps become
  shifted windows, so neither direction needs a gather or a scatter.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Points(NamedTuple):
    """``index`` (B, N, 2) int64 nearest feature pixel (y, x); ``offset`` (B, N, 2) float32, in pixels."""

    index: Tensor  # type: ignore[assignment]
    offset: Tensor

    @property
    def count(self) -> int:  # type: ignore[override]
        """Queries per image."""
        return self.index.shape[1]


class Grid(NamedTuple):
    """``row`` (R,), ``col`` (S,) int64 nearest feature pixels, not decreasing, and the offsets from them.

    ``scale`` (y, x): queries for each feature pixel, where the grid is a window of a regular one. Its sums
    are then made in the order of that whole grid's, and come out bit for bit as they do there.
    """

    row: Tensor
    row_offset: Tensor
    col: Tensor
    col_offset: Tensor
    scale: tuple[float, float] | None = None

    @property
    def count(self) -> int:  # type: ignore[override]
        """Queries per image."""
        return self.row.shape[0] * self.col.shape[0]

    def rows(self, start: int, stop: int) -> "Grid":
        """The grid's rows [start, stop)."""
        return self._replace(row=self.row[start:stop], row_offset=self.row_offset[start:stop])

    def shifted(self, rows: int, cols: int = 0) -> "Grid":
        """The same positions on a crop of the map that begins at row ``rows`` and column ``cols``."""
        return self._replace(row=self.row - rows, col=self.col - cols)


class Raster(NamedTuple):
    """``offset`` (B, M, h, w, 2) float32: M positions (y, x) nearest to each pixel, relative to it."""

    offset: Tensor

    @property
    def count(self) -> int:  # type: ignore[override]
        """Queries per image."""
        return self.offset.shape[1] * self.offset.shape[2] * self.offset.shape[3]


Queries = Points | Grid | Raster


def tensors(queries: Queries) -> list[Tensor]:
    """The queries' tensors, in a fixed order."""
    return [field for field in queries if isinstance(field, Tensor)]


def as_points(queries: Queries, batch: int) -> Points:
    """The same queries, in the same order, as a list for each of ``batch`` images."""
    if isinstance(queries, Points):
        return queries
    if isinstance(queries, Grid):
        index = torch.stack(torch.meshgrid(queries.row, queries.col, indexing="ij"), -1)
        offset = torch.stack(torch.meshgrid(queries.row_offset, queries.col_offset, indexing="ij"), -1)
        return Points(
            index.reshape(1, -1, 2).expand(batch, -1, -1), offset.reshape(1, -1, 2).expand(batch, -1, -1)
        )
    m, h, w = queries.offset.shape[1:4]
    y = torch.arange(h, device=queries.offset.device).view(1, h, 1).expand(m, h, w)
    x = torch.arange(w, device=queries.offset.device).view(1, 1, w).expand(m, h, w)
    index = torch.stack((y, x), -1).reshape(1, -1, 2).expand(batch, -1, -1)
    return Points(index, queries.offset.reshape(batch, -1, 2))


def constant(queries: Queries) -> Queries:
    """The same queries with offsets that no gradient reaches."""
    if isinstance(queries, Grid):
        return queries._replace(
            row_offset=queries.row_offset.detach(), col_offset=queries.col_offset.detach()
        )
    return queries._replace(offset=queries.offset.detach())


def tap_offsets(radius: int, device: torch.device | None = None) -> Tensor:
    """(K*K, 2) int64 offsets (y, x) of the window's pixels, row-major, K = 2 * radius + 1."""
    side = torch.arange(-radius, radius + 1, device=device)
    return torch.stack(torch.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 2)


def gather_pixels(feature: Tensor, index: Tensor) -> Tensor:
    """Read ``feature`` (B, C, h, w) at ``index`` (B, ..., 2) int64 -> (B, ..., C); zero outside the map."""
    batch, channels, h, w = feature.shape
    y, x = index[..., 0], index[..., 1]
    inside = (y >= 0) & (y < h) & (x >= 0) & (x < w)
    flat = (y.clamp(0, h - 1) * w + x.clamp(0, w - 1)).reshape(batch, -1)
    rows = feature.permute(0, 2, 3, 1).reshape(batch, h * w, channels)
    values = torch.gather(rows, 1, flat.unsqueeze(-1).expand(-1, -1, channels))
    return values.reshape(*index.shape[:-1], channels) * inside.unsqueeze(-1).to(feature.dtype)


def sample_bilinear(feature: Tensor, points: Points) -> Tensor:
    """Bilinear sample of ``feature`` (B, C, h, w) at ``points`` -> (B, N, C); zero outside the map."""
    offset = points.offset.to(torch.promote_types(feature.dtype, points.offset.dtype))
    below = (offset < 0).to(points.index.dtype)
    corner = points.index - below
    fraction = (offset + below.to(offset.dtype)).to(feature.dtype)
    total: Tensor | None = None
    for dy in (0, 1):
        for dx in (0, 1):
            weight_y = fraction[..., 0] if dy else 1 - fraction[..., 0]
            weight_x = fraction[..., 1] if dx else 1 - fraction[..., 1]
            value = gather_pixels(feature, corner + torch.tensor((dy, dx), device=corner.device))
            value = value * (weight_y * weight_x).unsqueeze(-1)
            total = value if total is None else total + value
    assert total is not None
    return total
