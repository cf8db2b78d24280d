"""Coordinate decoding in Triton as a differentiable function."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .. import settings
from ..backends import explained
from ..places import Places
from ..queries import Queries, Raster
from ..triton_support import DTYPES, LAUNCH, channels_last, dot_precision, kernel_dtype, on_device
from . import kernel_backward, tiles
from .launch import first_layer, later_layers, shape_of
from .prepare import Layers, prepare

PROGRAMS = 512
"""``grad_first`` with fewer programs than this splits its sum over the queries: some four for each SM."""


def coordinate_decode_triton(
    weights: Tensor,
    v: Tensor,
    queries: Queries,
    mlp_weights: Sequence[Tensor],
    mlp_biases: Sequence[Tensor],
    cell: Tensor,
    *,
    previous: Tensor | None = None,
    gain: float = 0.75,
    base: Tensor | None = None,
) -> Tensor:
    """Values (B, Q, out) from attention weights (B, Q, H, K*K) and v (B, C, h, w); see the reference.

    Differentiable once, in everything but ``cell``.
    """
    dtype = kernel_dtype(v.dtype)
    weights, v_cast = weights.to(dtype), v.to(dtype)
    previous = None if previous is None else previous.to(dtype)
    asked = v.dtype if base is None else torch.promote_types(v.dtype, base.dtype)
    base = None if base is None else base.to(torch.promote_types(dtype, base.dtype))
    with torch.autocast(v.device.type, enabled=False):
        out = _CoordinateDecode.apply(
            weights, v_cast, previous, base, cell, queries, gain, len(mlp_weights), *mlp_weights, *mlp_biases
        )
    return out.to(asked)


class _CoordinateDecode(torch.autograd.Function):
    """Keeps its inputs and the hidden layers before their GELUs; the scaled values are computed again."""

    @staticmethod
    def forward(
        ctx: Any, weights: Tensor, v: Tensor, previous: Tensor | None, base: Tensor | None, cell: Tensor,
        queries: Queries, gain: float, count: int, *mlp: Tensor,
    ) -> Tensor:  # fmt: skip
        weights = weights.contiguous()
        previous, base = (None if t is None else t.contiguous() for t in (previous, base))
        layers = prepare(mlp[:count], mlp[count:], cell, weights.shape[2], weights.shape[3], v.dtype)
        hidden = first_layer(weights, v, queries, layers)
        kept: list[Tensor] | None = [hidden] if any(ctx.needs_input_grad) else None
        out = later_layers(hidden, layers, previous, gain, base, kept)
        ctx.save_for_backward(weights, v, cell, *(kept or ()), *mlp)
        ctx.queries, ctx.gain, ctx.count = queries, gain, count
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weights, v, cell, *saved = ctx.saved_tensors
        count = ctx.count
        kept, mlp = saved[: count - 1], saved[count - 1 :]
        needs = ctx.needs_input_grad
        to_first = None
        with explained("coordinate_decode"), torch.autocast(v.device.type, enabled=False):
            grad_hidden, grad_weights, grad_biases = _backward_later(grad.to(v.dtype), kept, mlp[:count])
            layers = prepare(mlp[:count], mlp[count:], cell, weights.shape[2], weights.shape[3], v.dtype)
            grad_hidden = F.pad(grad_hidden, (0, layers.widths[0] - grad_hidden.shape[-1])).contiguous()
            to_weights, to_v = backward_queries(
                grad_hidden, weights, v, ctx.queries, layers, needs[0], needs[1]
            )
            if needs[8]:
                to_first = backward_first(grad_hidden, weights, v, ctx.queries, layers, mlp[0], cell)
        to_mlp = [to_first, *grad_weights, grad_hidden.flatten(0, 1).sum(0)[: mlp[0].shape[0]], *grad_biases]
        return (
            to_weights,
            to_v,
            grad * ctx.gain if needs[2] else None,
            grad if needs[3] else None,
            *(None,) * 4,
            *(None if g is None else g.to(w.dtype) for g, w in zip(to_mlp, mlp, strict=True)),
        )


def _backward_later(
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
    layers: Layers,
    needs_weights: bool,
    needs_v: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of the attention weights and of v from ``grad`` (B, Q, D rounded up) of the first layer."""
    batch, count = weights.shape[:2]
    channels, h, w = v.shape[1:]
    shape, places = shape_of(weights, v, layers), Places.of(queries)
    arch, dtype = settings.arch_of(v.device), DTYPES[v.dtype]
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
            tile = tiles.tile("grad_queries", arch, dtype, shape)
            programs = -(-count // tile["QUERIES"]) * (shape["HEADS"] // tile["GROUP"])
            read, strides = channels_last(v)
            kernel_backward.grad_queries[(programs, batch)](
                weights, read, layers.first, grad, places.where, places.col, to_weights,
                weights if to_v is None else to_v, count, h, w, places.cols, *strides, **shape,
                MODE=places.mode, ADD_VALUES=to_v is not None, PRECISION=precision, **tile, **LAUNCH,
            )  # fmt: skip
        if needs_v and isinstance(queries, Raster):
            to_v = v.new_empty(batch, h, w, channels)
            tile = tiles.tile("grad_raster", arch, dtype, shape)
            programs = -(-h * w // tile["PIXELS"]) * (shape["HEADS"] // tile["GROUP"])
            kernel_backward.grad_raster[(programs, batch)](
                weights, layers.first, grad, to_v, queries.offset.shape[1], h, w, **shape,
                PRECISION=precision, **tile, **LAUNCH,
            )  # fmt: skip
    return (
        to_weights if needs_weights else None,
        None if to_v is None else to_v.to(v.dtype).permute(0, 3, 1, 2),
    )


def backward_first(
    grad: Tensor, weights: Tensor, v: Tensor, queries: Queries, layers: Layers, first: Tensor, cell: Tensor
) -> Tensor:  # fmt: skip
    """Gradient of the first layer's weight (D, K*K*C + 2), float32, from ``grad`` (B, Q, D rounded up)."""
    batch, count = weights.shape[:2]
    h, w = v.shape[-2:]
    shape, places = shape_of(weights, v, layers), Places.of(queries)
    tile = tiles.tile("grad_first", settings.arch_of(v.device), DTYPES[v.dtype], shape)
    heads, area, hidden = shape["HEADS"], shape["SIDE"] ** 2, first.shape[0]
    programs = heads // tile["GROUP"] * area * (shape["HIDDEN"] // tile["COLUMNS"])
    total = batch * count
    parts = max(1, min(-(-PROGRAMS // programs), -(-total // (8 * tile["QUERIES"]))))
    part = -(-total // (parts * tile["QUERIES"])) * tile["QUERIES"]
    out = grad.new_empty(parts, heads, area, shape["WIDTH_BLOCK"], shape["HIDDEN"], dtype=torch.float32)
    v, strides = channels_last(v)
    with on_device(v):
        kernel_backward.grad_first[(programs, parts)](
            weights, v, grad, places.where, places.col, out, total, max(1, count), h, w, places.cols, part,
            *strides, **shape, MODE=places.mode, PRECISION=dot_precision(v.dtype), **tile, **LAUNCH,
        )  # fmt: skip
    blocks = out.sum(0)[:, :, : shape["WIDTH"], :hidden]
    by_image = grad.sum(1, dtype=torch.float32)[:, :hidden]
    return torch.cat((blocks.permute(3, 1, 0, 2).flatten(1), by_image.T @ cell.float()), 1)
