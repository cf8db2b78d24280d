"""Local attention in Triton: the gradients.

* ``backward_queries``  per query: the softmax' correction term, the query vector and its gradient.
* ``backward_map``  per feature pixel: the gradient of k, or of q, gathered from the queries that read it.
  Each sum has one owner, so there are no atomics, and every run gives the same result.
* ``backward_table``  per row, column or query: the gradient of the bias tables.
"""

import triton
import triton.language as tl

from ..places import GRID, RASTER
from .kernel import _keys, _locate, _sample, _tent


@triton.jit
def _grad_logits(weights_ptr, grad_ptr, at, shown, mean):
    """Gradient of the logits from that of the weights, whose weighted mean is ``mean``."""
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

    The vectors are (B, count, C): what ``backward_map`` would otherwise compute again for every tap.
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
