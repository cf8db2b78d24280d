"""One stage of CLIT in tiles of feature pixels: attention, hoisted first layer and MLP in cache.

Without gradients a grid is walked tile by tile, so that no K*K-wide intermediate outlives its tile and U
(H*K*K*D numbers for each feature pixel, 400 kB in the published size) is written to and read from one small
buffer that all tiles share. With gradients, and for rasters and points, the two ops run one after the other.
"""

import math
from collections.abc import Iterator
from itertools import pairwise, product
from typing import NamedTuple

import torch
from torch import Tensor

from ..calls import StageCall
from ..coordinate_decode.torch import (
    MLP,
    add,
    coordinate_decode_torch,
    finish,
    hidden_direct,
    hidden_hoisted,
    prepare_mlp,
    raster_direct,
    raster_hoists,
)
from ..grouping import AxisSlots, crop, group_axis, windows
from ..local_attention.torch import GridTables, attend_group, attend_raster, local_attention_torch
from ..no_autocast import no_autocast
from ..orders import takes_hoisted
from ..queries import Grid, Points, Raster
from ..tile_threads import run_tiles

TILE_BYTES = 2 << 20
"""Working set of one tile, without U: what one core's cache holds, as torch's products of small matrices are
1.5 to 2.5 times faster there."""

MOST_BYTES = 16 << 20
"""A tile is larger, up to this, where U's product would have few rows for the weights that it reads."""

U_BYTES = 1 << 20
"""U of the pixels that are computed at once, within a tile."""

MAX_SLOTS = 1024
"""Queries of one feature pixel decoded at once (x32); more would make a tile of one pixel, and the tables of
the columns' bias, too large."""


@no_autocast
def decode_stage_torch(call: StageCall, *, order: str | None = None) -> Tensor:
    """Residual (B, Q, out) of one stage."""
    queries = call.queries
    tracked = torch.is_grad_enabled() and any(
        t.requires_grad for t in (call.q, call.k, call.v, call.cell, *call.weights.tensors())
    )
    if isinstance(queries, Grid) and not tracked:
        out = _decode_grid(call, queries, order)
        return out if call.base is None else out + call.base
    if isinstance(queries, Raster) and not raster_hoists(queries, call.v, call.weights.heads, order):
        return _decode_raster(call, queries)
    if isinstance(queries, Points) and not tracked:
        return _decode_points(call, queries)
    return _decode_whole(call, order)


def _decode_whole(call: StageCall, order: str | None = None) -> Tensor:
    return coordinate_decode_torch(call.decoding(local_attention_torch(call.attention())), order=order)


def _decode_raster(call: StageCall, raster: Raster) -> Tensor:
    attention = attend_raster(call.attention(), raster)
    mlp = _mlp(call)
    return add(finish(raster_direct(attention, call.v, mlp), mlp), call.previous, call.gain, call.base)


def _decode_points(call: StageCall, points: Points) -> Tensor:
    size = call.weights.area * call.v.shape[1] * call.v.shape[0] * call.v.element_size()
    chunk = max(1, TILE_BYTES // size)
    starts = range(0, max(1, points.count), chunk)
    return torch.cat([_decode_whole(call.part(points, i, i + chunk)) for i in starts], 1)


def _mlp(call: StageCall) -> MLP:
    weights = call.weights
    return prepare_mlp(
        weights.mlp_weights, weights.mlp_biases, call.cell, weights.heads, weights.area, call.v.dtype
    )


def _decode_grid(call: StageCall, grid: Grid, order: str | None) -> Tensor:
    """The residual at ``grid``, the call's queries, without its base."""
    q, k, v, stage = call.q, call.k, call.v, call.weights
    batch, channels = v.shape[:2]
    side, radius = 2 * stage.radius + 1, stage.radius
    scale = grid.scale or (None, None)
    rows, cols = group_axis(grid.row, scale[0]), group_axis(grid.col, scale[1])
    (hp, my), (wp, mx) = rows.slots.shape, cols.slots.shape
    if my * mx > MAX_SLOTS and my > 1:
        step, width, parts = max(1, MAX_SLOTS // mx), grid.col.shape[0], []
        # from each feature row's first on, so that a window is cut where the whole is
        cuts = [(top, min(top + step, b)) for a, b in pairwise(rows.starts) for top in range(a, b, step)]
        for top, bottom in cuts:
            rows_here, before = grid.rows(top, bottom)._replace(scale=(step, mx)), call.previous
            before = None if before is None else before[:, top * width : bottom * width]
            part = call._replace(queries=rows_here, previous=before)
            parts.append(_decode_grid(part, rows_here, order))
        return torch.cat(parts, 1)
    bottom, right = rows.first + hp, cols.first + wp
    q_windows = windows(crop(q, rows.first - 1, bottom + 1, cols.first - 1, right + 1), 3)
    k_windows, v_windows = (
        windows(crop(m, rows.first - radius, bottom + radius, cols.first - radius, right + radius), side)
        for m in (k, v)
    )
    tables = GridTables.of(call.attention(), grid, rows, cols)
    mlp = _mlp(call)
    out = v.new_empty(batch, grid.row.shape[0], grid.col.shape[0], stage.mlp_weights[-1].shape[0])

    hoist = takes_hoisted(
        order, "torch", pixels=hp * wp, slots=my * mx, channels=channels, heads=stage.heads,
        count=grid.count if grid.scale is None else hp * wp * math.prod(grid.scale),
    )  # fmt: skip
    width = mlp.direct.shape[0]
    per_pixel = my * mx * (2 * stage.heads * stage.area + 2 * width)
    if not hoist:
        per_pixel += my * mx * channels * stage.area  # the scaled values
    least = channels // stage.heads if hoist else 1  # so many pixels' U is as large as the weights
    u_pixels = max(least, U_BYTES // (stage.heads * stage.area * width * v.element_size()))
    fitting, most = (n // (per_pixel * v.element_size() * batch) for n in (TILE_BYTES, MOST_BYTES))
    pixels = max(1, min(least, most), fitting)
    tile_w = _even(wp, pixels)
    tile_h = _even(hp, max(1, pixels // tile_w))

    def work(tiles: Iterator[tuple[slice, slice]]) -> None:
        buffer = v.new_empty(u_pixels if hoist else 0, stage.heads * stage.area, width)
        for down, across in tiles:
            weights = attend_group(
                q_windows[:, down, across], k_windows[:, down, across], tables.part(down, across)
            )
            values = v_windows[:, down, across]
            part = _GridPart.of(rows, down, cols, across)
            if hoist:
                tile = _tile_hoisted(weights, values, mlp, part, buffer)
            else:
                tile = _tile_direct(weights, values, mlp, part)
            out[:, part.rows, part.cols] = tile

    run_tiles(list(product(_parts(hp, tile_h), _parts(wp, tile_w))), work, v.device)
    out = out.flatten(1, 2)
    return out if call.previous is None else out.add_(call.previous.to(out.dtype), alpha=call.gain)


def _even(n: int, most: int) -> int:
    """The size of equal parts, of at most ``most``, that n is cut into."""
    return math.ceil(n / math.ceil(n / most))


def _parts(n: int, size: int) -> list[slice]:
    return [slice(i, min(n, i + size)) for i in range(0, n, size)]


class _GridPart(NamedTuple):
    """The grid's ``rows`` and ``cols`` that a tile's slots fill.

    ``down`` and ``across``: their slots' positions, or None where no slot of the grid is unused; ``slots``
    (my, mx) of a feature pixel.
    """

    rows: slice
    cols: slice
    down: Tensor | None
    across: Tensor | None
    slots: tuple[int, int]

    @classmethod
    def of(cls, rows: AxisSlots, down: slice, cols: AxisSlots, across: slice) -> "_GridPart":
        y, x = (
            slice(axis.starts[part.start], axis.starts[part.stop])
            for axis, part in ((rows, down), (cols, across))
        )
        my, mx = rows.slots.shape[1], cols.slots.shape[1]
        at_y, at_x = rows.slot_of[y] - down.start * my, cols.slot_of[x] - across.start * mx
        full = rows.full and cols.full
        return cls(y, x, None if full else at_y, None if full else at_x, (my, mx))

    def take(self, slots: Tensor) -> Tensor:
        """Slots (B, hp, wp, my * mx, n) -> grid order (B, rows, cols, n)."""
        grid = slots.unflatten(3, self.slots).permute(0, 1, 3, 2, 4, 5).flatten(3, 4).flatten(1, 2)
        if self.down is None or self.across is None:
            return grid
        return grid.index_select(1, self.down).index_select(2, self.across)


def _tile_hoisted(weights: Tensor, values: Tensor, mlp: MLP, part: _GridPart, buffer: Tensor) -> Tensor:
    hidden = hidden_hoisted(weights, values, mlp, buffer).unflatten(0, weights.shape[:3])
    if part.down is None:  # no spare slot: stay in slot order, permute only the few output channels
        return part.take(finish(hidden.flatten(1, 2), mlp).unflatten(1, weights.shape[1:3]))
    return finish(part.take(hidden), mlp)


def _tile_direct(weights: Tensor, values: Tensor, mlp: MLP, part: _GridPart) -> Tensor:
    my, mx = part.slots
    weights = weights.to(values.dtype).permute(0, 1, 2, 5, 3, 4)  # (B, hp, wp, slots, H, K*K)
    values = values.flatten(3, 4)  # (B, hp, wp, K*K, C)
    if part.down is None or part.across is None:
        hidden = hidden_direct(weights, values.unsqueeze(3), mlp)
        return part.take(finish(hidden, mlp))
    grid = part.take(weights.flatten(4)).unflatten(-1, weights.shape[-2:])
    values = values.index_select(1, part.down // my).index_select(2, part.across // mx)
    return finish(hidden_direct(grid, values, mlp), mlp)
