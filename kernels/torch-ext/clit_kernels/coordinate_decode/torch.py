"""The decoder's first layer summed in the order that does the least work (``orders.py``), in plain PyTorch.

    hidden(q) = sum_{h,k} a(q, h, k) U(p0, h, k) + cell W_c + b,    U(p, h, k) = v[p + k]_h W_1[k, h]

Any device, differentiable. A list of points always takes the direct order.
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..calls import DecodeCall
from ..grouping import crop, group_axis, windows
from ..no_autocast import no_autocast
from ..orders import takes_hoisted
from ..queries import Points, Raster, as_points, gather_pixels, tap_offsets
from ..raster_taps import project


class MLP(NamedTuple):
    """A decoder's MLP in a map's dtype, its first layer laid out for both orders.

    Attributes:
        direct: (D, K*K*C) taps, heads, channels.
        hoisted: (H*K*K, c, D) one block per head and tap.
        constant: (B, D) the part of the first layer that no query changes, bias and cell; float32 or wider.
        weights: (out, in) of the layers after the first.
        biases: theirs, as they came.
    """

    direct: Tensor
    hoisted: Tensor
    constant: Tensor
    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]


def prepare_mlp(
    mlp_weights: Sequence[Tensor],
    mlp_biases: Sequence[Tensor],
    cell: Tensor,
    heads: int,
    area: int,
    dtype: torch.dtype,
) -> MLP:
    """Lay out an MLP for maps of ``dtype``; ``cell`` (B, 2) in half feature pixels."""
    first = mlp_weights[0]
    wide = torch.promote_types(first.dtype, torch.float32)
    direct = first[:, :-2].to(dtype)
    blocks = direct.reshape(first.shape[0], area, heads, -1).permute(2, 1, 3, 0)
    return MLP(
        direct,
        blocks.reshape(heads * area, -1, first.shape[0]),
        cell.to(wide) @ first[:, -2:].to(wide).T + mlp_biases[0].to(wide),
        tuple(w.to(dtype) for w in mlp_weights[1:]),
        tuple(mlp_biases[1:]),
    )


def hidden_hoisted(weights: Tensor, v: Tensor, mlp: MLP, buffer: Tensor | None = None) -> Tensor:
    """First layer without its constant, (P, slots, D), from group weights (B, hp, wp, H, K*K, slots) and
    windows v (B, hp, wp, K, K, C). ``buffer`` (pixels, H*K*K, D) takes U, of so many pixels at a time, when
    no gradient is asked for."""
    batch, hp, wp, heads, area, slots = weights.shape
    pixels = batch * hp * wp
    values = v.unflatten(-1, (heads, -1)).reshape(pixels, area, heads, -1)
    weights = weights.reshape(pixels, heads * area, slots).transpose(1, 2)
    if weights.dtype != v.dtype:  # slot by slot: oneDNN's bfloat16 product reads it twice as fast
        weights = weights.to(v.dtype, memory_format=torch.contiguous_format)

    def blocks(here: slice) -> Tensor:
        """The values (H*K*K, pixels, c), side by side for each block's product: twice as fast in bfloat16."""
        return values[here].permute(2, 1, 0, 3).reshape(heads * area, -1, values.shape[-1])

    if buffer is None:
        return torch.bmm(weights, torch.bmm(blocks(slice(None)), mlp.hoisted).transpose(0, 1))
    hidden = v.new_empty(pixels, slots, buffer.shape[-1])
    step = math.ceil(pixels / math.ceil(pixels / buffer.shape[0]))
    for start in range(0, pixels, step):
        here = slice(start, min(start + step, pixels))
        u = buffer[: here.stop - start]  # all of a pixel's U side by side: 1.3 times faster to read
        torch.bmm(blocks(here), mlp.hoisted, out=u.transpose(0, 1))
        torch.bmm(weights[here], u, out=hidden[here])
    return hidden


def hidden_direct(weights: Tensor, values: Tensor, mlp: MLP) -> Tensor:
    """First layer without its constant, (..., D), from weights (..., H, K*K) and values (..., K*K, C)."""
    scaled = values.unflatten(-1, (weights.shape[-2], -1)) * weights.transpose(-1, -2).unsqueeze(-1)
    return F.linear(scaled.flatten(-3), mlp.direct)


def finish(hidden: Tensor, mlp: MLP) -> Tensor:
    """The MLP after its first product: hidden (B, ..., D) -> (B, ..., out)."""
    constant = mlp.constant.to(hidden.dtype)
    constant = constant.reshape(constant.shape[0], *[1] * (hidden.dim() - 2), -1)
    last = len(mlp.weights) - 1
    if torch.is_grad_enabled():
        x = hidden + constant
        for weight, bias in zip(mlp.weights, mlp.biases, strict=True):
            x = F.linear(F.gelu(x), weight, bias.to(x.dtype))
        return x
    x = hidden.add_(constant)
    if mlp.weights:
        torch.ops.aten.gelu_(x)
    for i, (weight, bias) in enumerate(zip(mlp.weights, mlp.biases, strict=True)):
        x = _layer(x, weight, bias.to(x.dtype), gelu=i < last)
    return x


def _layer(x: Tensor, weight: Tensor, bias: Tensor, *, gelu: bool) -> Tensor:
    """One layer of the MLP, where no gradient is asked for.

    Product and bias at once took half as long again in float32 on a CPU, as torch writes the bias out for
    every row first. In bfloat16 oneDNN adds it, and applies the GELU, while a result is in registers: 1.6
    times faster.
    """
    if x.device.type == "cpu" and x.dtype == torch.bfloat16 and _has_onednn():
        words: tuple[str, str | None] = ("gelu", "none") if gelu else ("none", None)
        fused: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, words[0], [], words[1])
        return fused
    x = F.linear(x, weight).add_(bias)
    return torch.ops.aten.gelu_(x) if gelu else x


@cache
def _has_onednn() -> bool:
    ops = torch.ops.mkldnn
    return all(hasattr(ops, name) for name in ("_linear_pointwise", "_is_mkldnn_bf16_supported")) and bool(
        ops._is_mkldnn_bf16_supported()
    )


@no_autocast
def coordinate_decode_torch(call: DecodeCall, *, order: str | None = None) -> Tensor:
    """Values (B, Q, out); see the reference."""
    v, queries = call.v, call.queries
    batch, _, heads, area = call.attention.shape
    mlp = prepare_mlp(call.mlp_weights, call.mlp_biases, call.cell, heads, area, v.dtype)
    weights = call.attention.to(v.dtype)
    hidden = _group_hidden(call._replace(attention=weights), mlp, order)
    if hidden is None and isinstance(queries, Raster):
        by_tap = weights.unflatten(1, queries.offset.shape[1:4]).permute(5, 0, 1, 2, 3, 4)
        hidden = raster_direct(by_tap, v, mlp)
    if hidden is None:
        points = as_points(queries, batch)
        taps = tap_offsets((int(area**0.5) - 1) // 2, v.device)
        values = gather_pixels(v, points.index.unsqueeze(2) + taps)
        hidden = hidden_direct(weights, values, mlp)
    return add(finish(hidden, mlp), call.previous, call.gain, call.base)


def add(out: Tensor, previous: Tensor | None, gain: float, base: Tensor | None) -> Tensor:
    """``out`` and the residual of the stage before, in its dtype; and the base, in the wider of the two."""
    if previous is not None:
        out = out + gain * previous.to(out.dtype)
    return out if base is None else out + base


def raster_direct(weights: Tensor, v: Tensor, mlp: MLP) -> Tensor:
    """First layer (B, Q, D) of a raster in the direct order, from weights (K*K, B, M, h, w, H)."""
    h, w = v.shape[-2:]
    radius = (int(weights.shape[0] ** 0.5) - 1) // 2
    padded = crop(v, -radius, h + radius, -radius, w + radius)
    return project(weights, padded, mlp.direct).flatten(1, 3)


def raster_hoists(raster: Raster, v: Tensor, heads: int, order: str | None) -> bool:
    """Whether a raster's first layer on the map ``v`` is summed in the hoisted order."""
    m, h, w = raster.offset.shape[1:4]
    sizes = {"pixels": h * w, "slots": m, "count": raster.count}
    return takes_hoisted(order, "torch", **sizes, channels=v.shape[1], heads=heads)


def _group_hidden(call: DecodeCall, mlp: MLP, order: str | None) -> Tensor | None:
    """First layer (B, Q, D) in the hoisted order, or None where the direct order is taken."""
    weights, v, queries = call.attention, call.v, call.queries
    if isinstance(queries, Points):
        return None
    batch, count, heads, area = weights.shape
    radius = (int(area**0.5) - 1) // 2
    channels, h, w = v.shape[1:]
    if isinstance(queries, Raster):
        if not raster_hoists(queries, v, heads, order):
            return None
        m = queries.offset.shape[1]
        v_windows = windows(crop(v, -radius, h + radius, -radius, w + radius), 2 * radius + 1)
        grouped = weights.unflatten(1, (m, h, w)).permute(0, 2, 3, 4, 5, 1)
        hidden = hidden_hoisted(grouped, v_windows, mlp)
        return hidden.unflatten(0, (batch, h, w)).permute(0, 3, 1, 2, 4).flatten(1, 3)
    rows, cols = group_axis(queries.row), group_axis(queries.col)
    (hp, my), (wp, mx) = rows.slots.shape, cols.slots.shape
    sizes = {"pixels": hp * wp, "slots": my * mx, "count": count}
    if not takes_hoisted(order, "torch", **sizes, channels=channels, heads=heads):
        return None
    top, left = rows.first - radius, cols.first - radius
    v_crop = crop(v, top, rows.first + hp + radius, left, cols.first + wp + radius)
    grid = weights.unflatten(1, (queries.row.shape[0], -1))
    grid = grid.index_select(1, rows.slots.flatten()).index_select(2, cols.slots.flatten())
    grouped = grid.unflatten(2, (wp, mx)).unflatten(1, (hp, my)).permute(0, 1, 3, 5, 6, 2, 4)
    hidden = hidden_hoisted(grouped.flatten(5, 6), windows(v_crop, 2 * radius + 1), mlp)
    hidden = hidden.unflatten(1, (my, mx)).unflatten(0, (batch, hp, wp)).permute(0, 1, 3, 2, 4, 5)
    hidden = hidden.flatten(3, 4).flatten(1, 2)
    return hidden.index_select(1, rows.slot_of).index_select(2, cols.slot_of).flatten(1, 2)
