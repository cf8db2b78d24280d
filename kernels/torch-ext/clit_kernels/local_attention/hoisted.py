"""Local attention with everything that belongs to a feature pixel computed once for its queries.

* The bilinear query is a product with the pixel's 3 x 3 window: (slots, 9) x (9, C), no gathers.
* Keys are read once per feature pixel and meet all of its queries in one matrix product.
* The bias is two tables, one per axis (``position_bias.py``).

Plain PyTorch, any device, differentiable. A list of points falls back to gathers.
"""

import math

import torch
from torch import Tensor

from ..grouping import AxisSlots, Group, crop, group_axis, windows
from ..own_precision import own_precision
from ..position_bias import axis_table
from ..queries import Grid, Points, Queries, Raster, gather_pixels, sample_bilinear, tap_offsets


def attend_group(
    q: Tensor, k: Tensor, group: Group, proj_weight: Tensor, proj_bias: Tensor, heads: int
) -> Tensor:
    """Weights (B, hp, wp, heads, slots, K*K) of windows q (B, hp, wp, 3, 3, C) and k (B, hp, wp, K, K, C)."""
    batch, hp, wp, side, _, channels = k.shape
    corners = _corner_weights(group.y).unsqueeze(-1) * _corner_weights(group.x).unsqueeze(-2)
    corners = corners.to(q.dtype).reshape(corners.shape[0], hp, wp, group.slots, 9)
    query = torch.matmul(corners, q.reshape(batch, hp, wp, 9, channels))
    query = (query * (channels // heads) ** -0.5).unflatten(-1, (heads, -1)).transpose(3, 4)
    keys = k.reshape(batch, hp, wp, side * side, heads, -1).permute(0, 1, 2, 4, 5, 3)
    logits = torch.matmul(query, keys)

    bias_y, bias_x = group_bias(group, proj_weight, proj_bias, side // 2)
    wide = torch.promote_types(q.dtype, torch.float32)
    shape = (batch, hp, wp, heads, *torch.broadcast_shapes(group.y.shape, group.x.shape)[3:], side, side)
    logits = logits.to(wide).reshape(shape)
    if logits.requires_grad or bias_y.requires_grad:
        logits = logits + bias_y.to(wide) + bias_x.to(wide)
    else:
        logits.add_(bias_y.to(wide)).add_(bias_x.to(wide))
    return torch.softmax(logits.reshape(*shape[:4], group.slots, side * side), -1).to(q.dtype)


def group_bias(group: Group, proj_weight: Tensor, proj_bias: Tensor, radius: int) -> tuple[Tensor, Tensor]:
    """The bias of both axes, broadcasting to (B, hp, wp, H, my, mx, K, K); the constant goes with y."""
    table_y = axis_table(group.y, proj_weight, 0, radius) + proj_bias
    table_x = axis_table(group.x, proj_weight, 1, radius)
    bias_y = table_y.permute(0, 1, 2, 6, 3, 4, 5).unsqueeze(-1)
    bias_x = table_x.permute(0, 1, 2, 6, 3, 4, 5).unsqueeze(-2)
    return bias_y, bias_x


def _corner_weights(offset: Tensor) -> Tensor:
    """Bilinear weights (..., 3) of the pixels at -1, 0, 1 for an offset in [-0.5, 0.5]."""
    return torch.stack(((-offset).clamp(min=0), 1 - offset.abs(), offset.clamp(min=0)), -1)


def attend_points(
    q: Tensor, k: Tensor, points: Points, proj_weight: Tensor, proj_bias: Tensor, heads: int, radius: int
) -> Tensor:
    """Weights (B, N, heads, K*K) at a list of points, by gathers."""
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


@own_precision
def local_attention_hoisted(
    q: Tensor,
    k: Tensor,
    queries: Queries,
    proj_weight: Tensor,
    proj_bias: Tensor,
    *,
    heads: int,
    radius: int,
) -> Tensor:
    """Attention weights (B, Q, heads, K*K) of q, k (B, C, h, w) at ``queries``."""
    if isinstance(queries, Points):
        return attend_points(q, k, queries, proj_weight, proj_bias, heads, radius)
    batch, _, h, w = q.shape
    if isinstance(queries, Raster):
        group = raster_group(queries, q.dtype)
        q_windows = windows(crop(q, -1, h + 1, -1, w + 1), 3)
        k_windows = windows(crop(k, -radius, h + radius, -radius, w + radius), 2 * radius + 1)
        weights = attend_group(q_windows, k_windows, group, proj_weight, proj_bias, heads)
        return weights.permute(0, 4, 1, 2, 3, 5).flatten(1, 3)
    rows, cols = group_axis(queries.row), group_axis(queries.col)
    group = grid_group(queries, rows, cols)
    bottom, right = rows.first + rows.slots.shape[0], cols.first + cols.slots.shape[0]
    q_windows = windows(crop(q, rows.first - 1, bottom + 1, cols.first - 1, right + 1), 3)
    k_crop = crop(k, rows.first - radius, bottom + radius, cols.first - radius, right + radius)
    weights = attend_group(q_windows, windows(k_crop, 2 * radius + 1), group, proj_weight, proj_bias, heads)
    my, mx = rows.slots.shape[1], cols.slots.shape[1]
    weights = weights.unflatten(4, (my, mx)).permute(0, 1, 4, 2, 5, 3, 6).flatten(1, 2).flatten(2, 3)
    if not rows.full:
        weights = weights.index_select(1, rows.place)
    if not cols.full:
        weights = weights.index_select(2, cols.place)
    return weights.reshape(batch, queries.count, heads, -1)


def raster_group(raster: Raster, dtype: torch.dtype) -> Group:
    """The group of a whole raster, every feature pixel and M slots, for maps of ``dtype``."""
    wide = torch.promote_types(dtype, torch.float32)
    offset = raster.offset.to(wide).permute(0, 2, 3, 1, 4).unsqueeze(4)  # (B, h, w, M, 1, 2)
    return Group(offset[..., 0], offset[..., 1])


def grid_group(grid: Grid, rows: AxisSlots, cols: AxisSlots) -> Group:
    """The group of a grid's feature pixels; its tables are 1-D, so float64 costs nothing (MPS has none)."""
    wide = torch.float32 if grid.row.device.type == "mps" else torch.float64
    y = grid.row_offset.to(wide)[rows.slots]
    x = grid.col_offset.to(wide)[cols.slots]
    return Group(y[None, :, None, :, None], x[None, None, :, None, :])
