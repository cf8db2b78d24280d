"""Local attention in Triton, as a differentiable function: launchers and the autograd.Function."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .. import settings
from ..backends import explained
from ..own_precision import own_precision
from ..places import Places, axis_starts
from ..position_bias import axis_table
from ..queries import Grid, Queries, Raster
from ..triton_support import DTYPES, LAUNCH, channels_last, dot_precision, kernel_dtype, on_device
from . import kernel, kernel_backward, tiles

PROGRAMS = 1024
"""A grid with fewer programs than this is split along its queries: about 8 for each SM of an H100."""


TABLE_QUERIES = 1 << 18
"""Queries whose bias tables are computed at a time: in float64 one takes 0.5 kB on the way."""


@own_precision
def local_attention_triton(
    q: Tensor,
    k: Tensor,
    queries: Queries,
    proj_weight: Tensor,
    proj_bias: Tensor,
    *,
    heads: int,
    radius: int,
) -> Tensor:
    """Attention weights (B, Q, heads, K*K) of q, k (B, C, h, w) at ``queries``.

    Differentiable once, in q, k, proj_weight and proj_bias.
    """
    table_y, table_x = bias_tables(queries, proj_weight, proj_bias, radius)
    wide = kernel_dtype(q.dtype)
    weights = _LocalAttention.apply(q.to(wide), k.to(wide), table_y, table_x, queries, heads, radius)
    return weights.to(q.dtype)


def bias_tables(
    queries: Queries, proj_weight: Tensor, proj_bias: Tensor, radius: int
) -> tuple[Tensor, Tensor]:
    """The bias of both axes, float32: (rows, H, K) and (cols, H, K) of a grid, else (B, Q, H, K) each."""
    if isinstance(queries, Grid):
        offsets: tuple[Tensor, ...] = (queries.row_offset, queries.col_offset)
    else:
        offsets = queries.offset.reshape(queries.offset.shape[0], -1, 2).unbind(-1)
    tables = []
    for axis, offset in enumerate(offsets):
        parts = [
            # float64: a product in float32 would become one in tf32 where torch is asked for that
            axis_table(part.double(), proj_weight, axis, radius).transpose(-1, -2).float()
            for part in offset.flatten().split(TABLE_QUERIES)
        ]
        tables.append(torch.cat(parts).reshape(*offset.shape, *parts[0].shape[1:]))
    return tables[0] + proj_bias.float().unsqueeze(-1), tables[1].contiguous()


def slots_per_pixel(queries: Queries, h: int, w: int) -> int:
    """About how many queries each feature pixel has; read from shapes, so that no device is waited for."""
    if isinstance(queries, Grid):
        return -(-queries.row.shape[0] // h) * -(-queries.col.shape[0] // w)
    if isinstance(queries, Raster):
        return queries.offset.shape[1]
    return -(-queries.count // (h * w))


def forward(
    q: Tensor, k: Tensor, table_y: Tensor, table_x: Tensor, queries: Queries, heads: int, radius: int
) -> Tensor:
    """Weights (B, Q, H, K*K) from the maps and the bias tables."""
    batch, channels, h, w = q.shape
    shape = tiles.constants(channels, heads, radius)
    out = q.new_empty(batch, queries.count, heads, shape["SIDE"] ** 2)
    if out.numel() == 0:
        return out
    q, q_strides = channels_last(q)
    k, k_strides = channels_last(k)
    scale = shape["WIDTH"] ** -0.5
    slots = slots_per_pixel(queries, h, w)
    arch, dtype = settings.arch_of(q.device), DTYPES[q.dtype]
    places = Places.of(queries)
    with on_device(q):
        if isinstance(queries, Grid) and prefer_grid(shape, slots):
            tile = tiles.tile("forward_grid", arch, dtype, shape, slots)
            programs = h * w * -(-heads // tile["GROUP"])
            splits = min(-(-slots // tile["SLOTS"]), -(-PROGRAMS // (programs * batch)))
            kernel.forward_grid[(programs, splits, batch)](
                q, k, table_y, table_x, axis_starts(queries.row, h), axis_starts(queries.col, w),
                places.offset, places.col_offset, out, h, w, queries.row.shape[0], places.cols,
                *q_strides, *k_strides, scale, **shape, BIAS=tiles.bias_entries(shape["SIDE"]),
                PRECISION=dot_precision(q.dtype), **tile, **LAUNCH,
            )  # fmt: skip
        else:
            tile = tiles.tile("forward_any", arch, dtype, shape, slots)
            kernel.forward_any[(heads * -(-places.number // tile["QUERIES"]), batch)](
                q, k, table_y, table_x, *places.arguments, out, places.number, h, w, places.cols,
                *q_strides, *k_strides, scale, **shape, MODE=places.mode, **tile, **LAUNCH,
            )  # fmt: skip
    return out


def prefer_grid(shape: dict[str, int], slots: int) -> bool:
    """Whether a grid's queries share enough of a window, and the window is small enough, for a product."""
    return slots > 1 and shape["TAPS"] * shape["WIDTH_BLOCK"] <= tiles.GRID_WINDOW


class _LocalAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        table_y: Tensor,
        table_x: Tensor,
        queries: Queries,
        heads: int,
        radius: int,
    ) -> Tensor:
        weights = forward(q, k, table_y, table_x, queries, heads, radius)
        ctx.save_for_backward(q, k, weights)
        ctx.queries, ctx.heads, ctx.radius = queries, heads, radius
        return weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, weights = ctx.saved_tensors
        with explained("local_attention"):
            grads = backward(
                q, k, weights, grad, ctx.queries, ctx.heads, ctx.radius, ctx.needs_input_grad[:4]
            )
        return *grads, None, None, None


def backward(
    q: Tensor, k: Tensor, weights: Tensor, grad: Tensor, queries: Queries, heads: int, radius: int,
    needed: tuple[bool, ...],
) -> list[Tensor | None]:  # fmt: skip
    """Gradients of q, k, table_y and table_x, those that are ``needed``, from that of the weights.

    Workspace: two vectors of C and H float32 numbers for each query.
    """
    batch, channels, h, w = q.shape
    shape = tiles.constants(channels, heads, radius)
    places = Places.of(queries)
    sizes = _table_sizes(queries, batch, heads, shape["SIDE"])
    if weights.numel() == 0:
        made = [
            torch.zeros_like(q),
            torch.zeros_like(k),
            *(weights.new_zeros(s, dtype=torch.float32) for s in sizes),
        ]
        return [g if n else None for g, n in zip(made, needed, strict=True)]
    q, q_strides = channels_last(q)
    k, k_strides = channels_last(k)
    grad = grad.contiguous()
    slots = slots_per_pixel(queries, h, w)
    arch, dtype = settings.arch_of(q.device), DTYPES[q.dtype]
    mean = weights.new_empty(batch, places.number, heads, dtype=torch.float32)
    query, grad_query = (weights.new_empty(batch, places.number, channels) for _ in range(2))
    grads: list[Tensor | None] = [None] * 4
    with on_device(q):
        tile = tiles.tile("backward_queries", arch, dtype, shape, slots)
        kernel_backward.backward_queries[(heads * -(-places.number // tile["QUERIES"]), batch)](
            q, k, *places.arguments, weights, grad, mean, query, grad_query, places.number, h, w, places.cols,
            *q_strides, *k_strides, shape["WIDTH"] ** -0.5, **shape, MODE=places.mode, **tile, **LAUNCH,
        )  # fmt: skip

        tile = tiles.tile("backward_map", arch, dtype, shape, slots)
        readers = _readers(queries, places, h, w, max(radius, 1))
        map_shape = {name: value for name, value in shape.items() if name != "TAPS"}
        for i, vector in ((0, grad_query), (1, query)):
            if needed[i]:
                out = weights.new_empty(batch, h, w, channels)
                kernel_backward.backward_map[(heads * -(-h * w // tile["PIXELS"]), batch)](
                    weights, grad, mean, vector, *readers.arguments, out,
                    places.number, h, w, places.cols, slots, **map_shape, MODE=places.mode,
                    MARGIN=readers.margin, OF_KEYS=i == 1, **tile, **LAUNCH,
                )  # fmt: skip
                grads[i] = out.permute(0, 3, 1, 2)

        for axis in range(2):
            if needed[2 + axis]:
                out = weights.new_empty(sizes[axis], dtype=torch.float32)
                repeats, *strides = _table_walk(queries, batch, axis)
                entries = out.numel() // (heads * shape["SIDE"])
                tile = tiles.tile("backward_table", arch, dtype, shape, repeats)
                kernel_backward.backward_table[(heads * -(-entries // tile["ENTRIES"]),)](
                    weights, grad, mean, out, entries, repeats, *strides, HEADS=heads, SIDE=shape["SIDE"],
                    TAPS=shape["TAPS"], AXIS=axis, **tile, **LAUNCH,
                )  # fmt: skip
                grads[2 + axis] = out
    return grads


class _Readers(NamedTuple):
    """The queries of each feature pixel, as ``backward_map`` reads them."""

    start: Tensor
    col_start: Tensor
    order: Tensor
    offset: Tensor
    col_offset: Tensor
    margin: int

    @property
    def arguments(self) -> tuple[Tensor, ...]:
        return self.start, self.col_start, self.order, self.offset, self.col_offset


def _readers(queries: Queries, places: Places, h: int, w: int, margin: int) -> _Readers:
    offset, col_offset = places.offset, places.col_offset
    if isinstance(queries, Grid):
        start, col_start = axis_starts(queries.row, h), axis_starts(queries.col, w)
        return _Readers(start, col_start, start, offset, col_offset, 0)
    if isinstance(queries, Raster):
        return _Readers(offset, offset, offset, offset, col_offset, 0)
    start, order = group_points(queries.index, h, w, margin)
    return _Readers(start, start, order, offset, col_offset, margin)


def group_points(index: Tensor, h: int, w: int, margin: int) -> tuple[Tensor, Tensor]:
    """Points by nearest pixel: those of pixel i are order[start[i]:start[i + 1]], numbered over all images.

    Pixels count row by row over images of (h + 2 margin) x (w + 2 margin); points beyond reach nothing.
    """
    batch, (tall, wide) = index.shape[0], (h + 2 * margin, w + 2 * margin)
    y, x = index[..., 0] + margin, index[..., 1] + margin
    beyond = (y < 0) | (y >= tall) | (x < 0) | (x >= wide)
    image = torch.arange(batch, device=index.device).unsqueeze(1)
    pixel = torch.where(beyond, batch * tall * wide, (image * tall + y) * wide + x).flatten()
    pixel, order = torch.sort(pixel, stable=True)
    edges = torch.arange(batch * tall * wide + 1, device=index.device)
    return torch.searchsorted(pixel, edges), order


def _table_sizes(queries: Queries, batch: int, heads: int, side: int) -> list[tuple[int, ...]]:
    if isinstance(queries, Grid):
        return [(queries.row.shape[0], heads, side), (queries.col.shape[0], heads, side)]
    return [(batch, queries.count, heads, side)] * 2


def _table_walk(queries: Queries, batch: int, axis: int) -> tuple[int, int, int, int, int]:
    """repeats, inner, entry_stride, inner_stride, outer_stride of ``backward_table``."""
    if not isinstance(queries, Grid):
        return 1, 1, 1, 0, 0
    rows, cols = queries.row.shape[0], queries.col.shape[0]
    if axis == 0:
        return batch * cols, cols, cols, 1, rows * cols
    return batch * rows, rows, 1, cols, rows * cols
