"""The decoder's layers after the first in Triton."""

import triton
import triton.language as tl


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
    activation is computed once and ``out`` may be ``hidden`` itself. The layers after it are the ones whose
    whole matrix fits on chip (``prepare.segments``): what stands between them stays in registers.

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
