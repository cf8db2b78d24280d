"""Local attention in Triton: the weights, for grids and for any queries.

Nothing wider than a tile's queries x taps x channels of one head exists, in registers; memory sees the maps,
two bias tables and the weights.

* ``forward_grid``  one feature pixel and all its queries: the window is read once, and the logits of all
  heads are one batched product on tensor cores.
* ``forward_any``   a few queries, each with its own window: points, rasters, grids near scale 1.

``backward.py`` has the gradients, ``launch.py`` the launcher and the autograd.Function.
"""

import triton
import triton.language as tl

from ...query_pointers import GRID, POINTS


@triton.jit
def _tent(offset, pixel):
    """Bilinear weight of the pixel at ``pixel`` for a query at ``offset`` pixels."""
    return tl.maximum(1.0 - tl.abs(offset - pixel), 0.0)


@triton.jit
def _softmax(logits):
    """Softmax over the last axis of a 2-D or 3-D tile."""
    axis: tl.constexpr = len(logits.shape) - 1
    logits = tl.exp(logits - tl.expand_dims(tl.max(logits, axis), axis))
    return logits / tl.expand_dims(tl.sum(logits, axis), axis)


@triton.jit
def _locate(
    n, batch, valid, where_ptr, offset_ptr, col_ptr, col_offset_ptr, count, h, w, cols, MODE: tl.constexpr
):
    """Nearest pixels (int64) and offsets (float32) of queries ``n`` of image ``batch``: y, x, both offsets.

    GRID: where, offset (rows,) and col, col_offset (cols,). POINTS: where, offset (B, N, 2).
    RASTER: offset (B, M, h, w, 2).
    """
    if MODE == GRID:
        row, col = n // cols, n % cols
        y, x = tl.load(where_ptr + row, valid, 0), tl.load(col_ptr + col, valid, 0)
        offset_y, offset_x = tl.load(offset_ptr + row, valid, 0.0), tl.load(col_offset_ptr + col, valid, 0.0)
    else:
        pair = 2 * (batch * count + n)
        offset_y, offset_x = (
            tl.load(offset_ptr + pair, valid, 0.0),
            tl.load(offset_ptr + pair + 1, valid, 0.0),
        )
        if MODE == POINTS:
            y, x = tl.load(where_ptr + pair, valid, 0), tl.load(where_ptr + pair + 1, valid, 0)
        else:
            y, x = n // w % h, n % w
    return y, x, offset_y, offset_x


@triton.jit
def _sample(map_ptr, y, x, offset_y, offset_x, valid, h, w, stride_y, stride_x, c, c_valid):
    """Bilinear sample (queries, channels) of a map in float32, zero outside it."""
    below_y, below_x = offset_y < 0, offset_x < 0
    corner_y, corner_x = y - below_y.to(tl.int64), x - below_x.to(tl.int64)
    part_y, part_x = offset_y + below_y.to(tl.float32), offset_x + below_x.to(tl.float32)
    total = tl.zeros((y.shape[0], c.shape[0]), tl.float32)
    for dy in tl.static_range(2):
        for dx in tl.static_range(2):
            at_y, at_x = corner_y + dy, corner_x + dx
            inside = valid & (at_y >= 0) & (at_y < h) & (at_x >= 0) & (at_x < w)
            at = (at_y * stride_y + at_x * stride_x)[:, None] + c[None, :]
            value = tl.load(map_ptr + at, inside[:, None] & c_valid[None, :], 0.0).to(tl.float32)
            weight = (part_y if dy else 1 - part_y) * (part_x if dx else 1 - part_x)
            total += weight[:, None] * value
    return total


@triton.jit
def _keys(k_ptr, y, x, valid, h, w, stride_y, stride_x, c, c_valid, SIDE: tl.constexpr, TAPS: tl.constexpr):
    """Keys (pixels, taps, channels) of the windows around (y, x), zero outside the map."""
    tap = tl.arange(0, TAPS)
    at_y = y[:, None] + (tap // SIDE - SIDE // 2)[None, :]
    at_x = x[:, None] + (tap % SIDE - SIDE // 2)[None, :]
    inside = (
        (at_y >= 0) & (at_y < h) & (at_x >= 0) & (at_x < w) & valid[:, None] & (tap < SIDE * SIDE)[None, :]
    )
    at = (at_y * stride_y + at_x * stride_x)[:, :, None] + c[None, None, :]
    return tl.load(k_ptr + at, inside[:, :, None] & c_valid[None, None, :], 0.0)


@triton.jit
def _exact_dot(a, b, PRECISION: tl.constexpr):
    """The product of ``a`` (float32) and ``b`` (exact in its dtype), with at least 16 bits of ``a``.

    A matrix instruction takes 8 to 11 bits of a factor: ``a`` goes in as two terms.
    """
    if PRECISION == "ieee" and b.dtype == tl.float32:
        return tl.dot(a, b, input_precision=PRECISION)
    high = a.to(tl.bfloat16).to(tl.float32) if b.dtype == tl.float32 else a.to(b.dtype)
    rest = (a - high.to(tl.float32)).to(b.dtype)
    return tl.dot(rest, b, tl.dot(high, b, input_precision=PRECISION), input_precision=PRECISION)


@triton.jit
def _window(
    map_ptr, batch, y, x, tap, h, w, stride_b, stride_y, stride_x, channel, c_valid,
    SIDE: tl.constexpr,
):  # fmt: skip
    """Window of a pixel (heads, taps, channels of a head); zero outside the map, beyond SIDE * SIDE taps."""
    at_y, at_x = y + tap // SIDE - SIDE // 2, x + tap % SIDE - SIDE // 2
    inside = (at_y >= 0) & (at_y < h) & (at_x >= 0) & (at_x < w) & (tap < SIDE * SIDE)
    at = batch * stride_b + at_y.to(tl.int64) * stride_y + at_x.to(tl.int64) * stride_x
    return tl.load(
        map_ptr + at[None, :, None] + channel[:, None, :], inside[None, :, None] & c_valid[:, None, :], 0.0
    )


@triton.jit
def forward_grid(
    q_ptr, k_ptr, table_y_ptr, table_x_ptr, row_start_ptr, col_start_ptr, row_offset_ptr, col_offset_ptr,
    out_ptr, h, w, rows, cols, q_stride_b, q_stride_y, q_stride_x, k_stride_b, k_stride_y, k_stride_x, scale,
    HEADS: tl.constexpr, WIDTH: tl.constexpr, WIDTH_BLOCK: tl.constexpr, SIDE: tl.constexpr,
    TAPS: tl.constexpr, BIAS: tl.constexpr, GROUP: tl.constexpr, SLOTS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Weights (B, rows, cols, H, K*K) of the queries of one feature pixel, for GROUP heads.

    The queries nearest to pixel (y, x) are rows [row_start[y], row_start[y + 1]) by columns
    [col_start[x], col_start[x + 1]); they are walked in chunks of SLOTS, every program of axis 1 taking each
    ``num_programs``-th chunk. Tables are (rows, H, K) and (cols, H, K).
    """
    GROUPS: tl.constexpr = (HEADS + GROUP - 1) // GROUP
    head = tl.program_id(0) % GROUPS * GROUP + tl.arange(0, GROUP)
    y, x = tl.program_id(0) // GROUPS // w, tl.program_id(0) // GROUPS % w
    batch = tl.program_id(2).to(tl.int64)
    row_first, col_first = tl.load(row_start_ptr + y), tl.load(col_start_ptr + x)
    row_count = tl.load(row_start_ptr + y + 1) - row_first
    col_count = tl.load(col_start_ptr + x + 1) - col_first
    count = row_count * col_count
    start = tl.program_id(1) * SLOTS
    if start < count:
        c = tl.arange(0, WIDTH_BLOCK)
        channel = head[:, None] * WIDTH + c[None, :]
        c_valid = (head < HEADS)[:, None] & (c < WIDTH)[None, :]
        tap = tl.arange(0, TAPS)
        keys = _window(
            k_ptr, batch, y, x, tap, h, w, k_stride_b, k_stride_y, k_stride_x, channel, c_valid, SIDE
        )
        keys = tl.permute(keys, (0, 2, 1))  # (GROUP, WIDTH_BLOCK, TAPS)
        near = tl.arange(0, 16)  # 3 x 3 pixels, and 7 more that are zero
        near_y, near_x = (near // 3 - 1)[None, :], (near % 3 - 1)[None, :]
        around = _window(
            q_ptr, batch, y, x, near, h, w, q_stride_b, q_stride_y, q_stride_x, channel, c_valid, 3
        )

        # the bias as a product: a query's 2 K table entries times which of them each tap takes
        entry = tl.arange(0, BIAS)
        place = entry % (BIAS // 2)
        taken = tl.where((entry < BIAS // 2)[:, None], (tap // SIDE)[None, :], (tap % SIDE)[None, :])
        chosen = (taken == place[:, None]).to(keys.dtype)
        chosen = tl.broadcast_to(chosen[None, :, :], (GROUP, BIAS, TAPS))
        table = (head[:, None] * SIDE + place[None, :])[:, None, :]
        in_table = (head < HEADS)[:, None] & (place < SIDE)[None, :]
        of_y = (in_table & (entry < BIAS // 2)[None, :])[:, None, :]
        of_x = (in_table & (entry >= BIAS // 2)[None, :])[:, None, :]

        shown = (head < HEADS)[:, None, None] & (tap < SIDE * SIDE)[None, None, :]
        for first in range(start, count, tl.num_programs(1) * SLOTS):
            slot = first + tl.arange(0, SLOTS)
            valid = slot < count
            row, col = row_first + slot // col_count, col_first + slot % col_count
            offset_y = tl.load(row_offset_ptr + row, valid, 0.0)
            offset_x = tl.load(col_offset_ptr + col, valid, 0.0)
            corner = _tent(offset_y[:, None], near_y) * _tent(offset_x[:, None], near_x)
            corner = tl.broadcast_to(corner[None, :, :], (GROUP, SLOTS, 16))
            query = _exact_dot(corner, around, PRECISION)

            valid = valid[None, :, None]
            at_y = (row * (HEADS * SIDE))[None, :, None] + table
            at_x = (col * (HEADS * SIDE))[None, :, None] + table
            bias = tl.load(table_y_ptr + at_y, of_y & valid, 0.0) + tl.load(
                table_x_ptr + at_x, of_x & valid, 0.0
            )
            logits = _exact_dot(bias, chosen, PRECISION)
            logits = tl.dot((query * scale).to(keys.dtype), keys, logits, input_precision=PRECISION)
            weights = _softmax(tl.where((tap < SIDE * SIDE)[None, None, :], logits, float("-inf")))
            at_out = ((batch * rows + row) * cols + col) * (HEADS * SIDE * SIDE)
            at_out = at_out[None, :, None] + (head * (SIDE * SIDE))[:, None, None] + tap[None, None, :]
            tl.store(out_ptr + at_out, weights.to(out_ptr.dtype.element_ty), shown & valid)


@triton.jit
def forward_any(
    q_ptr, k_ptr, table_y_ptr, table_x_ptr, where_ptr, offset_ptr, col_ptr, col_offset_ptr, out_ptr,
    count, h, w, cols, q_stride_b, q_stride_y, q_stride_x, k_stride_b, k_stride_y, k_stride_x, scale,
    HEADS: tl.constexpr, WIDTH: tl.constexpr, WIDTH_BLOCK: tl.constexpr, SIDE: tl.constexpr,
    TAPS: tl.constexpr, MODE: tl.constexpr, QUERIES: tl.constexpr,
):  # fmt: skip
    """Weights (B, count, H, K*K) of QUERIES queries. Tables: a grid's, or (B, count, H, K) each."""
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
    logits = tl.sum(query[:, None, :] * keys.to(tl.float32), 2)

    tap = tl.arange(0, TAPS)
    shown = valid[:, None] & (tap < SIDE * SIDE)[None, :]
    if MODE == GRID:
        entry_y, entry_x = n // cols, n % cols
    else:
        entry_y, entry_x = batch * count + n, batch * count + n
    at = ((entry_y * HEADS + head) * SIDE)[:, None] + (tap // SIDE)[None, :]
    logits += tl.load(table_y_ptr + at, shown, 0.0)
    at = ((entry_x * HEADS + head) * SIDE)[:, None] + (tap % SIDE)[None, :]
    logits += tl.load(table_x_ptr + at, shown, 0.0)
    weights = _softmax(tl.where((tap < SIDE * SIDE)[None, :], logits, float("-inf")))
    at = (((batch * count + n) * HEADS + head) * (SIDE * SIDE))[:, None] + tap[None, :]
    tl.store(out_ptr + at, weights.to(out_ptr.dtype.element_ty), shown)
