"""One stage of CLIT in tiles of feature pixels: attention, hoisted first layer and MLP in cache.

Without gradients a grid is walked tile by tile, so that no K*K-wide intermediate outlives its tile and U
(H*K*K*D numbers for each feature pixel, 400 kB in the published size) is written to and read from one buffer
that all tiles share. With gradients, and for rasters and points, the two ops follow each other whole.
"""

import math
from collections.abc import Iterator
from itertools import product

import torch
from torch import Tensor

from ..coordinate_decode.hoisted import (
    MLP,
    coordinate_decode_hoisted,
    finish,
    hidden_direct,
    hidden_hoisted,
    prefer_hoisted,
    prepare_mlp,
    raster_direct,
)
from ..grouping import AxisSlots, crop, group_axis, windows
from ..local_attention.hoisted import GridTables, attend_group, attend_raster, local_attention_hoisted
from ..own_precision import own_precision
from ..queries import Grid, Points, Queries, Raster
from ..tile_threads import run_tiles
from .weights import StageWeights

TILE_BYTES = 16 << 20
"""Working set of one tile.

Small tiles pay per call and give the products few rows; large ones leave the cache. One thread, paper's size
x4 at 40 x 40 / light model x4 at 128 x 128: 1 MiB 2.6 / 0.50 s, 4 MiB 0.88 / 0.49 s, 8 MiB 0.72 / 0.49 s,
16 MiB 0.61 / 0.48 s, 48 MiB 0.63 / 0.53 s.
"""

MAX_SLOTS = 4096
"""Queries of one feature pixel decoded at once (x64); more would make a tile of one pixel too large."""


@own_precision
def decode_stage_hoisted(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    queries: Queries,
    stage: StageWeights,
    cell: Tensor,
    *,
    previous: Tensor | None = None,
    gain: float = 0.75,
) -> Tensor:
    """Residual (B, Q, out) of one stage from its maps (B, C, h, w)."""
    tracked = torch.is_grad_enabled() and any(t.requires_grad for t in (q, k, v, cell, *stage.tensors()))
    if isinstance(queries, Grid) and not tracked:
        return _decode_grid(q, k, v, queries, stage, cell, previous, gain)
    if isinstance(queries, Raster) and not _raster_hoists(queries, v, stage):
        return _decode_raster(q, k, v, queries, stage, cell, previous, gain)
    if isinstance(queries, Points) and not tracked:
        size = stage.area * v.shape[1] * v.shape[0] * v.element_size()
        return _decode_points(q, k, v, queries, stage, cell, previous, gain, max(1, TILE_BYTES // size))
    return _decode_whole(q, k, v, queries, stage, cell, previous, gain)


def _decode_whole(
    q: Tensor, k: Tensor, v: Tensor, queries: Queries, stage: StageWeights, cell: Tensor,
    previous: Tensor | None, gain: float,
) -> Tensor:  # fmt: skip
    weights = local_attention_hoisted(
        q, k, queries, stage.proj_weight, stage.proj_bias, heads=stage.heads, radius=stage.radius
    )
    return coordinate_decode_hoisted(
        weights, v, queries, stage.mlp_weights, stage.mlp_biases, cell, previous=previous, gain=gain
    )


def _raster_hoists(raster: Raster, v: Tensor, stage: StageWeights) -> bool:
    m, h, w = raster.offset.shape[1:4]
    return prefer_hoisted(h * w, m, raster.count, v.shape[1], stage.heads)


def _decode_raster(
    q: Tensor, k: Tensor, v: Tensor, raster: Raster, stage: StageWeights, cell: Tensor,
    previous: Tensor | None, gain: float,
) -> Tensor:  # fmt: skip
    weights = attend_raster(q, k, raster, stage.proj_weight, stage.proj_bias, stage.heads, stage.radius)
    mlp = prepare_mlp(stage.mlp_weights, stage.mlp_biases, cell, stage.heads, stage.area, v.dtype)
    out = finish(raster_direct(weights, v, mlp), mlp)
    return out if previous is None else out + gain * previous.to(out.dtype)


def _decode_points(
    q: Tensor, k: Tensor, v: Tensor, points: Points, stage: StageWeights, cell: Tensor,
    previous: Tensor | None, gain: float, chunk: int,
) -> Tensor:  # fmt: skip
    parts = []
    for start in range(0, points.count, chunk):
        part = Points(points.index[:, start : start + chunk], points.offset[:, start : start + chunk])
        before = None if previous is None else previous[:, start : start + chunk]
        parts.append(_decode_whole(q, k, v, part, stage, cell, before, gain))
    return torch.cat(parts, 1) if parts else v.new_zeros(v.shape[0], 0, stage.mlp_weights[-1].shape[0])


def _decode_grid(
    q: Tensor, k: Tensor, v: Tensor, grid: Grid, stage: StageWeights, cell: Tensor,
    previous: Tensor | None, gain: float,
) -> Tensor:  # fmt: skip
    batch, channels = v.shape[:2]
    side, radius = 2 * stage.radius + 1, stage.radius
    rows, cols = group_axis(grid.row), group_axis(grid.col)
    (hp, my), (wp, mx) = rows.slots.shape, cols.slots.shape
    if my * mx > MAX_SLOTS and my > 1:
        step, width, parts = max(1, MAX_SLOTS // mx), grid.col.shape[0], []
        for top in range(0, grid.row.shape[0], step):
            before = None if previous is None else previous[:, top * width : (top + step) * width]
            parts.append(_decode_grid(q, k, v, grid.rows(top, top + step), stage, cell, before, gain))
        return torch.cat(parts, 1)
    bottom, right = rows.first + hp, cols.first + wp
    q_windows = windows(crop(q, rows.first - 1, bottom + 1, cols.first - 1, right + 1), 3)
    k_windows, v_windows = (
        windows(crop(m, rows.first - radius, bottom + radius, cols.first - radius, right + radius), side)
        for m in (k, v)
    )
    tables = GridTables.of(grid, rows, cols, q, stage.proj_weight, stage.proj_bias, radius)
    mlp = prepare_mlp(stage.mlp_weights, stage.mlp_biases, cell, stage.heads, stage.area, v.dtype)
    out = v.new_empty(batch, grid.row.shape[0], grid.col.shape[0], stage.mlp_weights[-1].shape[0])

    hoist = prefer_hoisted(hp * wp, my * mx, grid.count, channels, stage.heads)
    width = mlp.direct.shape[0]
    wide = stage.heads * width if hoist else my * mx * channels  # U, or the scaled values
    per_pixel = wide * stage.area + my * mx * (2 * stage.heads * stage.area + 2 * width)
    pixels = max(1, TILE_BYTES // (per_pixel * v.element_size() * batch))
    tile_w = _even(wp, pixels)
    tile_h = _even(hp, max(1, pixels // tile_w))

    def work(tiles: Iterator[tuple[slice, slice]]) -> None:
        buffer = v.new_empty(stage.heads * stage.area * batch * tile_h * tile_w * width if hoist else 0)
        for down, across in tiles:
            weights = attend_group(
                q_windows[:, down, across], k_windows[:, down, across], tables.part(down, across)
            )
            values = v_windows[:, down, across]
            place = _Place.of(rows, down, cols, across)
            if hoist:
                tile = _tile_hoisted(weights, values, mlp, place, buffer)
            else:
                tile = _tile_direct(weights, values, mlp, place)
            out[:, place.rows, place.cols] = tile

    run_tiles(list(product(_parts(hp, tile_h), _parts(wp, tile_w))), work, v.device)
    out = out.flatten(1, 2)
    return out if previous is None else out.add_(previous.to(out.dtype), alpha=gain)


def _even(n: int, most: int) -> int:
    """The size of equal parts, of at most ``most``, that n is cut into."""
    return math.ceil(n / math.ceil(n / most))


def _parts(n: int, size: int) -> list[slice]:
    return [slice(i, min(n, i + size)) for i in range(0, n, size)]


class _Place:
    """Which grid rows and columns a tile's slots fill: ``rows``, ``cols`` slices and their slot positions."""

    def __init__(
        self, rows: slice, cols: slice, down: Tensor | None, across: Tensor | None, m: tuple[int, int]
    ):
        self.rows, self.cols, self.down, self.across, self.slots = rows, cols, down, across, m

    @classmethod
    def of(cls, rows: AxisSlots, down: slice, cols: AxisSlots, across: slice) -> "_Place":
        y, x = (
            slice(axis.starts[part.start], axis.starts[part.stop])
            for axis, part in ((rows, down), (cols, across))
        )
        my, mx = rows.slots.shape[1], cols.slots.shape[1]
        place_y, place_x = rows.place[y] - down.start * my, cols.place[x] - across.start * mx
        full = rows.full and cols.full
        return cls(y, x, None if full else place_y, None if full else place_x, (my, mx))

    def take(self, slots: Tensor) -> Tensor:
        """Slots (B, hp, wp, my * mx, n) -> grid order (B, rows, cols, n)."""
        grid = slots.unflatten(3, self.slots).permute(0, 1, 3, 2, 4, 5).flatten(3, 4).flatten(1, 2)
        if self.down is None or self.across is None:
            return grid
        return grid.index_select(1, self.down).index_select(2, self.across)


def _tile_hoisted(weights: Tensor, values: Tensor, mlp: MLP, place: _Place, buffer: Tensor) -> Tensor:
    batch, hp, wp, heads, area, _ = weights.shape
    shape = (batch * hp * wp, heads * area, mlp.direct.shape[0])
    u = buffer[: shape[0] * shape[1] * shape[2]].view(shape)
    hidden = hidden_hoisted(weights, values, mlp, u).unflatten(0, (batch, hp, wp))
    if place.down is None:  # no spare slot: stay in slot order, permute only the few output channels
        return place.take(finish(hidden.flatten(1, 2), mlp).unflatten(1, (hp, wp)))
    return finish(place.take(hidden), mlp)


def _tile_direct(weights: Tensor, values: Tensor, mlp: MLP, place: _Place) -> Tensor:
    my, mx = place.slots
    weights = weights.permute(0, 1, 2, 5, 3, 4)  # (B, hp, wp, slots, H, K*K)
    values = values.flatten(3, 4)  # (B, hp, wp, K*K, C)
    if place.down is None or place.across is None:
        hidden = hidden_direct(weights, values.unsqueeze(3), mlp)
        return place.take(finish(hidden, mlp))
    grid = place.take(weights.flatten(4)).unflatten(-1, weights.shape[-2:])
    values = values.index_select(1, place.down // my).index_select(2, place.across // mx)
    return finish(hidden_direct(grid, values, mlp), mlp)
