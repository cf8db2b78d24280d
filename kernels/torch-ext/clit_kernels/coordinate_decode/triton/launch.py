"""Coordinate decoding in Triton as a differentiable function: its layers laid out, its launchers."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ...backends import explained
from ...calls import DecodeCall
from ...orders import takes_hoisted
from ...queries import Grid, Queries
from ...query_pointers import QueryPointers, axis_starts
from ...tile_table import Target, Tile
from ...triton_support import (
    LAUNCH,
    channels_last,
    dot_precision,
    kernel_dtype,
    on_device,
    power_of_two,
    width_block,
)
from ..torch import MLP, prepare_mlp
from . import kernels, tiles
from .backward import backward_first, backward_later, backward_queries

CHAINED = 1 << 13
"""Numbers of a layer's matrix up to which it is read whole: 16 KiB in half precision."""

OVERHANG = 64
"""Feature pixels beyond the map that a tile may cover."""


class Options(NamedTuple):
    """What a call says besides its differentiable tensors, and how it is computed."""

    queries: Queries
    gain: float
    layers: int
    order: str | None
    target: Target


def coordinate_decode_triton(
    call: DecodeCall, *, order: str | None = None, tiles: Mapping[str, Tile] | None = None
) -> Tensor:
    """Values (B, Q, out); see the reference. Differentiable once, in everything but ``cell``."""
    v, base = call.v, call.base
    dtype = kernel_dtype(v.dtype)
    attention, v_cast = call.attention.to(dtype), v.to(dtype)
    previous = None if call.previous is None else call.previous.to(dtype)
    asked = v.dtype if base is None else torch.promote_types(v.dtype, base.dtype)
    base = None if base is None else base.to(torch.promote_types(dtype, base.dtype))
    options = Options(call.queries, call.gain, len(call.mlp_weights), order, Target.of(v_cast, tiles))
    with torch.autocast(v.device.type, enabled=False):
        out = _CoordinateDecode.apply(
            attention, v_cast, previous, base, call.cell, options, *call.mlp_weights, *call.mlp_biases
        )
    return out.to(asked)


class _CoordinateDecode(torch.autograd.Function):
    """Keeps its inputs and the hidden layers before their GELUs; the scaled values are computed again."""

    @staticmethod
    def forward(
        ctx: Any, weights: Tensor, v: Tensor, previous: Tensor | None, base: Tensor | None, cell: Tensor,
        options: Options, *mlp: Tensor,
    ) -> Tensor:  # fmt: skip
        weights = weights.contiguous()
        previous, base = (None if t is None else t.contiguous() for t in (previous, base))
        layers = _layers(mlp, weights, v, cell)
        hidden = first_layer(weights, v, options.queries, layers, options.order, options.target)
        kept: list[Tensor] | None = [hidden] if any(ctx.needs_input_grad) else None
        out = later_layers(hidden, layers, previous, options.gain, base, options.target, kept)
        ctx.save_for_backward(weights, v, cell, *(kept or ()), *mlp)
        ctx.options = options
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weights, v, cell, *saved = ctx.saved_tensors
        queries, gain, count, _, target = ctx.options
        kept, mlp = saved[: count - 1], saved[count - 1 :]
        needs = ctx.needs_input_grad
        to_first = None
        with explained("coordinate_decode"), torch.autocast(v.device.type, enabled=False):
            grad_hidden, grad_weights, grad_biases = backward_later(grad.to(v.dtype), kept, mlp[:count])
            layers = _layers(mlp, weights, v, cell)
            grad_hidden = F.pad(grad_hidden, (0, layers.widths[0] - grad_hidden.shape[-1])).contiguous()
            to_weights, to_v = backward_queries(
                grad_hidden, weights, v, queries, layers.first, target, needs[0], needs[1]
            )
            if needs[6]:
                to_first = backward_first(grad_hidden, weights, v, queries, target, mlp[0].shape[0], cell)
        to_mlp = [to_first, *grad_weights, grad_hidden.flatten(0, 1).sum(0)[: mlp[0].shape[0]], *grad_biases]
        return (
            to_weights,
            to_v,
            grad * gain if needs[2] else None,
            grad if needs[3] else None,
            None,
            None,
            *(None if g is None else g.to(w.dtype) for g, w in zip(to_mlp, mlp, strict=True)),
        )


def _layers(mlp: tuple[Tensor, ...] | list[Tensor], weights: Tensor, v: Tensor, cell: Tensor) -> "Layers":
    half, (heads, area) = len(mlp) // 2, weights.shape[2:]
    return Layers.of(prepare_mlp(mlp[:half], mlp[half:], cell, heads, area, v.dtype))


class Layers(NamedTuple):
    """An ``MLP`` as the kernels read it, widened to powers of two by zeros.

    Attributes:
        first: (H*K*K rounded up, c rounded up, D rounded up) one block of the first layer per head and tap.
        constant: (B, D rounded up) float32, the part of the first layer that no query changes.
        weight: the (in, out) matrices of the layers after the first, one after the other.
        bias: float32, likewise.
        widths: the hidden layers and, last, the outputs, as widened; ``out``: output channels.
    """

    first: Tensor
    constant: Tensor
    weight: Tensor
    bias: Tensor
    widths: tuple[int, ...]
    out: int

    @classmethod
    def of(cls, mlp: MLP) -> "Layers":
        """Those of ``mlp``, which has two layers or more."""
        outs = (mlp.direct.shape[0], *(w.shape[0] for w in mlp.weights))
        widths = tuple(max(16, power_of_two(n)) for n in outs)
        blocks, width = mlp.hoisted.shape[:2]
        rows = -(-blocks // tiles.PRODUCTS) * tiles.PRODUCTS
        later = zip(mlp.weights, widths[:-1], widths[1:], strict=True)
        weights = [_widened(w.T, before, after).flatten() for w, before, after in later]
        biases = [_widened(b.float(), n) for b, n in zip(mlp.biases, widths[1:], strict=True)]
        return cls(
            _widened(mlp.hoisted, rows, width_block(width), widths[0]),
            _widened(mlp.constant.float(), mlp.constant.shape[0], widths[0]),
            torch.cat(weights),
            torch.cat(biases),
            widths,
            outs[-1],
        )

    def later(self, layer: int) -> tuple[Tensor, Tensor]:
        """``weight`` and ``bias`` from the layer between hidden layers ``layer`` and ``layer`` + 1 on."""
        pairs = zip(self.widths[:layer], self.widths[1 : layer + 1], strict=True)
        return self.weight[sum(a * b for a, b in pairs) :], self.bias[sum(self.widths[1 : layer + 1]) :]


def segments(widths: Sequence[int], one_by_one: bool) -> list[tuple[int, int]]:
    """The layers after the first that one launch takes, as (start, stop) indices into ``Layers.widths``.

    A layer with a matrix that fits on chip joins the launch before it, unless ``one_by_one``: then every
    hidden layer is written.
    """
    pairs = list(pairwise(widths))
    starts = [i for i, (a, b) in enumerate(pairs) if i == 0 or one_by_one or a * b > CHAINED]
    return list(zip(starts, [*starts[1:], len(pairs)], strict=True))


def padded_map(v: Tensor, heads: int, radius: int, below: int, right: int) -> Tensor:
    """Map (B, C, h, w) as (B, h + 2 radius + below, w + 2 radius + right, H * c rounded up), zeros around it.

    One copy; in exchange the kernel reads windows without asking where the map ends.
    """
    batch, channels, h, w = v.shape
    width = channels // heads
    block = width_block(width)
    size = (batch, h + 2 * radius + below, w + 2 * radius + right, heads, block)
    out = v.new_zeros(size)
    inner = out[:, radius : radius + h, radius : radius + w, :, :width]
    inner.copy_(v.permute(0, 2, 3, 1).unflatten(-1, (heads, width)))
    return out.flatten(3)


def _widened(tensor: Tensor, *sizes: int) -> Tensor:
    """``tensor`` with zeros behind, contiguous, as large as ``sizes``."""
    missing = [n - m for n, m in zip(reversed(sizes), reversed(tensor.shape), strict=True)]
    if not any(missing):
        return tensor.contiguous()
    return F.pad(tensor, [amount for n in missing for amount in (0, n)])


class Slots(NamedTuple):
    """The queries of each feature pixel of a grid, as ``kernels.hoisted`` reads them.

    ``rows`` (h + 1 and more) int32: grid rows [rows[y], rows[y + 1]) are nearest to feature row y, and none
    to rows below the map; likewise ``cols``. ``most``: about how many queries a pixel has.
    """

    rows: Tensor
    cols: Tensor
    most: int

    @classmethod
    def between(cls, row: Tensor, col: Tensor, size: tuple[int, int], most: int) -> "Slots":
        """Those of rows ``row`` by columns ``col`` (sorted) on a map of ``size``."""
        rows, cols = (axis_starts(i, n + OVERHANG) for i, n in zip((row, col), size, strict=True))
        return cls(rows, cols, most)

    @classmethod
    def of(cls, grid: Grid, h: int, w: int, radius: int) -> "Slots":
        """Those of ``grid`` on an h x w map; nothing waits for the device, so ``most`` comes from sizes.

        A band's outer ``radius`` rows have no queries, so rows / h underestimates: the columns' count is used
        where it fits h - 2 radius.
        """
        per_row, per_col = -(-grid.row.shape[0] // h), -(-grid.col.shape[0] // w)
        if per_row < per_col <= -(-grid.row.shape[0] // max(1, h - 2 * radius)):
            per_row = per_col
        return cls.between(grid.row, grid.col, (h, w), per_row * per_col)


def first_layer(
    weights: Tensor, v: Tensor, queries: Queries, layers: Layers, order: str | None, target: Target
) -> Tensor:
    """Hidden (B, Q, D rounded up) before its GELU, from weights (B, Q, H, K*K) and v (B, C, h, w)."""
    shape = tiles.shape_of(weights, v, layers.first.shape[2])
    h, w = v.shape[-2:]
    if isinstance(queries, Grid):
        radius = shape["SIDE"] // 2
        slots = Slots.of(queries, h, w, radius)
        tile = hoisted_tile(order, target, shape, h * w, slots.most, queries.count)
        if tile is not None:
            wide = padded_map(v, shape["HEADS"], radius, tile["PIXELS_Y"], tile["PIXELS_X"])
            return hoisted(weights, wide, (h, w), slots, queries, layers, shape, tile)
    return direct(weights, v, queries, layers, shape, target)


def hoisted_tile(
    order: str | None, target: Target, shape: dict[str, int], pixels: int, slots: int, count: int
) -> dict[str, int] | None:
    """The tile of ``hoisted``, or None where the direct order is taken.

    Where ``order`` is None, the direct order is taken if it needs less work, or if the tile does not fit the
    chip. ``pixels`` feature pixels of about ``slots`` queries each serve ``count`` queries.
    """
    tile = tiles.tile("hoisted", target, shape, slots)
    walks = -(-slots // tile["SLOTS"])
    taken = takes_hoisted(
        order, "triton", pixels=pixels, slots=walks * tile["SLOTS"], count=count, heads=shape["HEADS"],
        channels=shape["HEADS"] * shape["WIDTH"], walks=walks,
    )  # fmt: skip
    fits = order == "hoisted" or tiles.hoisted_fits(tile, target, shape)
    return tile if taken and fits else None


def hoisted(
    weights: Tensor, wide: Tensor, size: tuple[int, int], slots: Slots, grid: Grid, layers: Layers,
    shape: dict[str, int], tile: dict[str, int],
) -> Tensor:  # fmt: skip
    """``first_layer`` of a grid on a map of ``size`` in the hoisted order.

    ``wide`` is the map with its margin (``padded_map``), or the part of it that begins ``radius``
    rows and columns before the grid's map.
    """
    batch, count = weights.shape[:2]
    hidden = weights.new_empty(batch, count, shape["HIDDEN"])
    if hidden.numel() == 0:
        return hidden
    tiles_y, tiles_x = -(-size[0] // tile["PIXELS_Y"]), -(-size[1] // tile["PIXELS_X"])
    slot_programs = -(-slots.most // tile["SLOTS"])
    programs = tiles_y * tiles_x * slot_programs * (shape["HIDDEN"] // tile["COLUMNS"])
    known = {name: value for name, value in shape.items() if name != "WIDTH"}
    with on_device(weights):
        kernels.hoisted[(programs, batch)](
            weights, wide, layers.first, layers.constant, slots.rows, slots.cols, hidden,
            count, grid.col.shape[0], tiles_x, slot_programs, *wide.stride()[:3], **known,
            PRODUCTS=tiles.PRODUCTS, PRECISION=dot_precision(wide.dtype), **tile, **LAUNCH,
        )  # fmt: skip
    return hidden


def direct(
    weights: Tensor, v: Tensor, queries: Queries, layers: Layers, shape: dict[str, int], target: Target
) -> Tensor:
    """``first_layer`` of any queries in the direct order."""
    batch, count = weights.shape[:2]
    hidden = weights.new_empty(batch, count, shape["HIDDEN"])
    if hidden.numel() == 0:
        return hidden
    pointers, (v, strides) = QueryPointers.of(queries), channels_last(v)
    tile = tiles.tile("direct", target, shape)
    programs = -(-count // tile["QUERIES"]) * (shape["HIDDEN"] // tile["COLUMNS"])
    with on_device(weights):
        kernels.direct[(programs, batch)](
            weights, v, layers.first, layers.constant, pointers.where, pointers.col, hidden,
            count, *v.shape[-2:], pointers.cols, *strides, **shape, MODE=pointers.mode,
            PRECISION=dot_precision(v.dtype), **tile, **LAUNCH,
        )  # fmt: skip
    return hidden


def later_layers(
    hidden: Tensor,
    layers: Layers,
    previous: Tensor | None,
    gain: float,
    base: Tensor | None,
    target: Target,
    kept: list[Tensor] | None = None,
) -> Tensor:
    """Outputs (B, Q, out), in the dtype of ``base``, from the first layer's ``hidden`` (B, Q, D rounded up).

    ``hidden`` is overwritten. Where ``kept`` is a list, it is not, and every later hidden layer before its
    GELU, (B, Q, width rounded up), is appended to the list.
    """
    batch, count = hidden.shape[:2]
    rows = batch * count
    x = hidden
    for start, stop in segments(layers.widths, kept is not None):
        widths, last = layers.widths[start : stop + 1], stop == len(layers.widths) - 1
        if last:
            y = x.new_empty(batch, count, layers.out, dtype=x.dtype if base is None else base.dtype)
        else:
            y = x if kept is None and widths[-1] == x.shape[-1] else x.new_empty(batch, count, widths[-1])
        if rows:
            tile = tiles.mlp_tile(target, widths)
            weight, bias = layers.later(start)
            with on_device(x):
                kernels.mlp[(-(-rows // tile["ROWS"]),)](
                    x, weight, bias, x if previous is None else previous, x if base is None else base, y,
                    rows, gain, WIDTHS=widths, OUT=y.shape[-1], LAST=last,
                    HAS_PREVIOUS=previous is not None, HAS_BASE=base is not None,
                    PRECISION=dot_precision(x.dtype), **tile, **LAUNCH,
                )  # fmt: skip
        if kept is not None and not last:
            kept.append(y)
        x = y
    return x
