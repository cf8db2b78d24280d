"""Local attention in Triton: the gradients, kernels first, then their launcher.

* ``backward_queries``  per query: the softmax' correction term, the query vector and its gradient.
* ``backward_map``  per feature pixel: the gradient of k, or of q, gathered from the queries that read it.
  Each sum has one owner, so there are no atomics, and every run gives the same result.
* ``backward_table``  per row, column or query: the gradient of the bias tables.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...queries import Grid, Queries, Raster
from ...query_pointers import GRID, RASTER, QueryPointers, axis_starts
from ...tile_table import Target
from ...triton_support import LAUNCH, channels_last, on_device
from . import tiles
from .kernels import _keys, _locate, _sample, _tent


@triton.jit
def _grad_logits(weights_ptr, grad_ptr, at, shown, mean):
    """Gradient of the logits from the weights' gradient; ``mean`` is that gradient's weighted mean."""
    weights = tl.load(weights_ptr + at, shown, 0.0).to(tl.float32)
    grad = tl.load(grad_ptr + at, shown, 0.0).to(tl.float32)
    return weights * (grad - mean)


@triton.jit
def backward_queries(
    q_ptr, k_ptr, where_ptr, offset_ptr, col_ptr, col_offset_ptr, weights_ptr, grad_ptr, mean_ptr, query_ptr,
    grad_query_ptr, count, h, w, cols, q_stride_b, q_stride_y, q_stride_x, k_stride_b, k_stride_y, k_stride_x,
    scale, HEADS: tl.constexpr, WIDTH: tl.constexpr, WIDTH_BLOCK: tl.constexpr, SIDE: tl.constexpr,
    TAPS: tl.constexpr, MODE: tl.constexpr, QUERIES: tl.constexpr,
):  # fmt: skip
    """Write, per query and head: mean (B, count, H), the scaled query vector, the unscaled one's gradient.

    The vectors are (B, count, C). They are stored so that ``backward_map`` need not recompute them per tap.
    """
    head, tile = tl.program_id(0) % HEADS, tl.program_id(0) // HEADS
    batch = tl.program_id(1).to(tl.int64)
    n = tile.to(tl.int64) * QUERIES + tl.arange(0, QUERIES)
    valid = n < count
    c = tl.arange(0, WIDTH_BLOCK)
    c_valid = c < WIDTH
    y, x, offset_y, offset_x = _locate(
        n, batch, valid, where_ptr, offset_ptr, col_ptr, col_offset_ptr, count, h, w, cols, MODE
    )
    q_ptr += batch * q_stride_b + head * WIDTH
    k_ptr += batch * k_stride_b + head * WIDTH
    query = _sample(q_ptr, y, x, offset_y, offset_x, valid, h, w, q_stride_y, q_stride_x, c, c_valid) * scale
    keys = _keys(k_ptr, y, x, valid, h, w, k_stride_y, k_stride_x, c, c_valid, SIDE, TAPS)

    tap = tl.arange(0, TAPS)
    shown = valid[:, None] & (tap < SIDE * SIDE)[None, :]
    entry = (batch * count + n) * HEADS + head
    at = (entry * (SIDE * SIDE))[:, None] + tap[None, :]
    weights = tl.load(weights_ptr + at, shown, 0.0).to(tl.float32)
    grad = tl.load(grad_ptr + at, shown, 0.0).to(tl.float32)
    # over the weights' own sum, which rounding left off 1: so the logits' gradients sum to zero, as they must
    mean = tl.sum(weights * grad, 1) / tl.maximum(tl.sum(weights, 1), 1e-30)
    grad_logits = weights * (grad - mean[:, None])
    grad_query = tl.sum(grad_logits[:, :, None] * keys.to(tl.float32), 1) * scale
    tl.store(mean_ptr + entry, mean, valid)
    at = (entry * WIDTH)[:, None] + c[None, :]
    both = valid[:, None] & c_valid[None, :]
    tl.store(query_ptr + at, query.to(query_ptr.dtype.element_ty), both)
    tl.store(grad_query_ptr + at, grad_query.to(grad_query_ptr.dtype.element_ty), both)


@triton.jit
def backward_map(
    weights_ptr, grad_ptr, mean_ptr, vector_ptr, start_ptr, col_start_ptr, order_ptr, offset_ptr,
    col_offset_ptr, out_ptr, count, h, w, cols, slots,
    HEADS: tl.constexpr, WIDTH: tl.constexpr, WIDTH_BLOCK: tl.constexpr, SIDE: tl.constexpr,
    MODE: tl.constexpr, MARGIN: tl.constexpr, OF_KEYS: tl.constexpr,
    PIXELS: tl.constexpr, SLOTS: tl.constexpr,
):  # fmt: skip
    """Gradient (B, h, w, C) of k (OF_KEYS) or of q, for PIXELS feature pixels.

    Pixel p is tap t of the queries nearest to p - t: one of K*K taps for keys, where a query adds its logit's
    gradient times its vector (the scaled query), and of 3 x 3 for the bilinear sample, where it adds its
    corner weight times its vector (the gradient of the query).

    Queries of a pixel: GRID as in ``forward_grid``; RASTER ``slots`` of them, h*w apart; POINTS
    order[start[i]:start[i + 1]], i counting the pixels of all images row by row, MARGIN more on each side.
    """
    REACH: tl.constexpr = SIDE if OF_KEYS else 3
    head, tile = tl.program_id(0) % HEADS, tl.program_id(0) // HEADS
    pixel = tile * PIXELS + tl.arange(0, PIXELS)
    on_map = pixel < h * w
    y, x = pixel // w, pixel % w
    batch = tl.program_id(1).to(tl.int64)
    c = tl.arange(0, WIDTH_BLOCK)
    c_valid = c < WIDTH
    total = tl.zeros((PIXELS, WIDTH_BLOCK), tl.float32)
    for tap in range(REACH * REACH):
        tap_y, tap_x = tap // REACH - REACH // 2, tap % REACH - REACH // 2
        near_y, near_x = y - tap_y, x - tap_x
        inside = (
            (near_y >= -MARGIN) & (near_y < h + MARGIN) & (near_x >= -MARGIN) & (near_x < w + MARGIN) & on_map
        )
        if MODE == GRID:
            row_first = tl.load(start_ptr + near_y, inside, 0)
            row_count = tl.load(start_ptr + near_y + 1, inside, 0) - row_first
            first = tl.load(col_start_ptr + near_x, inside, 0)
            per_row = tl.load(col_start_ptr + near_x + 1, inside, 0) - first
            number = row_count * per_row
        elif MODE == RASTER:
            number = tl.where(inside, slots, 0)
        else:
            cell = (batch * (h + 2 * MARGIN) + near_y + MARGIN) * (w + 2 * MARGIN) + near_x + MARGIN
            first = tl.load(start_ptr + cell, inside, 0)
            number = tl.load(start_ptr + cell + 1, inside, 0) - first
        for begin in range(0, tl.max(number, 0).to(tl.int32), SLOTS):
            slot = begin + tl.arange(0, SLOTS)[None, :]
            valid = slot < number[:, None]
            if MODE == GRID:
                row = row_first[:, None] + slot // tl.maximum(per_row, 1)[:, None]
                col = first[:, None] + slot % tl.maximum(per_row, 1)[:, None]
                n = batch * count + row.to(tl.int64) * cols + col
            elif MODE == RASTER:
                n = batch * count + (slot.to(tl.int64) * h + near_y[:, None]) * w + near_x[:, None]
            else:
                n = tl.load(order_ptr + first[:, None] + slot, valid, 0)
            entry = n * HEADS + head
            if OF_KEYS:
                mean = tl.load(mean_ptr + entry, valid, 0.0)
                factor = _grad_logits(weights_ptr, grad_ptr, entry * (SIDE * SIDE) + tap, valid, mean)
            elif MODE == GRID:
                offset_y = tl.load(offset_ptr + row, valid, 0.0)
                offset_x = tl.load(col_offset_ptr + col, valid, 0.0)
                factor = _tent(offset_y, tap_y) * _tent(offset_x, tap_x)
            else:
                offset_y = tl.load(offset_ptr + 2 * n, valid, 0.0)
                offset_x = tl.load(offset_ptr + 2 * n + 1, valid, 0.0)
                factor = _tent(offset_y, tap_y) * _tent(offset_x, tap_x)
            at = (entry * WIDTH)[:, :, None] + c[None, None, :]
            vector = tl.load(vector_ptr + at, valid[:, :, None] & c_valid[None, None, :], 0.0).to(tl.float32)
            total += tl.sum(factor[:, :, None] * vector, 1)
    at = ((batch * h * w + pixel) * (HEADS * WIDTH) + head * WIDTH)[:, None] + c[None, :]
    tl.store(out_ptr + at, total.to(out_ptr.dtype.element_ty), on_map[:, None] & c_valid[None, :])


@triton.jit
def backward_table(
    weights_ptr, grad_ptr, mean_ptr, out_ptr, entries, repeats, inner, entry_stride, inner_stride,
    outer_stride,
    HEADS: tl.constexpr, SIDE: tl.constexpr, TAPS: tl.constexpr, AXIS: tl.constexpr,
    ENTRIES: tl.constexpr, REPEATS: tl.constexpr,
):  # fmt: skip
    """Gradient (entries, H, K) of one axis' bias table, for ENTRIES of them.

    Entry e serves ``repeats`` queries, the i-th being number
    e * entry_stride + i % inner * inner_stride + i // inner * outer_stride of all images' queries.
    """
    head, tile = tl.program_id(0) % HEADS, tl.program_id(0) // HEADS
    entry = tile.to(tl.int64) * ENTRIES + tl.arange(0, ENTRIES)
    tap = tl.arange(0, TAPS)
    total = tl.zeros((ENTRIES, TAPS), tl.float32)
    for first in range(0, repeats, REPEATS):
        i = first + tl.arange(0, REPEATS).to(tl.int64)
        n = (entry * entry_stride)[:, None] + (i % inner * inner_stride + i // inner * outer_stride)[None, :]
        valid = (entry < entries)[:, None] & (i < repeats)[None, :]
        mean = tl.load(mean_ptr + n * HEADS + head, valid, 0.0)
        at = ((n * HEADS + head) * (SIDE * SIDE))[:, :, None] + tap[None, None, :]
        shown = valid[:, :, None] & (tap < SIDE * SIDE)[None, None, :]
        total += tl.sum(_grad_logits(weights_ptr, grad_ptr, at, shown, mean[:, :, None]), 1)
    along = tap // SIDE if AXIS == 0 else tap % SIDE
    for place in tl.static_range(SIDE):
        value = tl.sum(tl.where((along == place)[None, :], total, 0.0), 1)
        tl.store(out_ptr + (entry * HEADS + head) * SIDE + place, value, entry < entries)


def backward(
    q: Tensor, k: Tensor, weights: Tensor, grad: Tensor, queries: Queries, shape: dict[str, int],
    target: Target, needed: tuple[bool, ...],
) -> list[Tensor | None]:  # fmt: skip
    """Gradients of q, k, table_y and table_x, those that are ``needed``, from that of the weights.

    Workspace: two vectors of C and H float32 numbers for each query.
    """
    batch, channels, h, w = q.shape
    heads, side = shape["HEADS"], shape["SIDE"]
    pointers = QueryPointers.of(queries)
    sizes = _table_sizes(queries, batch, heads, side)
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
    slots = tiles.slots_per_pixel(queries, h, w)
    mean = weights.new_empty(batch, pointers.number, heads, dtype=torch.float32)
    query, grad_query = (weights.new_empty(batch, pointers.number, channels) for _ in range(2))
    grads: list[Tensor | None] = [None] * 4
    with on_device(q):
        tile = tiles.tile("backward_queries", target, shape, slots)
        backward_queries[(heads * -(-pointers.number // tile["QUERIES"]), batch)](
            q, k, *pointers.arguments, weights, grad, mean, query, grad_query, pointers.number, h, w,
            pointers.cols, *q_strides, *k_strides, shape["WIDTH"] ** -0.5, **shape, MODE=pointers.mode,
            **tile, **LAUNCH,
        )  # fmt: skip

        tile = tiles.tile("backward_map", target, shape, slots)
        readers = _readers(queries, pointers, h, w, max(side // 2, 1))
        map_shape = {name: value for name, value in shape.items() if name != "TAPS"}
        for i, vector in ((0, grad_query), (1, query)):
            if needed[i]:
                out = weights.new_empty(batch, h, w, channels)
                backward_map[(heads * -(-h * w // tile["PIXELS"]), batch)](
                    weights, grad, mean, vector, *readers.arguments, out,
                    pointers.number, h, w, pointers.cols, slots, **map_shape, MODE=pointers.mode,
                    MARGIN=readers.margin, OF_KEYS=i == 1, **tile, **LAUNCH,
                )  # fmt: skip
                grads[i] = out.permute(0, 3, 1, 2)

        for axis in range(2):
            if needed[2 + axis]:
                out = weights.new_empty(sizes[axis], dtype=torch.float32)
                repeats, *strides = _table_walk(queries, batch, axis)
                entries = out.numel() // (heads * side)
                tile = tiles.tile("backward_table", target, shape, repeats)
                backward_table[(heads * -(-entries // tile["ENTRIES"]),)](
                    weights, grad, mean, out, entries, repeats, *strides, HEADS=heads, SIDE=side,
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


def _readers(queries: Queries, pointers: QueryPointers, h: int, w: int, margin: int) -> _Readers:
    offset, col_offset = pointers.offset, pointers.col_offset
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
