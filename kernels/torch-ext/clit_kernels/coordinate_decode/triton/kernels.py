"""The decoder's MLP in Triton: the first layer, hidden (B, Q, D), in both orders, and the layers after it.

* ``hoisted``  a few feature pixels, all their queries, some columns of D. For 16 (head, tap) products at a
  time, U = v W_1 is one batched product, contracted at once with the queries' weights by a second one: U, of
  which a feature pixel has H*K*K*D numbers, never leaves the chip.
* ``direct``  a few queries, some columns of D. One (head, tap) after the other: the values, gathered and
  scaled, meet their block of W_1.
* ``mlp``  a few queries, whole rows: some of the later layers.

The first two accumulate in float32 and write with the layer's constant (bias and cell) added, before the
GELU. W_1 comes as ``launch.Layers.first`` lays it out: (H*K*K rounded up, c rounded up, D rounded up), zeros
in the padding. ``backward.py`` has the gradients.
"""

import triton
import triton.language as tl

from ...query_pointers import GRID, POINTS


@triton.jit
def _pixel_slots(row_start_ptr, col_start_ptr, y, x, cols, begin, SLOTS: tl.constexpr):
    """Queries (pixels, SLOTS) of feature pixels from their ``begin``-th on: numbers in the grid, validity.

    Pixel (y, x) has rows [row_start[y], row_start[y + 1]) by columns [col_start[x], col_start[x + 1]).
    """
    row_first = tl.load(row_start_ptr + y)
    row_count = tl.load(row_start_ptr + y + 1) - row_first
    col_first = tl.load(col_start_ptr + x)
    col_count = tl.load(col_start_ptr + x + 1) - col_first
    slot = begin + tl.arange(0, SLOTS)[None, :]
    valid = slot < (row_count * col_count)[:, None]
    per_row = tl.maximum(col_count, 1)[:, None]
    row = row_first[:, None] + slot // per_row
    return row * cols + col_first[:, None] + slot % per_row, valid


@triton.jit
def hoisted(
    weights_ptr, v_ptr, first_ptr, constant_ptr, row_start_ptr, col_start_ptr, hidden_ptr,
    count, cols, tiles_x, slot_programs, stride_b, stride_y, stride_x,
    HEADS: tl.constexpr, WIDTH_BLOCK: tl.constexpr, SIDE: tl.constexpr, HIDDEN: tl.constexpr,
    PIXELS_Y: tl.constexpr, PIXELS_X: tl.constexpr, GROUP: tl.constexpr, SLOTS: tl.constexpr,
    PRODUCTS: tl.constexpr, COLUMNS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Hidden (B, count, HIDDEN) of a grid's queries, COLUMNS of it for PIXELS_Y x PIXELS_X feature pixels.

    ``v`` (B, h, w, H*WIDTH_BLOCK) has a margin of zeros of the window's radius around it, and more below and
    to the right, so that tiles and windows lie inside: no load of it is masked. ``row_start`` and
    ``col_start`` cover the tiles; a pixel without queries has two equal entries. A pixel's queries are walked
    SLOTS at a time: program i takes parts i, i + slot_programs, i + 2 slot_programs, ...

    A matrix instruction takes 16 rows. Where a pixel has fewer queries, GROUP pixels share one: their weights
    stand in a matrix that is block-diagonal over the group, (GROUP * SLOTS) x (PRODUCTS * GROUP).
    """
    AREA: tl.constexpr = SIDE * SIDE
    PIXELS: tl.constexpr = PIXELS_Y * PIXELS_X
    GROUPS: tl.constexpr = PIXELS // GROUP
    COLUMN_TILES: tl.constexpr = HIDDEN // COLUMNS
    dtype = first_ptr.dtype.element_ty
    column_tile, rest = tl.program_id(0) % COLUMN_TILES, tl.program_id(0) // COLUMN_TILES
    slot_program, tile = rest % slot_programs, rest // slot_programs
    top, left = tile // tiles_x * PIXELS_Y, tile % tiles_x * PIXELS_X
    batch = tl.program_id(1).to(tl.int64)

    pixel = tl.arange(0, PIXELS)
    y, x = top + pixel // PIXELS_X, left + pixel % PIXELS_X
    row_count = tl.load(row_start_ptr + y + 1) - tl.load(row_start_ptr + y)
    col_count = tl.load(col_start_ptr + x + 1) - tl.load(col_start_ptr + x)
    most = tl.max(row_count * col_count, 0)

    # the tile's corner in 64 bits, everything within its windows in 32
    v_ptr += batch * stride_b + top.to(tl.int64) * stride_y + left.to(tl.int64) * stride_x
    at_pixel = (pixel // PIXELS_X) * stride_y + (pixel % PIXELS_X) * stride_x
    weights_ptr += batch * count * (HEADS * AREA)
    hidden_ptr += batch * count * HIDDEN
    c = tl.arange(0, WIDTH_BLOCK)
    lane = tl.arange(0, PRODUCTS)
    column = column_tile * COLUMNS + tl.arange(0, COLUMNS)

    for begin in range(slot_program * SLOTS, most, slot_programs * SLOTS):
        query, valid = _pixel_slots(row_start_ptr, col_start_ptr, y, x, cols, begin, SLOTS)
        at_weights = tl.where(valid, query, 0).to(tl.int64) * (HEADS * AREA)
        total = tl.zeros((GROUPS, GROUP * SLOTS, COLUMNS), tl.float32)
        for start in tl.range(0, HEADS * AREA, PRODUCTS):
            product = start + lane
            known = product < HEADS * AREA
            head, tap = tl.where(known, product, 0) // AREA, tl.where(known, product, 0) % AREA
            at = tap // SIDE * stride_y + tap % SIDE * stride_x + head * WIDTH_BLOCK
            at = (at[:, None] + at_pixel[None, :])[:, :, None] + c[None, None, :]
            # through L1: neighbouring taps read almost the same pixels
            values = tl.load(v_ptr + at, cache_modifier=".ca")
            at = ((product * WIDTH_BLOCK)[:, None] + c[None, :])[:, :, None] * HIDDEN + column[None, None, :]
            block = tl.load(first_ptr + at)
            u = tl.dot(values, block, input_precision=PRECISION).to(dtype)
            at = at_weights[:, :, None] + product[None, None, :]
            scale = tl.load(weights_ptr + at, known[None, None, :], 0.0)
            if GROUP == 1:
                u = tl.permute(u, (1, 0, 2))
            else:
                u = tl.permute(tl.reshape(u, (PRODUCTS, GROUPS, GROUP, COLUMNS)), (1, 0, 2, 3))
                u = tl.reshape(u, (GROUPS, PRODUCTS * GROUP, COLUMNS))
                own = tl.arange(0, GROUP)[:, None] == tl.arange(0, GROUP)[None, :]
                scale = tl.reshape(scale, (GROUPS, GROUP, SLOTS, PRODUCTS))[:, :, :, :, None]
                scale = tl.where(own[None, :, None, None, :], scale, tl.zeros_like(scale))
                scale = tl.reshape(scale, (GROUPS, GROUP * SLOTS, PRODUCTS * GROUP))
            total = tl.dot(scale, u, total, input_precision=PRECISION)

        constant = tl.load(constant_ptr + batch * HIDDEN + column)
        hidden = tl.reshape(total, (PIXELS, SLOTS, COLUMNS)) + constant[None, None, :]
        # located once more rather than kept in registers through the loop
        query, valid = _pixel_slots(row_start_ptr, col_start_ptr, y, x, cols, begin, SLOTS)
        at = (query.to(tl.int64) * HIDDEN)[:, :, None] + column[None, None, :]
        tl.store(hidden_ptr + at, hidden.to(hidden_ptr.dtype.element_ty), valid[:, :, None])


@triton.jit
def nearest(n, batch, valid, row_ptr, col_ptr, count, h, w, cols, MODE: tl.constexpr):
    """Nearest feature pixel (y, x), int64, of queries ``n`` of image ``batch``.

    GRID: row (rows,), col (cols,). POINTS: row holds (B, count, 2). RASTER: neither is read.
    """
    if MODE == GRID:
        y, x = tl.load(row_ptr + n // cols, valid, 0), tl.load(col_ptr + n % cols, valid, 0)
    elif MODE == POINTS:
        pair = 2 * (batch * count + n)
        y, x = tl.load(row_ptr + pair, valid, 0), tl.load(row_ptr + pair + 1, valid, 0)
    else:
        y, x = n // w % h, n % w
    return y.to(tl.int64), x.to(tl.int64)


@triton.jit
def tap_pixel(y, x, tap, valid, h, w, stride_y, stride_x, SIDE: tl.constexpr):
    """Where the value map is read for one tap of the windows around (y, x), and whether it is on the map."""
    at_y, at_x = y + (tap // SIDE - SIDE // 2), x + (tap % SIDE - SIDE // 2)
    inside = valid & (at_y >= 0) & (at_y < h) & (at_x >= 0) & (at_x < w)
    return at_y * stride_y + at_x * stride_x, inside


@triton.jit
def direct(
    weights_ptr, v_ptr, first_ptr, constant_ptr, row_ptr, col_ptr, hidden_ptr,
    count, h, w, cols, stride_b, stride_y, stride_x,
    HEADS: tl.constexpr, WIDTH: tl.constexpr, WIDTH_BLOCK: tl.constexpr, SIDE: tl.constexpr,
    HIDDEN: tl.constexpr, MODE: tl.constexpr, QUERIES: tl.constexpr, GROUP: tl.constexpr,
    COLUMNS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Hidden (B, count, HIDDEN) of any queries, COLUMNS of it for QUERIES of them; GROUP heads at a time."""
    AREA: tl.constexpr = SIDE * SIDE
    COLUMN_TILES: tl.constexpr = HIDDEN // COLUMNS
    dtype = first_ptr.dtype.element_ty
    column_tile, tile = tl.program_id(0) % COLUMN_TILES, tl.program_id(0) // COLUMN_TILES
    batch = tl.program_id(1).to(tl.int64)
    n = tile.to(tl.int64) * QUERIES + tl.arange(0, QUERIES)
    valid = n < count
    y, x = nearest(n, batch, valid, row_ptr, col_ptr, count, h, w, cols, MODE)
    v_ptr += batch * stride_b
    at_weights = (batch * count + n) * (HEADS * AREA)
    c = tl.arange(0, WIDTH_BLOCK)
    group = tl.arange(0, GROUP)
    column = column_tile * COLUMNS + tl.arange(0, COLUMNS)
    at_first = tl.reshape((group * (AREA * WIDTH_BLOCK))[:, None] + c[None, :], (GROUP * WIDTH_BLOCK,))
    at_first = at_first[:, None] * HIDDEN + column[None, :]
    total = tl.zeros((QUERIES, COLUMNS), tl.float32)
    # the taps of a group of heads follow each other: their weights and values are close in memory
    for step in tl.range(0, HEADS // GROUP * AREA):
        head, tap = step // AREA * GROUP, step % AREA
        at, inside = tap_pixel(y, x, tap, valid, h, w, stride_y, stride_x, SIDE)
        at = at[:, None, None] + ((head + group) * WIDTH)[None, :, None] + c[None, None, :]
        shown = inside[:, None, None]
        if WIDTH < WIDTH_BLOCK:
            shown &= (c < WIDTH)[None, None, :]
        values = tl.load(v_ptr + at, shown, 0.0)
        at = at_weights[:, None] + ((head + group) * AREA + tap)[None, :]
        scale = tl.load(weights_ptr + at, valid[:, None], 0.0)
        scaled = values.to(tl.float32) * scale.to(tl.float32)[:, :, None]
        scaled = tl.reshape(scaled, (QUERIES, GROUP * WIDTH_BLOCK)).to(dtype)
        block = tl.load((first_ptr + (head * AREA + tap) * (WIDTH_BLOCK * HIDDEN)) + at_first)
        total = tl.dot(scaled, block, total, input_precision=PRECISION)

    hidden = total + tl.load(constant_ptr + batch * HIDDEN + column)[None, :]
    at = ((batch * count + n) * HIDDEN)[:, None] + column[None, :]
    tl.store(hidden_ptr + at, hidden.to(hidden_ptr.dtype.element_ty), valid[:, None])


@triton.jit
def gelu(x):
    """Exact GELU of float32."""
    return 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))


@triton.jit
def mlp(
    hidden_ptr, weight_ptr, bias_ptr, previous_ptr, base_ptr, out_ptr, rows, gain,
    WIDTHS: tl.constexpr, OUT: tl.constexpr, LAST: tl.constexpr, HAS_PREVIOUS: tl.constexpr,
    HAS_BASE: tl.constexpr, ROWS: tl.constexpr, STEP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Some of the layers: ``hidden`` (rows, WIDTHS[0]), before its GELU, to ``out`` (rows, OUT).

    WIDTHS are powers of two, the layers' inputs and the last one's outputs. ``weight`` holds the layers'
    (in, out) matrices one after the other, ``bias`` (float32) theirs, zeros where a layer was widened.

    The first product streams hidden and weight in steps; a program has all of its columns, so that each
    activation is computed once and ``out`` may be ``hidden`` itself. The layers after it have matrices that
    fit on chip (``launch.segments``); activations between them stay in registers.

    LAST adds ``previous`` (rows, OUT) ``gain`` times and ``base`` (rows, OUT) once.
    """
    dtype = weight_ptr.dtype.element_ty
    n = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    valid = n < rows
    DEPTH: tl.constexpr = WIDTHS[0]
    COLUMNS: tl.constexpr = WIDTHS[1]
    column = tl.arange(0, COLUMNS)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in tl.range(0, DEPTH, STEP):
        row = start + tl.arange(0, STEP)
        x = tl.load(hidden_ptr + (n * DEPTH)[:, None] + row[None, :], valid[:, None], 0.0)
        weight = tl.load(weight_ptr + row[:, None] * COLUMNS + column[None, :])
        total = tl.dot(gelu(x.to(tl.float32)).to(dtype), weight, total, input_precision=PRECISION)
    total += tl.load(bias_ptr + column)[None, :]
    for i in tl.static_range(1, len(WIDTHS) - 1):
        weight_ptr += WIDTHS[i - 1] * WIDTHS[i]
        bias_ptr += WIDTHS[i]
        column = tl.arange(0, WIDTHS[i + 1])
        weight = tl.load(weight_ptr + (tl.arange(0, WIDTHS[i]) * WIDTHS[i + 1])[:, None] + column[None, :])
        total = tl.dot(gelu(total).to(dtype), weight, input_precision=PRECISION)
        total += tl.load(bias_ptr + column)[None, :]

    at = (n * OUT)[:, None] + column[None, :]
    shown = valid[:, None] & (column < OUT)[None, :]
    if LAST and HAS_PREVIOUS:
        total += gain * tl.load(previous_ptr + at, shown, 0.0).to(tl.float32)
    if LAST and HAS_BASE:
        total += tl.load(base_ptr + at, shown, 0.0).to(tl.float32)
    tl.store(out_ptr + at, total.to(out_ptr.dtype.element_ty), shown)
