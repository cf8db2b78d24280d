"""Coordinate decoding in Triton: the launchers of its two halves, first layer and the layers after it."""

from typing import NamedTuple

from torch import Tensor

from .. import settings
from ..places import Places, axis_starts
from ..queries import Grid, Queries
from ..triton_support import DTYPES, LAUNCH, channels_last, dot_precision, on_device
from . import kernel, kernel_mlp, tiles
from .prepare import Layers, padded_map, segments

DIRECT_SPEED = 4
"""How many times as many multiplications a second ``direct`` is taken to do as ``hoisted``.

An estimate, not a measurement: ``direct`` is one large matrix product, while ``hoisted`` reads W_1 from L2
for every 32 feature pixels and passes U through shared memory.
"""


OVERHANG = 64
"""Feature pixels beyond the map that a tile may cover."""


class Slots(NamedTuple):
    """The queries of each feature pixel of a grid, as ``kernel.hoisted`` reads them.

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

        A band of rows has up to ``radius`` rows of the map on each side that no query is nearest to: where
        the scale of the columns fits what is left, the rows are taken to have the same.
        """
        per_row, per_col = -(-grid.row.shape[0] // h), -(-grid.col.shape[0] // w)
        if per_row < per_col <= -(-grid.row.shape[0] // max(1, h - 2 * radius)):
            per_row = per_col
        return cls.between(grid.row, grid.col, (h, w), per_row * per_col)


def prefer_hoisted(pixels: int, slots: int, count: int, channels: int, heads: int, slot_tile: int) -> bool:
    """Whether ``hoisted`` is taken to be faster than ``direct``.

    ``pixels`` feature pixels of about ``slots`` queries each, walked ``slot_tile`` at a time, serve
    ``count``. Per feature pixel and walk C multiplications for U and H for each slot, against C for each
    query, all times K*K*D; weighed by DIRECT_SPEED.
    """
    walks = -(-slots // slot_tile)
    return pixels * walks * (channels + slot_tile * heads) * DIRECT_SPEED < count * channels


def first_layer(weights: Tensor, v: Tensor, queries: Queries, layers: Layers) -> Tensor:
    """Hidden (B, Q, D rounded up) before its GELU, from weights (B, Q, H, K*K) and v (B, C, h, w)."""
    shape = shape_of(weights, v, layers)
    h, w = v.shape[-2:]
    if isinstance(queries, Grid):
        radius = shape["SIDE"] // 2
        slots = Slots.of(queries, h, w, radius)
        tile = hoisted_tile(v, shape, slots)
        arch, dtype = settings.arch_of(v.device), DTYPES[v.dtype]
        if tiles.hoisted_fits(tile, arch, dtype, shape) and prefer_hoisted(
            h * w, slots.most, queries.count, v.shape[1], shape["HEADS"], tile["SLOTS"]
        ):
            wide = padded_map(v, shape["HEADS"], radius, tile["PIXELS_Y"], tile["PIXELS_X"])
            return hoisted(weights, wide, (h, w), slots, queries, layers, shape, tile)
    return direct(weights, v, queries, layers, shape)


def shape_of(weights: Tensor, v: Tensor, layers: Layers) -> dict[str, int]:
    """The kernels' constants for these tensors."""
    heads, area = weights.shape[2:]
    return tiles.constants(v.shape[1], heads, (int(area**0.5) - 1) // 2, layers.first.shape[2])


def hoisted_tile(v: Tensor, shape: dict[str, int], slots: Slots) -> settings.Tile:
    """The tile of ``hoisted`` for a map like ``v``."""
    return tiles.tile("hoisted", settings.arch_of(v.device), DTYPES[v.dtype], shape, slots.most)


def hoisted(
    weights: Tensor, wide: Tensor, size: tuple[int, int], slots: Slots, grid: Grid, layers: Layers,
    shape: dict[str, int], tile: settings.Tile,
) -> Tensor:  # fmt: skip
    """``first_layer`` of a grid on a map of ``size`` in the hoisted order.

    ``wide`` is the map with its margin (``prepare.padded_map``), or the part of it that begins ``radius``
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
        kernel.hoisted[(programs, batch)](
            weights, wide, layers.first, layers.constant, slots.rows, slots.cols, hidden,
            count, grid.col.shape[0], tiles_x, slot_programs, *wide.stride()[:3], **known,
            PRODUCTS=tiles.PRODUCTS, PRECISION=dot_precision(wide.dtype), **tile, **LAUNCH,
        )  # fmt: skip
    return hidden


def direct(weights: Tensor, v: Tensor, queries: Queries, layers: Layers, shape: dict[str, int]) -> Tensor:
    """``first_layer`` of any queries in the direct order."""
    batch, count = weights.shape[:2]
    hidden = weights.new_empty(batch, count, shape["HIDDEN"])
    if hidden.numel() == 0:
        return hidden
    places, (v, strides) = Places.of(queries), channels_last(v)
    tile = tiles.tile("direct", settings.arch_of(v.device), DTYPES[v.dtype], shape)
    programs = -(-count // tile["QUERIES"]) * (shape["HIDDEN"] // tile["COLUMNS"])
    with on_device(weights):
        kernel.direct[(programs, batch)](
            weights, v, layers.first, layers.constant, places.where, places.col, hidden,
            count, *v.shape[-2:], places.cols, *strides, **shape, MODE=places.mode,
            PRECISION=dot_precision(v.dtype), **tile, **LAUNCH,
        )  # fmt: skip
    return hidden


def later_layers(
    hidden: Tensor,
    layers: Layers,
    previous: Tensor | None,
    gain: float,
    base: Tensor | None,
    kept: list[Tensor] | None = None,
) -> Tensor:
    """Outputs (B, Q, out), in the dtype of ``base``, from the first layer's ``hidden`` (B, Q, D rounded up).

    ``hidden`` is overwritten. Where ``kept`` is a list, it is not, and every later hidden layer before its
    GELU, (B, Q, width rounded up), is appended to the list.
    """
    batch, count = hidden.shape[:2]
    rows = batch * count
    arch, dtype = settings.arch_of(hidden.device), DTYPES[hidden.dtype]
    x = hidden
    for start, stop in segments(layers, kept is not None):
        widths, last = layers.widths[start : stop + 1], stop == len(layers.widths) - 1
        if last:
            y = x.new_empty(batch, count, layers.out, dtype=x.dtype if base is None else base.dtype)
        else:
            y = x if kept is None and widths[-1] == x.shape[-1] else x.new_empty(batch, count, widths[-1])
        if rows:
            tile = tiles.mlp_tile(arch, dtype, widths)
            weight, bias = layers.later(start)
            with on_device(x):
                kernel_mlp.mlp[(-(-rows // tile["ROWS"]),)](
                    x, weight, bias, x if previous is None else previous, x if base is None else base, y,
                    rows, gain, WIDTHS=widths, OUT=y.shape[-1], LAST=last,
                    HAS_PREVIOUS=previous is not None, HAS_BASE=base is not None,
                    PRECISION=dot_precision(x.dtype), **tile, **LAUNCH,
                )  # fmt: skip
        if kept is not None and not last:
            kept.append(y)
        x = y
    return x
