"""Local attention with everything that belongs to a feature pixel computed once for its queries.

* Keys are read once per feature pixel and meet all of its queries in one matrix product.
* A bilinear query is a blend of the pixel's 3 x 3 window: its products with the keys are one, no gathers.
* The bias is two tables, one per axis (``position_bias.py``).

Plain PyTorch, any device, differentiable. Grids go by feature pixel, rasters by tap; points gather.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..calls import AttentionCall
from ..grouping import AxisSlots, crop, group_axis, windows
from ..no_autocast import no_autocast
from ..position_bias import axis_table, has_float64
from ..queries import Grid, Points, Raster, gather_pixels, sample_bilinear, tap_offsets
from ..raster_taps import blend, contract


class GridTables(NamedTuple):
    """What attention needs of a grid's positions: small tables for rows and columns, by feature pixel.

    All have the my x mx slots of a pixel side by side, S of them. ``corners_y`` (1, hp, 1, 3, 1, S) and
    ``corners_x`` (1, 1, wp, 1, 3, S): bilinear weights, the logits' scale in them. ``bias_y``
    (1, hp, 1, H, K, 1, S) and ``bias_x`` (1, 1, wp, H, 1, K, S).
    """

    corners_y: Tensor
    corners_x: Tensor
    bias_y: Tensor
    bias_x: Tensor

    @classmethod
    def of(cls, call: AttentionCall, grid: Grid, rows: AxisSlots, cols: AxisSlots) -> "GridTables":
        """Tables for the call's queries, ``grid``, grouped by ``rows`` and ``cols``."""
        q, _, _, proj_weight, proj_bias, heads, radius, nearest = call
        exact = torch.float64 if has_float64(q.device) else torch.float32  # costs nothing in tables
        wide = torch.promote_types(q.dtype, torch.float32)
        y, x = grid.row_offset.to(exact)[rows.slots], grid.col_offset.to(exact)[cols.slots]
        scale = (q.shape[1] // heads) ** -0.5
        corners_y, corners_x = (_corner_weights(o, nearest) for o in (y, x))  # (hp, my, 3), (wp, mx, 3)
        bias_y = axis_table(y, proj_weight, 0, radius) + proj_bias  # (hp, my, K, H)
        bias_x = axis_table(x, proj_weight, 1, radius)

        def slots(table: Tensor, dim: int) -> Tensor:
            """(n, m, ...) -> (n, ..., S), a slot's number repeated for all slots of the other axis."""
            of_axis = table.to(wide).movedim(1, -1).unsqueeze(dim)
            return of_axis.expand(*of_axis.shape[:-2], y.shape[1], x.shape[1]).flatten(-2)

        return cls(
            slots(corners_y * scale, -1)[None, :, None, :, None], slots(corners_x, -2)[None, None, :, None],
            slots(bias_y, -1).transpose(1, 2)[None, :, None, :, :, None],
            slots(bias_x, -2).transpose(1, 2).contiguous()[None, None, :, :, None],
        )  # fmt: skip

    def part(self, down: slice, across: slice) -> "GridTables":
        """The tables of a rectangle of feature pixels."""
        return GridTables(
            self.corners_y[:, down], self.corners_x[:, :, across],
            self.bias_y[:, down], self.bias_x[:, :, across],
        )  # fmt: skip


def attend_group(q: Tensor, k: Tensor, tables: GridTables) -> Tensor:
    """Weights (B, hp, wp, H, K*K, S) of windows q (B, hp, wp, 3, 3, C) and k (B, hp, wp, K, K, C), in float32
    at least.

    A query is a blend of the window's nine pixels. So the products of those nine with the keys, which no
    query changes, are made first, and blended: half the multiplications at x4, and a fourth at x12.

    The softmax runs across taps with the slots side by side: over a last axis of nine taps it took 18 times
    as long. The columns' bias is added with a pixel's taps and slots side by side, the rows' with all of its
    numbers: shorter runs took three times as long.
    """
    batch, hp, wp, side, _, _ = k.shape
    heads, wide, pixels, area = tables.bias_y.shape[3], tables.bias_y.dtype, batch * hp * wp, side * side
    by_head = [
        w.flatten(3, 4).unflatten(-1, (heads, -1)).transpose(3, 4).to(wide).flatten(0, 3) for w in (q, k)
    ]
    products = torch.bmm(by_head[1], by_head[0].transpose(1, 2)).view(pixels, heads * area, 9)
    corners = (tables.corners_y * tables.corners_x).expand(batch, -1, -1, -1, -1, -1)
    logits = torch.bmm(products, corners.reshape(pixels, 9, -1))
    logits = logits.view(batch, hp, wp, heads, side, side, -1)
    logits += tables.bias_y.expand(-1, -1, -1, -1, -1, side, -1).contiguous()
    logits += tables.bias_x
    return torch.softmax(logits.flatten(4, 5), -2)


def _corner_weights(offset: Tensor, nearest: bool) -> Tensor:
    """Bilinear weights (..., 3) of the pixels at -1, 0, 1 for an offset in [-0.5, 0.5]; or all at 0."""
    offset = torch.zeros_like(offset) if nearest else offset
    return torch.stack(((-offset).clamp(min=0), 1 - offset.abs(), offset.clamp(min=0)), -1)


def attend_raster(call: AttentionCall, raster: Raster) -> Tensor:
    """Weights (K*K, B, M, h, w, H) of the call's queries, ``raster``."""
    q, k, _, proj_weight, proj_bias, heads, radius, nearest = call
    h, w = q.shape[-2:]
    wide = torch.promote_types(q.dtype, torch.float32)
    y, x = raster.offset.to(wide).unbind(-1)  # (B, M, h, w)
    corner_y, corner_x = _corner_weights(y, nearest), _corner_weights(x, nearest)
    corners = (corner_y.unsqueeze(-1) * corner_x.unsqueeze(-2)).flatten(-2)
    corners = corners.movedim(-1, 0).unsqueeze(-1).to(q.dtype)
    query = blend(corners * (q.shape[1] // heads) ** -0.5, crop(q, -1, h + 1, -1, w + 1))

    logits = contract(query, crop(k, -radius, h + radius, -radius, w + radius), heads)
    bias_y = (axis_table(y, proj_weight, 0, radius) + proj_bias).movedim(-2, 0)
    bias_x = axis_table(x, proj_weight, 1, radius).movedim(-2, 0)
    bias = bias_y.to(wide).unsqueeze(1) + bias_x.to(wide)
    return torch.softmax(logits.to(wide) + bias.flatten(0, 1), 0).to(q.dtype)


def attend_points(call: AttentionCall, points: Points) -> Tensor:
    """Weights (B, N, heads, K*K) of the call's queries, ``points``, by gathers."""
    q, k, _, proj_weight, proj_bias, heads, radius, nearest = call
    channels, side = q.shape[1], 2 * radius + 1
    query = gather_pixels(q, points.index) if nearest else sample_bilinear(q, points)
    query = query.unflatten(-1, (heads, -1)).unsqueeze(3)  # (B, N, H, 1, c)
    taps = tap_offsets(radius, q.device)
    keys = gather_pixels(k, points.index.unsqueeze(2) + taps).unflatten(-1, (heads, -1))
    logits = torch.matmul(query, keys.permute(0, 1, 3, 4, 2)).squeeze(3) / math.sqrt(channels // heads)
    wide = torch.promote_types(q.dtype, torch.float32)
    offset = points.offset.to(wide)
    table_y = axis_table(offset[..., 0], proj_weight, 0, radius) + proj_bias  # (B, N, K, H)
    table_x = axis_table(offset[..., 1], proj_weight, 1, radius)
    bias = (table_y.unsqueeze(3) + table_x.unsqueeze(2)).reshape(*offset.shape[:2], side * side, heads)
    return torch.softmax(logits.to(wide) + bias.transpose(2, 3).to(wide), -1).to(q.dtype)


@no_autocast
def local_attention_torch(call: AttentionCall) -> Tensor:
    """Attention weights (B, Q, heads, K*K); see the reference."""
    q, k, queries, radius = call.q, call.k, call.queries, call.radius
    if isinstance(queries, Points):
        return attend_points(call, queries)
    if isinstance(queries, Raster):
        return attend_raster(call, queries).permute(1, 2, 3, 4, 5, 0).flatten(1, 3)
    rows, cols = group_axis(queries.row), group_axis(queries.col)
    tables = GridTables.of(call, queries, rows, cols)
    bottom, right = rows.first + rows.slots.shape[0], cols.first + cols.slots.shape[0]
    q_windows = windows(crop(q, rows.first - 1, bottom + 1, cols.first - 1, right + 1), 3)
    k_crop = crop(k, rows.first - radius, bottom + radius, cols.first - radius, right + radius)
    weights = attend_group(q_windows, windows(k_crop, 2 * radius + 1), tables).to(q.dtype)
    slots = (rows.slots.shape[1], cols.slots.shape[1])
    grid = weights.unflatten(-1, slots).permute(0, 1, 5, 2, 6, 3, 4).flatten(1, 2).flatten(2, 3)
    if not rows.full:
        grid = grid.index_select(1, rows.slot_of)
    if not cols.full:
        grid = grid.index_select(2, cols.slot_of)
    return grid.flatten(1, 2)
