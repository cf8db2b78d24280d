"""Gradients of the decoder's MLP: kernels for its first layer, then their launchers and the later layers.

All start from ``grad`` (B, count, HIDDEN), the gradient of the first layer's results. The scaled values are
not stored but recomputed. Per head and tap, T = grad W_1^T (queries x c) is the scaled values' gradient: the
weights' gradient is T . v, the values' is T times the weight.

* ``grad_first``    dW_1, in parts over the queries that the caller adds.
* ``grad_queries``  per query: the weights' gradient; for points and grids the values' too, by atomics,
  because any number of queries meets a feature pixel and most pixels of a large map meet none.
* ``grad_raster``   per feature pixel: the values' gradient where each pixel has the same number of queries.
  Every sum has one owner, so there are no atomics.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from ...queries import Queries, Raster
from ...query_pointers import QueryPointers
from ...tile_table import Target
from ...triton_support import LAUNCH, channels_last, dot_precision, on_device
from . import tiles
from .kernels import nearest, tap_pixel

PROGRAMS = 512
"""``grad_first`` with fewer programs than this splits its sum over the queries: some four for each SM."""


@triton.jit
def grad_first(
    weights_ptr, v_ptr, grad_ptr, row_ptr, col_ptr, out_ptr,
    total, count, h, w, cols, part, stride_b, stride_y, stride_x,
    HEADS: tl.constexpr, WIDTH: tl.constexpr, WIDTH_BLOCK: tl.constexpr, SIDE: tl.constexpr,
    HIDDEN: tl.constexpr, MODE: tl.constexpr, QUERIES: tl.constexpr, GROUP: tl.constexpr,
    COLUMNS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradient (parts, H, K*K, WIDTH_BLOCK, HIDDEN), float32, of GROUP heads of one tap, COLUMNS columns.

    Program p of axis 1 takes queries [p * part, (p + 1) * part) of the ``total`` = B * count.
    """
    AREA: tl.constexpr = SIDE * SIDE
    COLUMN_TILES: tl.constexpr = HIDDEN // COLUMNS
    dtype = grad_ptr.dtype.element_ty
    column_tile, step = tl.program_id(0) % COLUMN_TILES, tl.program_id(0) // COLUMN_TILES
    head = step // AREA * GROUP + tl.arange(0, GROUP)
    tap = step % AREA
    c = tl.arange(0, WIDTH_BLOCK)
    column = column_tile * COLUMNS + tl.arange(0, COLUMNS)
    first = tl.program_id(1) * part
    last = tl.minimum(first + part, total)
    sums = tl.zeros((GROUP * WIDTH_BLOCK, COLUMNS), tl.float32)
    for start in tl.range(first, last, QUERIES):
        n = start + tl.arange(0, QUERIES)
        valid = n < last
        batch = (n // count).to(tl.int64)
        y, x = nearest((n % count).to(tl.int64), batch, valid, row_ptr, col_ptr, count, h, w, cols, MODE)
        at, inside = tap_pixel(y, x, tap, valid, h, w, stride_y, stride_x, SIDE)
        at = (batch * stride_b + at)[:, None, None] + (head * WIDTH)[None, :, None] + c[None, None, :]
        shown = inside[:, None, None]
        if WIDTH < WIDTH_BLOCK:
            shown &= (c < WIDTH)[None, None, :]
        values = tl.load(v_ptr + at, shown, 0.0)
        row = n.to(tl.int64)[:, None]
        weight = row * (HEADS * AREA) + (head * AREA + tap)[None, :]
        scale = tl.load(weights_ptr + weight, valid[:, None], 0.0)
        scaled = values.to(tl.float32) * scale.to(tl.float32)[:, :, None]
        scaled = tl.reshape(scaled, (QUERIES, GROUP * WIDTH_BLOCK)).to(dtype)
        grad = tl.load(grad_ptr + row * HIDDEN + column[None, :], valid[:, None], 0.0)
        sums = tl.dot(tl.trans(scaled), grad, sums, input_precision=PRECISION)

    at = ((head * AREA + tap) * WIDTH_BLOCK)[:, None] + c[None, :]
    at = tl.reshape(at, (GROUP * WIDTH_BLOCK,))[:, None] * HIDDEN + column[None, :]
    out_ptr += tl.program_id(1).to(tl.int64) * (HEADS * AREA * WIDTH_BLOCK * HIDDEN)
    tl.store(out_ptr + at, sums)


@triton.jit
def _scaled_grad(
    grad, first_ptr, head, tap, c, SIDE: tl.constexpr, WIDTH_BLOCK: tl.constexpr, HIDDEN: tl.constexpr,
    GROUP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """T (rows, GROUP, WIDTH_BLOCK) of one tap: ``grad`` (rows, HIDDEN) times W_1 transposed."""
    at = ((head * (SIDE * SIDE) + tap) * WIDTH_BLOCK)[:, None] + c[None, :]
    at = tl.reshape(at, (GROUP * WIDTH_BLOCK,))[None, :] * HIDDEN + tl.arange(0, HIDDEN)[:, None]
    product = tl.dot(grad, tl.load(first_ptr + at), input_precision=PRECISION)
    return tl.reshape(product, (grad.shape[0], GROUP, WIDTH_BLOCK))


@triton.jit
def grad_queries(
    weights_ptr, v_ptr, first_ptr, grad_ptr, row_ptr, col_ptr, grad_weights_ptr, grad_v_ptr,
    count, h, w, cols, stride_b, stride_y, stride_x,
    HEADS: tl.constexpr, WIDTH: tl.constexpr, WIDTH_BLOCK: tl.constexpr, SIDE: tl.constexpr,
    HIDDEN: tl.constexpr, MODE: tl.constexpr, ADD_VALUES: tl.constexpr, QUERIES: tl.constexpr,
    GROUP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradient (B, count, H, K*K) of the weights of QUERIES queries, GROUP heads.

    ADD_VALUES adds the values' to ``grad_v`` (B, h, w, H*WIDTH), float32, as well.
    """
    AREA: tl.constexpr = SIDE * SIDE
    GROUPS: tl.constexpr = HEADS // GROUP
    head = tl.program_id(0) % GROUPS * GROUP + tl.arange(0, GROUP)
    batch = tl.program_id(1).to(tl.int64)
    n = (tl.program_id(0) // GROUPS).to(tl.int64) * QUERIES + tl.arange(0, QUERIES)
    valid = n < count
    y, x = nearest(n, batch, valid, row_ptr, col_ptr, count, h, w, cols, MODE)
    c = tl.arange(0, WIDTH_BLOCK)
    v_ptr += batch * stride_b
    grad_v_ptr += batch * h * w * (HEADS * WIDTH)
    row = (batch * count + n)[:, None]
    grad = tl.load(grad_ptr + row * HIDDEN + tl.arange(0, HIDDEN)[None, :], valid[:, None], 0.0)
    for tap in tl.range(0, AREA):
        product = _scaled_grad(grad, first_ptr, head, tap, c, SIDE, WIDTH_BLOCK, HIDDEN, GROUP, PRECISION)
        at, inside = tap_pixel(y, x, tap, valid, h, w, stride_y, stride_x, SIDE)
        at_head = (head * WIDTH)[None, :, None] + c[None, None, :]
        shown = inside[:, None, None]
        if WIDTH < WIDTH_BLOCK:
            shown &= (c < WIDTH)[None, None, :]
        values = tl.load(v_ptr + at[:, None, None] + at_head, shown, 0.0).to(tl.float32)
        at = row * (HEADS * AREA) + (head * AREA + tap)[None, :]
        grad_weights = tl.sum(product * values, 2).to(grad_weights_ptr.dtype.element_ty)
        tl.store(grad_weights_ptr + at, grad_weights, valid[:, None])
        if ADD_VALUES:
            scale = tl.load(weights_ptr + at, valid[:, None], 0.0).to(tl.float32)
            at, inside = tap_pixel(y, x, tap, valid, h, w, w * (HEADS * WIDTH), HEADS * WIDTH, SIDE)
            # nobody reads before the kernel ends; the default order would fence, and empty L1, at each tap
            tl.atomic_add(
                grad_v_ptr + at[:, None, None] + at_head, product * scale[:, :, None], shown, sem="relaxed"
            )


@triton.jit
def grad_raster(
    weights_ptr, first_ptr, grad_ptr, out_ptr, slots, h, w,
    HEADS: tl.constexpr, WIDTH: tl.constexpr, WIDTH_BLOCK: tl.constexpr, SIDE: tl.constexpr,
    HIDDEN: tl.constexpr, PIXELS: tl.constexpr, GROUP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradient (B, h, w, H*WIDTH) of the values of PIXELS feature pixels, GROUP heads.

    Pixel p is tap t of the ``slots`` queries nearest to p - t, which stand h*w apart.
    """
    AREA: tl.constexpr = SIDE * SIDE
    GROUPS: tl.constexpr = HEADS // GROUP
    head = tl.program_id(0) % GROUPS * GROUP + tl.arange(0, GROUP)
    batch = tl.program_id(1).to(tl.int64)
    pixel = (tl.program_id(0) // GROUPS).to(tl.int64) * PIXELS + tl.arange(0, PIXELS)
    y, x = pixel // w, pixel % w
    on_map = pixel < h * w
    c = tl.arange(0, WIDTH_BLOCK)
    d = tl.arange(0, HIDDEN)
    total = tl.zeros((PIXELS, GROUP, WIDTH_BLOCK), tl.float32)
    for step in tl.range(0, AREA * slots):
        tap, slot = step % AREA, step // AREA
        near_y, near_x = y - (tap // SIDE - SIDE // 2), x - (tap % SIDE - SIDE // 2)
        valid = on_map & (near_y >= 0) & (near_y < h) & (near_x >= 0) & (near_x < w)
        row = (((batch * slots + slot) * h + near_y) * w + near_x)[:, None]
        grad = tl.load(grad_ptr + row * HIDDEN + d[None, :], valid[:, None], 0.0)
        product = _scaled_grad(grad, first_ptr, head, tap, c, SIDE, WIDTH_BLOCK, HIDDEN, GROUP, PRECISION)
        at = row * (HEADS * AREA) + (head * AREA + tap)[None, :]
        scale = tl.load(weights_ptr + at, valid[:, None], 0.0).to(tl.float32)
        total += product * scale[:, :, None]

    at = ((batch * h * w + pixel) * (HEADS * WIDTH))[:, None, None]
    at += (head * WIDTH)[None, :, None] + c[None, None, :]
    shown = on_map[:, None, None]
    if WIDTH < WIDTH_BLOCK:
        shown &= (c < WIDTH)[None, None, :]
    tl.store(out_ptr + at, total.to(out_ptr.dtype.element_ty), shown)


def backward_later(
    grad: Tensor, kept: Sequence[Tensor], mlp_weights: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Gradients of the first layer's results, and of the weights and biases of the layers after it.

    torch's matrix products: for 10,000s of queries each is one large GEMM, which cuBLAS does at its best, and
    they are a hundredth of the first layer's work.
    """
    to_weights: list[Tensor] = []
    to_biases: list[Tensor] = []
    for before, weight in zip(reversed(kept), reversed(mlp_weights[1:]), strict=True):
        before = before[..., : weight.shape[1]]
        rows = grad.flatten(0, 1)
        to_weights.append(rows.T @ F.gelu(before).flatten(0, 1))
        to_biases.append(rows.sum(0))
        grad = torch.ops.aten.gelu_backward(grad @ weight.to(grad.dtype), before)
    return grad, to_weights[::-1], to_biases[::-1]


def backward_queries(
    grad: Tensor,
    weights: Tensor,
    v: Tensor,
    queries: Queries,
    first: Tensor,
    target: Target,
    needs_weights: bool,
    needs_v: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of the attention weights and of v from ``grad`` (B, Q, D rounded up) of the first layer.

    ``first`` is W_1 as ``launch.Layers`` holds it.
    """
    batch, count = weights.shape[:2]
    channels, h, w = v.shape[1:]
    shape, pointers = tiles.shape_of(weights, v, first.shape[2]), QueryPointers.of(queries)
    by_pixel = isinstance(queries, Raster)
    to_weights = torch.empty_like(weights)
    to_v: Tensor | None = None
    precision = dot_precision(v.dtype)
    if not count:
        return (to_weights, torch.zeros_like(v))
    with on_device(v):
        if needs_weights or (needs_v and not by_pixel):
            if needs_v and not by_pixel:
                to_v = v.new_zeros(batch, h, w, channels, dtype=torch.float32)
            tile = tiles.tile("grad_queries", target, shape)
            programs = -(-count // tile["QUERIES"]) * (shape["HEADS"] // tile["GROUP"])
            read, strides = channels_last(v)
            grad_queries[(programs, batch)](
                weights, read, first, grad, pointers.where, pointers.col, to_weights,
                weights if to_v is None else to_v, count, h, w, pointers.cols, *strides, **shape,
                MODE=pointers.mode, ADD_VALUES=to_v is not None, PRECISION=precision, **tile, **LAUNCH,
            )  # fmt: skip
        if needs_v and isinstance(queries, Raster):
            to_v = v.new_empty(batch, h, w, channels)
            tile = tiles.tile("grad_raster", target, shape)
            programs = -(-h * w // tile["PIXELS"]) * (shape["HEADS"] // tile["GROUP"])
            grad_raster[(programs, batch)](
                weights, first, grad, to_v, queries.offset.shape[1], h, w, **shape,
                PRECISION=precision, **tile, **LAUNCH,
            )  # fmt: skip
    return (
        to_weights if needs_weights else None,
        None if to_v is None else to_v.to(v.dtype).permute(0, 3, 1, 2),
    )


def backward_first(
    grad: Tensor, weights: Tensor, v: Tensor, queries: Queries, target: Target, hidden: int, cell: Tensor
) -> Tensor:
    """Gradient of the first layer's weight (``hidden``, K*K*C + 2), float32, from ``grad`` as above."""
    batch, count = weights.shape[:2]
    h, w = v.shape[-2:]
    shape, pointers = tiles.shape_of(weights, v, grad.shape[-1]), QueryPointers.of(queries)
    tile = tiles.tile("grad_first", target, shape)
    heads, area = shape["HEADS"], shape["SIDE"] ** 2
    programs = heads // tile["GROUP"] * area * (shape["HIDDEN"] // tile["COLUMNS"])
    total = batch * count
    parts = max(1, min(-(-PROGRAMS // programs), -(-total // (8 * tile["QUERIES"]))))
    part = -(-total // (parts * tile["QUERIES"])) * tile["QUERIES"]
    out = grad.new_empty(parts, heads, area, shape["WIDTH_BLOCK"], shape["HIDDEN"], dtype=torch.float32)
    v, strides = channels_last(v)
    with on_device(v):
        grad_first[(programs, parts)](
            weights, v, grad, pointers.where, pointers.col, out, total, max(1, count), h, w, pointers.cols,
            part, *strides, **shape, MODE=pointers.mode, PRECISION=dot_precision(v.dtype), **tile, **LAUNCH,
        )  # fmt: skip
    blocks = out.sum(0)[:, :, : shape["WIDTH"], :hidden]
    by_image = grad.sum(1, dtype=torch.float32)[:, :hidden]
    return torch.cat((blocks.permute(3, 1, 0, 2).flatten(1), by_image.T @ cell.float()), 1)
