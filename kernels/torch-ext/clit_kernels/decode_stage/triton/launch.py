"""One stage of CLIT in Triton: local_attention's kernel, then coordinate_decode's, tile by tile.

Without gradients the attention weights (H*K*K numbers for each query: 6.5 GB for a 4K picture in the
published size) and the first layer's results exist for one tile of queries at a time. With gradients the
backward pass needs the weights, so the two ops run one after the other on all queries.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from ...calls import StageCall
from ...coordinate_decode.torch import prepare_mlp
from ...coordinate_decode.triton import launch as decode
from ...coordinate_decode.triton.launch import Layers
from ...coordinate_decode.triton.tiles import constants
from ...local_attention.triton import launch as attention
from ...local_attention.triton.tiles import constants as attention_constants
from ...queries import Grid, as_points
from ...tile_table import Target, Tile
from ...triton_support import channels_last, kernel_dtype

TILE_BYTES = 64 << 20
"""Weights and first-layer results of one tile: about the L2 of an H100 (50 MB), so that most of what one
kernel writes the next one finds there; smaller tiles leave processors idle at the end of each kernel."""

TILE_ROWS = 8
"""Feature rows of a tile come in multiples of this: ``kernels.hoisted`` takes several rows at once."""


def decode_stage_triton(
    call: StageCall, *, order: str | None = None, tiles: Mapping[str, Tile] | None = None
) -> Tensor:
    """Residual (B, Q, out) of one stage."""
    inputs = (call.q, call.k, call.v, call.previous, call.base, *call.weights.tensors())
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in inputs):
        weights = attention.local_attention_triton(call.attention(), tiles=tiles)
        return decode.coordinate_decode_triton(call.decoding(weights), order=order, tiles=tiles)
    v, base, previous, stage = call.v, call.base, call.previous, call.weights
    asked = v.dtype if base is None else torch.promote_types(v.dtype, base.dtype)
    dtype = kernel_dtype(v.dtype)
    q, k, v = (channels_last(t.to(dtype))[0] for t in (call.q, call.k, v))
    previous = None if previous is None else previous.to(dtype)
    base = None if base is None else base.to(torch.promote_types(dtype, base.dtype))
    call = call._replace(q=q, k=k, v=v, previous=previous, base=base)
    target = Target.of(v, tiles)
    with torch.no_grad(), torch.autocast(v.device.type, enabled=False):
        mlp = prepare_mlp(stage.mlp_weights, stage.mlp_biases, call.cell, stage.heads, stage.area, dtype)
        layers = Layers.of(mlp)
        if isinstance(call.queries, Grid):
            out = _decode_grid(call, call.queries, layers, order, target)
        else:
            out = _decode_points(call, layers, target)
    return out.to(asked)


def _decode_points(call: StageCall, layers: Layers, target: Target) -> Tensor:
    """Points and rasters, in the direct order."""
    q, k, v, stage = call.q, call.k, call.v, call.weights
    points = as_points(call.queries, q.shape[0])
    out = v.new_empty(v.shape[0], points.count, layers.out, dtype=_out_dtype(call))
    shape = attention_constants(q.shape[1], stage.heads, stage.radius)
    chunk = _queries_per_tile(call, layers)
    for start in range(0, points.count, chunk):
        part = call.part(points, start, start + chunk)
        tables = attention.bias_tables(part.attention())
        weights = attention.forward(q, k, *tables, part.queries, shape, target)
        hidden = decode.first_layer(weights, v, part.queries, layers, None, target)
        previous, base = (None if t is None else t.contiguous() for t in (part.previous, part.base))
        out[:, start : start + chunk] = decode.later_layers(hidden, layers, previous, call.gain, base, target)
    return out


def _decode_grid(call: StageCall, grid: Grid, layers: Layers, order: str | None, target: Target) -> Tensor:
    q, k, v, stage = call.q, call.k, call.v, call.weights
    batch, channels = v.shape[:2]
    rows, cols = grid.row.shape[0], grid.col.shape[0]
    out = v.new_empty(batch, rows, cols, layers.out, dtype=_out_dtype(call))
    if out.numel() == 0:
        return out.flatten(1, 2)
    index = torch.cat((grid.row, grid.col)).tolist()  # the one wait for the device
    row, col = index[:rows], index[rows:]
    tall, wide = row[-1] - row[0] + 1, col[-1] - col[0] + 1
    slots = _longest_run(row) * _longest_run(col)

    window = attention_constants(channels, stage.heads, stage.radius)
    shape = constants(channels, stage.heads, stage.radius, layers.widths[0])
    tile = decode.hoisted_tile(order, target, shape, tall * wide, slots, grid.count)
    if tile is not None:
        padded = decode.padded_map(v, stage.heads, stage.radius, tile["PIXELS_Y"], tile["PIXELS_X"])
    table_y, table_x = attention.bias_tables(call.attention())
    halo = max(stage.radius, 1)
    before, skip = (None if t is None else t.unflatten(1, (rows, cols)) for t in (call.previous, call.base))

    for down, across in _tiles(row, col, tall, wide, slots, _queries_per_tile(call, layers)):
        first_y, last_y = row[down.start], row[down.stop - 1]
        first_x, last_x = col[across.start], col[across.stop - 1]
        top, left = max(first_y - halo, 0), max(first_x - halo, 0)
        crop = (..., slice(top, last_y + halo + 1), slice(left, last_x + halo + 1))
        part = Grid(
            grid.row[down] - top, grid.row_offset[down], grid.col[across] - left, grid.col_offset[across]
        )
        weights = attention.forward(q[crop], k[crop], table_y[down], table_x[across], part, window, target)
        if tile is not None:
            size = (last_y - first_y + 1, last_x - first_x + 1)
            own = decode.Slots.between(grid.row[down] - first_y, grid.col[across] - first_x, size, slots)
            hidden = decode.hoisted(
                weights, padded[:, first_y:, first_x:], size, own, part, layers, shape, tile
            )
        else:
            hidden = decode.direct(weights, v[crop], part, layers, shape, target)
        added = [None if t is None else t[:, down, across].flatten(1, 2).contiguous() for t in (before, skip)]
        values = decode.later_layers(hidden, layers, added[0], call.gain, added[1], target)
        out[:, down, across] = values.unflatten(1, (down.stop - down.start, -1))
    return out.flatten(1, 2)


def _out_dtype(call: StageCall) -> torch.dtype:
    return call.v.dtype if call.base is None else call.base.dtype


def _queries_per_tile(call: StageCall, layers: Layers) -> int:
    numbers = call.weights.heads * call.weights.area + layers.widths[0]
    return max(1, TILE_BYTES // (numbers * call.v.element_size() * call.v.shape[0]))


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
