"""Local attention with everything that belongs to a feature pixel computed once for its queries.

* Keys are read once per feature pixel and meet all of its queries in one matrix product.
* The bilinear query is a product with the pixel's 3 x 3 window: (slots, 9) x (9, C), no gathers.
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

    ``corners_y`` (1, hp, 1, my, 1, 3) and ``corners_x`` (1, 1, wp, 1, mx, 3): bilinear weights, the logits'
    scale in them. ``bias_y`` (1, hp, 1, H, my, 1, K) and ``bias_x`` (1, 1, wp, H, 1, mx, K). ``picks``
    (K*K, 2 K): ones where a tap meets its row's and its column's bias.
    """

    corners_y: Tensor
    corners_x: Tensor
    bias_y: Tensor
    bias_x: Tensor
    picks: Tensor

    @classmethod
    def of(cls, call: AttentionCall, grid: Grid, rows: AxisSlots, cols: AxisSlots) -> "GridTables":
        """Tables for the call's queries, ``grid``, grouped by ``rows`` and ``cols``."""
        q, _, _, proj_weight, proj_bias, heads, radius = call
        side = 2 * radius + 1
        exact = torch.float64 if has_float64(q.device) else torch.float32  # costs nothing in tables
        wide = torch.promote_types(q.dtype, torch.float32)
        y, x = grid.row_offset.to(exact)[rows.slots], grid.col_offset.to(exact)[cols.slots]
        scale = (q.shape[1] // heads) ** -0.5
        corners_y, corners_x = (_corner_weights(y) * scale).to(q.dtype), _corner_weights(x).to(q.dtype)
        bias_y = (axis_table(y, proj_weight, 0, radius) + proj_bias).to(wide).permute(0, 3, 1, 2)
        bias_x = axis_table(x, proj_weight, 1, radius).to(wide).permute(0, 3, 1, 2)  # (wp, H, mx, K)
        row = torch.eye(side, dtype=wide, device=q.device)
        return cls(
            corners_y[None, :, None, :, None], corners_x[None, None, :, None],
            bias_y[None, :, None, :, :, None], bias_x[None, None, :, :, None],
            torch.cat((row.repeat_interleave(side, 0), row.repeat(side, 1)), 1),
        )  # fmt: skip

    def part(self, down: slice, across: slice) -> "GridTables":
        """The tables of a rectangle of feature pixels."""
        return GridTables(
            self.corners_y[:, down], self.corners_x[:, :, across],
            self.bias_y[:, down], self.bias_x[:, :, across], self.picks,
        )  # fmt: skip


def attend_group(q: Tensor, k: Tensor, tables: GridTables) -> Tensor:
    """Weights (B, hp, wp, H, K*K, slots) of windows q (B, hp, wp, 3, 3, C) and k (B, hp, wp, K, K, C).

    The bias takes part in the product of queries and keys, as 2 K more channels: a query carries its row's
    and its column's table there, a key the ones that pick its numbers. Added afterwards, by broadcasting over
    slots, the two took twice as long as the product itself. And the softmax runs across taps with the slots
    side by side: over a last axis of nine taps it took 18 times as long.
    """
    batch, hp, wp, side, _, _ = k.shape
    heads, wide = tables.bias_y.shape[3], tables.bias_y.dtype
    corners = (tables.corners_y.unsqueeze(-1) * tables.corners_x.unsqueeze(-2)).flatten(3, 4).flatten(-2)
    query = torch.matmul(corners, q.flatten(3, 4)).unflatten(-1, (heads, -1)).transpose(3, 4)
    shape = (batch, hp, wp, heads, tables.bias_y.shape[4], tables.bias_x.shape[5], side)
    bias_y, bias_x = (bias.expand(shape).flatten(4, 5) for bias in (tables.bias_y, tables.bias_x))
    query = torch.cat((query.to(wide), bias_y, bias_x), -1)

    keys = k.unflatten(-1, (heads, -1)).permute(0, 1, 2, 5, 3, 4, 6).flatten(4, 5)
    keys = torch.cat((keys.to(wide), tables.picks.expand(*keys.shape[:-1], -1)), -1)
    return torch.softmax(torch.matmul(keys, query.transpose(-1, -2)), -2).to(q.dtype)


def _corner_weights(offset: Tensor) -> Tensor:
    """Bilinear weights (..., 3) of the pixels at -1, 0, 1 for an offset in [-0.5, 0.5]."""
    return torch.stack(((-offset).clamp(min=0), 1 - offset.abs(), offset.clamp(min=0)), -1)


def attend_raster(call: AttentionCall, raster: Raster) -> Tensor:
    """Weights (K*K, B, M, h, w, H) of the call's queries, ``raster``."""
    q, k, _, proj_weight, proj_bias, heads, radius = call
    h, w = q.shape[-2:]
    wide = torch.promote_types(q.dtype, torch.float32)
    y, x = raster.offset.to(wide).unbind(-1)  # (B, M, h, w)
    corners = (_corner_weights(y).unsqueeze(-1) * _corner_weights(x).unsqueeze(-2)).flatten(-2)
    corners = corners.movedim(-1, 0).unsqueeze(-1).to(q.dtype)
    query = blend(corners * (q.shape[1] // heads) ** -0.5, crop(q, -1, h + 1, -1, w + 1))

    logits = contract(query, crop(k, -radius, h + radius, -radius, w + radius), heads)
    bias_y = (axis_table(y, proj_weight, 0, radius) + proj_bias).movedim(-2, 0)
    bias_x = axis_table(x, proj_weight, 1, radius).movedim(-2, 0)
    bias = bias_y.to(wide).unsqueeze(1) + bias_x.to(wide)
    return torch.softmax(logits.to(wide) + bias.flatten(0, 1), 0).to(q.dtype)


def attend_points(call: AttentionCall, points: Points) -> Tensor:
    """Weights (B, N, heads, K*K) of the call's queries, ``points``, by gathers."""
    q, k, _, proj_weight, proj_bias, heads, radius = call
    channels, side = q.shape[1], 2 * radius + 1
    query = sample_bilinear(q, points).unflatten(-1, (heads, -1)).unsqueeze(3)  # (B, N, H, 1, c)
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
    weights = attend_group(q_windows, windows(k_crop, 2 * radius + 1), tables)
    slots = (rows.slots.shape[1], cols.slots.shape[1])
    grid = weights.unflatten(-1, slots).permute(0, 1, 5, 2, 6, 3, 4).flatten(1, 2).flatten(2, 3)
    if not rows.full:
        grid = grid.index_select(1, rows.slot_of)
    if not cols.full:
        grid = grid.index_select(2, cols.slot_of)
    return grid.flatten(1, 2)
