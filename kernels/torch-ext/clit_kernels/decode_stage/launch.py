"""One stage of CLIT in Triton: local_attention's kernel, then coordinate_decode's, tile by tile.

Without gradients the attention weights (H*K*K numbers for each query: 6.5 GB for a 4K picture in the
published size) and the first layer's results exist for one tile of queries at a time. With gradients the
weights are what the backward pass needs, and the two ops follow each other whole.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from .. import settings
from ..coordinate_decode import launch as decode
from ..coordinate_decode import tiles as decode_tiles
from ..coordinate_decode.function import coordinate_decode_triton
from ..coordinate_decode.prepare import Layers, padded_map, prepare
from ..local_attention import launch as attention
from ..queries import Grid, Points, Queries, Raster, as_points
from ..triton_support import DTYPES, channels_last, kernel_dtype
from .weights import StageWeights

TILE_BYTES = 64 << 20
"""Weights and first-layer results of one tile: about the L2 of an H100 (50 MB), so that most of what one
kernel writes the next one finds there; smaller tiles leave processors idle at the end of each kernel."""

TILE_ROWS = 8
"""Feature rows of a tile come in multiples of this: ``kernel.hoisted`` takes several rows at once."""


def decode_stage_triton(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    queries: Queries,
    stage: StageWeights,
    cell: Tensor,
    *,
    previous: Tensor | None = None,
    gain: float = 0.75,
    base: Tensor | None = None,
) -> Tensor:
    """Residual (B, Q, out) of one stage from its maps (B, C, h, w)."""
    inputs = (q, k, v, previous, base, *stage.tensors())
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in inputs):
        weights = attention.local_attention_triton(
            q, k, queries, stage.proj_weight, stage.proj_bias, heads=stage.heads, radius=stage.radius
        )
        return coordinate_decode_triton(
            weights, v, queries, stage.mlp_weights, stage.mlp_biases, cell,
            previous=previous, gain=gain, base=base,
        )  # fmt: skip
    asked = v.dtype if base is None else torch.promote_types(v.dtype, base.dtype)
    dtype = kernel_dtype(v.dtype)
    q, k, v = (channels_last(t.to(dtype))[0] for t in (q, k, v))
    previous = None if previous is None else previous.to(dtype)
    base = None if base is None else base.to(torch.promote_types(dtype, base.dtype))
    with torch.no_grad(), torch.autocast(v.device.type, enabled=False):
        layers = prepare(stage.mlp_weights, stage.mlp_biases, cell, stage.heads, stage.area, dtype)
        if isinstance(queries, Grid):
            out = _decode_grid(q, k, v, queries, stage, layers, previous, gain, base)
        else:
            out = _decode_points(q, k, v, queries, stage, layers, previous, gain, base)
    return out.to(asked)


def _decode_points(
    q: Tensor, k: Tensor, v: Tensor, queries: Points | Raster, stage: StageWeights, layers: Layers,
    previous: Tensor | None, gain: float, base: Tensor | None,
) -> Tensor:  # fmt: skip
    points = as_points(queries, q.shape[0])
    out = v.new_empty(v.shape[0], points.count, layers.out, dtype=_out_dtype(v, base))
    chunk = _queries_per_tile(v, stage, layers)
    for start in range(0, points.count, chunk):
        here = slice(start, start + chunk)
        part = Points(points.index[:, here], points.offset[:, here])
        table_y, table_x = attention.bias_tables(part, stage.proj_weight, stage.proj_bias, stage.radius)
        weights = attention.forward(q, k, table_y, table_x, part, stage.heads, stage.radius)
        hidden = decode.first_layer(weights, v, part, layers)
        before, skip = (None if t is None else t[:, here].contiguous() for t in (previous, base))
        out[:, here] = decode.later_layers(hidden, layers, before, gain, skip)
    return out


def _decode_grid(
    q: Tensor, k: Tensor, v: Tensor, grid: Grid, stage: StageWeights, layers: Layers,
    previous: Tensor | None, gain: float, base: Tensor | None,
) -> Tensor:  # fmt: skip
    batch, channels = v.shape[:2]
    rows, cols = grid.row.shape[0], grid.col.shape[0]
    out = v.new_empty(batch, rows, cols, layers.out, dtype=_out_dtype(v, base))
    if out.numel() == 0:
        return out.flatten(1, 2)
    index = torch.cat((grid.row, grid.col)).tolist()  # the one wait for the device
    row, col = index[:rows], index[rows:]
    tall, wide = row[-1] - row[0] + 1, col[-1] - col[0] + 1
    slots = _longest_run(row) * _longest_run(col)

    shape = decode_tiles.constants(channels, stage.heads, stage.radius, layers.widths[0])
    arch, dtype = settings.arch_of(v.device), DTYPES[v.dtype]
    tile = decode_tiles.tile("hoisted", arch, dtype, shape, slots)
    hoist = decode_tiles.hoisted_fits(tile, arch, dtype, shape) and decode.prefer_hoisted(
        tall * wide, slots, grid.count, channels, stage.heads, tile["SLOTS"]
    )
    if hoist:
        padded = padded_map(v, stage.heads, stage.radius, tile["PIXELS_Y"], tile["PIXELS_X"])
    table_y, table_x = attention.bias_tables(grid, stage.proj_weight, stage.proj_bias, stage.radius)
    halo = max(stage.radius, 1)
    before, skip = (None if t is None else t.unflatten(1, (rows, cols)) for t in (previous, base))

    for down, across in _tiles(row, col, tall, wide, slots, _queries_per_tile(v, stage, layers)):
        first_y, last_y = row[down.start], row[down.stop - 1]
        first_x, last_x = col[across.start], col[across.stop - 1]
        top, left = max(first_y - halo, 0), max(first_x - halo, 0)
        crop = (..., slice(top, last_y + halo + 1), slice(left, last_x + halo + 1))
        part = Grid(
            grid.row[down] - top, grid.row_offset[down], grid.col[across] - left, grid.col_offset[across]
        )
        weights = attention.forward(
            q[crop], k[crop], table_y[down], table_x[across], part, stage.heads, stage.radius
        )
        if hoist:
            size = (last_y - first_y + 1, last_x - first_x + 1)
            own = decode.Slots.between(grid.row[down] - first_y, grid.col[across] - first_x, size, slots)
            hidden = decode.hoisted(
                weights, padded[:, first_y:, first_x:], size, own, part, layers, shape, tile
            )
        else:
            hidden = decode.direct(weights, v[crop], part, layers, shape)
        added = [None if t is None else t[:, down, across].flatten(1, 2).contiguous() for t in (before, skip)]
        values = decode.later_layers(hidden, layers, added[0], gain, added[1])
        out[:, down, across] = values.unflatten(1, (down.stop - down.start, -1))
    return out.flatten(1, 2)


def _out_dtype(v: Tensor, base: Tensor | None) -> torch.dtype:
    return v.dtype if base is None else base.dtype


def _queries_per_tile(v: Tensor, stage: StageWeights, layers: Layers) -> int:
    numbers = stage.heads * stage.area + layers.widths[0]
    return max(1, TILE_BYTES // (numbers * v.element_size() * v.shape[0]))


def _longest_run(index: list[int]) -> int:
    """How often the most frequent entry of a sorted list occurs."""
    longest = start = 0
    for i, value in enumerate(index):
        start = start if value == index[start] else i
        longest = max(longest, i - start + 1)
    return longest


def _tiles(
    row: list[int], col: list[int], tall: int, wide: int, slots: int, limit: int
) -> Iterator[tuple[slice, slice]]:
    """Cut a grid into rectangles of at most ``limit`` queries, between feature pixels where they allow it.

    ``row`` and ``col``: nearest feature pixels, of ``tall`` x ``wide`` in all, each with up to
    ``slots`` queries.
    """
    pixels = max(1, limit // slots)
    across = min(wide, max(1, pixels // min(TILE_ROWS, tall)))
    down = max(1, pixels // across)
    down = down // TILE_ROWS * TILE_ROWS or down
    spans = list(_spans(col, across, limit))
    widest = max(span.stop - span.start for span in spans)
    for rows in _spans(row, down, max(1, limit // widest)):
        for cols in spans:
            yield rows, cols


def _spans(index: list[int], pixels: int, limit: int) -> Iterator[slice]:
    """Positions of a sorted index in spans over ``pixels`` entries each, none longer than ``limit``."""
    start = 0
    for i in range(1, len(index) + 1):
        ended = i == len(index) or (index[i] - index[0]) // pixels != (index[start] - index[0]) // pixels
        if ended or i - start == limit:
            yield slice(start, i)
            start = i
