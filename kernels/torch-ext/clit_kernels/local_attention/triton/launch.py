"""Local attention in Triton, as a differentiable function: the launcher and the autograd.Function."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ...backends import explained
from ...calls import AttentionCall
from ...no_autocast import no_autocast
from ...position_bias import axis_table
from ...queries import Grid, Queries
from ...query_pointers import QueryPointers, axis_starts
from ...tile_table import Target, Tile
from ...triton_support import LAUNCH, channels_last, dot_precision, kernel_dtype, on_device
from . import kernels
from .backward import backward
from .tiles import GRID_WINDOW, bias_entries, constants, slots_per_pixel
from .tiles import tile as tile_of

PROGRAMS = 1024
"""A grid with fewer programs than this is split along its queries: about 8 for each SM of an H100."""

TABLE_QUERIES = 1 << 18
"""Bias tables are computed for this many queries at a time: each takes 0.5 kB of float64 temporaries."""


@no_autocast
def local_attention_triton(call: AttentionCall, *, tiles: Mapping[str, Tile] | None = None) -> Tensor:
    """Attention weights (B, Q, heads, K*K); see the reference.

    Differentiable once, in q, k, proj_weight and proj_bias.
    """
    table_y, table_x = bias_tables(call)
    wide = kernel_dtype(call.q.dtype)
    q, k = call.q.to(wide), call.k.to(wide)
    shape = constants(q.shape[1], call.heads, call.radius)
    weights = _LocalAttention.apply(q, k, table_y, table_x, call.queries, shape, Target.of(q, tiles))
    return weights.to(call.q.dtype)


def bias_tables(call: AttentionCall) -> tuple[Tensor, Tensor]:
    """The bias of both axes, float32: (rows, H, K) and (cols, H, K) of a grid, else (B, Q, H, K) each."""
    queries = call.queries
    if isinstance(queries, Grid):
        offsets: tuple[Tensor, ...] = (queries.row_offset, queries.col_offset)
    else:
        offsets = queries.offset.reshape(queries.offset.shape[0], -1, 2).unbind(-1)
    tables = []
    for axis, offset in enumerate(offsets):
        parts = [
            # float64: a product in float32 would become one in tf32 where torch is asked for that
            axis_table(part.double(), call.proj_weight, axis, call.radius).transpose(-1, -2).float()
            for part in offset.flatten().split(TABLE_QUERIES)
        ]
        tables.append(torch.cat(parts).reshape(*offset.shape, *parts[0].shape[1:]))
    return tables[0] + call.proj_bias.float().unsqueeze(-1), tables[1].contiguous()


def forward(
    q: Tensor, k: Tensor, table_y: Tensor, table_x: Tensor, queries: Queries, shape: dict[str, int],
    target: Target,
) -> Tensor:  # fmt: skip
    """Weights (B, Q, H, K*K) from the maps and the bias tables; ``shape`` as ``tiles.constants`` has it."""
    batch, _, h, w = q.shape
    heads = shape["HEADS"]
    out = q.new_empty(batch, queries.count, heads, shape["SIDE"] ** 2)
    if out.numel() == 0:
        return out
    q, q_strides = channels_last(q)
    k, k_strides = channels_last(k)
    scale = shape["WIDTH"] ** -0.5
    slots = slots_per_pixel(queries, h, w)
    pointers = QueryPointers.of(queries)
    with on_device(q):
        if isinstance(queries, Grid) and prefer_grid(shape, slots):
            tile = tile_of("forward_grid", target, shape, slots)
            programs = h * w * -(-heads // tile["GROUP"])
            splits = min(-(-slots // tile["SLOTS"]), -(-PROGRAMS // (programs * batch)))
            kernels.forward_grid[(programs, splits, batch)](
                q, k, table_y, table_x, axis_starts(queries.row, h), axis_starts(queries.col, w),
                pointers.offset, pointers.col_offset, out, h, w, queries.row.shape[0], pointers.cols,
                *q_strides, *k_strides, scale, **shape, BIAS=bias_entries(shape["SIDE"]),
                PRECISION=dot_precision(q.dtype), **tile, **LAUNCH,
            )  # fmt: skip
        else:
            tile = tile_of("forward_any", target, shape, slots)
            kernels.forward_any[(heads * -(-pointers.number // tile["QUERIES"]), batch)](
                q, k, table_y, table_x, *pointers.arguments, out, pointers.number, h, w, pointers.cols,
                *q_strides, *k_strides, scale, **shape, MODE=pointers.mode, **tile, **LAUNCH,
            )  # fmt: skip
    return out


def prefer_grid(shape: dict[str, int], slots: int) -> bool:
    """Whether a grid's queries share enough of a window, and the window is small enough, for a product."""
    return slots > 1 and shape["TAPS"] * shape["WIDTH_BLOCK"] <= GRID_WINDOW


class _LocalAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        table_y: Tensor,
        table_x: Tensor,
        queries: Queries,
        shape: dict[str, int],
        target: Target,
    ) -> Tensor:
        weights = forward(q, k, table_y, table_x, queries, shape, target)
        ctx.save_for_backward(q, k, weights)
        ctx.queries, ctx.shape, ctx.target = queries, shape, target
        return weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, weights = ctx.saved_tensors
        with explained("local_attention"):
            grads = backward(
                q, k, weights, grad, ctx.queries, ctx.shape, ctx.target, ctx.needs_input_grad[:4]
            )
        return *grads, None, None, None
