"""Colours by predicted weights, Meta-SR's way and ITSRN's: an MLP turns a position into a linear map.

    colour(q) = f(p) W(q),  W(q) = M_0 + sum_j h_j(q) M_j

f(p) are the 3x3 features around a feature pixel p, 9C numbers; h(q) are the J numbers of the MLP's last
hidden layer, and its last layer makes W(q), 9C x 3, of them. W depends on the position relative to p and on
nothing else of the picture, so two orders of the same sums need not make it for every position:

by phase
    A grid at scale a/b has a different offsets along an axis. W is made once for each pair of them.
by pixel
    f(p) M_j, 3 (J + 1) numbers, are made once for each feature pixel. Serves any positions.

Feature maps come ``bordered``: channels last and with a row and column of zeros around them.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..axis import Axis
from ..geometry import Pixels
from .base import Progress
from .fit import colors_from
from .mlp import MLP
from .positions import LEAST_PIXELS, Place, read

MOST_PHASES = 1 << 11
"""Pairs of phases up to which colours are made by phase: 14 MB of weights."""

PIXELS_A_PHASE = 4
"""Feature pixels for each of those at least: below, their weights cost more than they spare (measured)."""

BLOCK_SIDE = 48
"""Feature pixels along a block's side, up to twice as many: 5 MB of features, 7 MB of their products."""

MOST_BLOCK = 512
"""Output pixels along a block's side, up to twice as many."""

LIST_PART = 1 << 11
"""Listed positions that are worked on at once: 7 MB of products."""

MOST_LOOKED_UP = 1 << 16
"""Feature pixels of a batch whose products are kept for a list of positions: 200 MB."""

LEAST_ROWS = 64
"""Rows of a product of matrices at least; see ``Axis.grown``."""


class Line(NamedTuple):
    """Rows or columns of a window: the feature pixel that each reads, and which of the offsets it has."""

    pixel: list[int]
    phase: list[int]

    def part(self, start: int, stop: int) -> "Line":
        """Positions [start, stop)."""
        return Line(self.pixel[start:stop], self.phase[start:stop])

    def groups(self) -> Iterator[tuple[list[int], list[int], list[int]]]:
        """Feature pixels with the same phases: (those pixels, their positions, one pixel's phases)."""
        found: dict[tuple[int, ...], tuple[list[int], list[int]]] = {}
        of_pixel: dict[int, list[int]] = {}
        for i, pixel in enumerate(self.pixel):
            of_pixel.setdefault(pixel, []).append(i)
        for pixel, positions in of_pixel.items():
            pixels, all_positions = found.setdefault(tuple(self.phase[i] for i in positions), ([], []))
            pixels.append(pixel)
            all_positions += positions
        for phases, (pixels, all_positions) in found.items():
            yield pixels, all_positions, list(phases)


class Lines(NamedTuple):
    """An axis of a window: a line for each corner, and the offsets that their phases stand for."""

    corners: tuple[Line, ...]
    offsets: list[float]

    @classmethod
    def of(cls, corners: Sequence[list[tuple[int, int]]], unit: int) -> "Lines":
        """From each corner's pixels and offsets, these in whole numbers of 1 / ``unit``."""
        known: dict[int, int] = {}
        lines = [
            Line([p for p, _ in corner], [known.setdefault(o, len(known)) for _, o in corner])
            for corner in corners
        ]
        return cls(tuple(lines), [offset / unit for offset in known])

    def place(self, corner: int, like: Tensor) -> Place:
        """A corner's pixels (R,) and offsets (R,), these in the type of ``like``."""
        line = self.corners[corner]
        offsets = torch.tensor([self.offsets[phase] for phase in line.phase], dtype=torch.float64)
        return Place(torch.tensor(line.pixel, device=like.device), offsets.to(like.device, like.dtype))


def by_phase_pays(where: Pixels, h: int, w: int) -> bool:
    """Whether a window of an h x w map goes by phase: the same for all windows at a scale."""
    return where.rows.phases(h) * where.cols.phases(w) <= min(MOST_PHASES, h * w // PIXELS_A_PHASE)


def bordered(features: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, h + 2, w + 2, C) with zeros around."""
    return F.pad(features.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))


def unfolded(bordered: Tensor) -> Tensor:
    """The 3x3 features around each pixel, (B, h + 2, w + 2, C) -> (B, h, w, 9C), taps before channels."""
    taps = bordered.unfold(1, 3, 1).unfold(2, 3, 1)
    return taps.permute(0, 1, 2, 4, 5, 3).flatten(3)


@torch.no_grad()
def begin_as(imnet: MLP, features: Tensor, image: Tensor) -> None:
    """Start with one map of the features for all positions; see ``Decoder.begin``."""
    last = imnet.linears()[-1]
    last.weight.zero_()
    last.bias.copy_(colors_from(features, image, 3).T.flatten())


def last_layer(imnet: MLP) -> tuple[Tensor, Tensor]:
    """The last layer's weight (9C, 3, J) and bias (9C, 3), rows in ``unfolded``'s order.

    The authors' order is channels before taps.
    """
    last = imnet.linears()[-1]
    weight = last.weight.unflatten(0, (-1, 9, 3)).transpose(0, 1).flatten(0, 1)
    return weight, last.bias.unflatten(0, (-1, 9, 3)).transpose(0, 1).flatten(0, 1)


def hidden(imnet: MLP, given: Tensor) -> Tensor:
    """h(q): the last hidden layer (..., J) for inputs (..., K), the first layer in the inputs' type."""
    first = imnet.linears()[0]
    x = F.linear(given, first.weight.to(given.dtype), first.bias.to(given.dtype)).to(first.weight.dtype)
    found: Tensor = imnet.layers[1:-1](x)
    return found


def evaluated(mlp: MLP, given: Tensor) -> Tensor:
    """The one output (...) of an MLP for inputs (..., K), its last layer too in the inputs' type."""
    last = mlp.linears()[-1]
    # MKL sums products with one column in an order that depends on the number of rows: here there are two
    weight = F.pad(last.weight.to(given.dtype), (0, 0, 0, 1))
    return F.linear(hidden(mlp, given).to(given.dtype), weight)[..., 0] + last.bias.to(given.dtype)


def phase_weights(imnet: MLP, given: Tensor) -> Tensor:
    """W (Dy, Dx, 9C, 3) of every pair of phases, from the MLP's inputs (Dy, Dx, K)."""
    weight, bias = (t.to(given.dtype) for t in last_layer(imnet))
    x = hidden(imnet, _at_least(given.flatten(0, 1))).to(given.dtype)
    x = (x @ weight.flatten(0, 1).T + bias.flatten())[: given.shape[0] * given.shape[1]]
    return x.view(*given.shape[:2], *bias.shape)


def by_phase(around: Tensor, row: Line, col: Line, weights: Tensor) -> Tensor:
    """Colours (B, R, S, 3) of a block, from W of every pair of phases.

    Args:
        around: (B, h, w, 9C) ``unfolded``.
        row, col: pixels of it, and phases.
        weights: (Dy, Dx, 9C, 3).
    """
    batch = around.shape[0]
    out = weights.new_empty(batch, len(row.pixel), len(col.pixel), 3)
    cols = list(col.groups())
    for ys, down, y_phases in row.groups():
        strip, some = _take(around, 1, ys), weights[y_phases]
        for xs, across, x_phases in cols:
            seen = _take(strip, 2, xs).to(weights.dtype).flatten(0, 2)
            shared = some[:, x_phases].permute(2, 0, 1, 3)  # (9C, ky, kx, 3)
            found = _at_least(seen) @ shared.flatten(1)
            found = found[: len(seen)].view(batch, len(ys), len(xs), *shared.shape[1:])
            found = found.transpose(2, 3).reshape(batch, len(down), len(across), 3)
            out[:, _index(down, out).unsqueeze(1), _index(across, out)] = found
    return out


def products(around: Tensor, imnet: MLP) -> Tensor:
    """f(p) M_j and f(p) M_0, last, of features (..., 9C) -> (..., 3, J + 1), float32 at least."""
    weight, bias = last_layer(imnet)
    joined = torch.cat((weight, bias.unsqueeze(-1)), -1)
    seen = around.flatten(0, -2)
    found = (_at_least(seen) @ joined.flatten(1))[: len(seen)]
    found = found.to(torch.promote_types(found.dtype, torch.float32))
    return found.view(*around.shape[:-1], *joined.shape[1:])


def contract(products: Tensor, hidden: Tensor) -> Tensor:
    """sum_j h_j f(p) M_j + f(p) M_0 of positions: (..., 3, J + 1) and (..., J) -> (..., 3)."""
    hidden = hidden.to(products.dtype).unsqueeze(-2)
    return (hidden @ products[..., :-1].transpose(-1, -2)).squeeze(-2) + products[..., -1]


def by_pixel(table: Tensor, row: Line, col: Line, hidden: Callable[[int], Tensor]) -> Tensor:
    """Colours (B, R, S, 3) of a block, from the products of its feature pixels.

    Row by row, so that what is worked on stays in the processor's cache: a block's products at all its
    positions would be 50 times the block (measured: 10 times slower).

    Args:
        table: (B, h, w, 3, J + 1) ``products``.
        row, col: pixels of it.
        hidden: h (S, J) of a row.
    """
    across = _index(col.pixel, table)
    rows, seen, last = [], table[:, 0], -1
    for i, pixel in enumerate(row.pixel):
        if pixel != last:
            seen, last = table[:, pixel].index_select(1, across), pixel
        rows.append(contract(seen, hidden(i)))
    return torch.stack(rows, 1)


class Block(NamedTuple):
    """A part of a window.

    Attributes:
        rows, cols: its place in the window.
        around: (B, h, w, 9C) the features that it reads, ``unfolded``.
        y, x: each corner's rows and columns, as pixels of ``around``.
    """

    rows: slice
    cols: slice
    around: Tensor
    y: list[Line]
    x: list[Line]


def over_window(
    where: Pixels,
    bordered: Tensor,
    lines: Sequence[Callable[[Axis, int], Lines]],
    begin: Callable[[Lines, Lines], Callable[[Block], Tensor]],
    *,
    progress: Progress | None = None,
) -> Tensor:
    """The colours (B, Q, 3) of a window, block after block.

    Args:
        where: its positions.
        bordered: (B, h + 2, w + 2, C) the map.
        lines: what the rows read of a map of n pixels, and the columns.
        begin: from the rows' and columns' lines, what gives a block's colours (B, R, S, 3).
        progress: called after each row of blocks with the share done.
    """
    batch, h, w = bordered.shape[0], bordered.shape[1] - 2, bordered.shape[2] - 2
    (rows, above), (cols, before) = where.rows.grown(LEAST_PIXELS), where.cols.grown(LEAST_PIXELS)
    y, x = lines[0](rows, h), lines[1](cols, w)
    colors = begin(y, x)
    out: Tensor | None = None
    across = _cuts(cols, w, batch)
    for down in _cuts(rows, h, batch):
        for part in across:
            found = colors(_block(bordered, y, x, down, part))
            if out is None:
                out = found.new_empty(batch, rows.size, cols.size, 3)
            out[:, down, part] = found
        if progress is not None:
            progress(down.stop / rows.size)
    assert out is not None
    height, width = where.size
    return out[:, above : above + height, before : before + width].flatten(1, 2)


def lookup(bordered: Tensor, imnet: MLP, count: int) -> Callable[[Tensor, Tensor], Tensor]:
    """What gives the products (B, N, 3, J + 1) at listed pixels, rows and columns (B, N).

    Args:
        bordered: (B, h + 2, w + 2, C) the map.
        imnet: the MLP.
        count: how many will be asked for of each image; where its pixels are fewer, each is computed once.
    """
    batch, h, w = bordered.shape[0], bordered.shape[1] - 2, bordered.shape[2] - 2
    if h * w <= count and batch * h * w <= MOST_LOOKED_UP:
        table = products(unfolded(bordered), imnet).flatten(3)
        return lambda y, x: read(table, y, x).unflatten(-1, (3, -1))

    def at(y: Tensor, x: Tensor) -> Tensor:
        taps = [read(bordered, y + i, x + j) for i in range(3) for j in range(3)]
        return products(torch.cat(taps, -1), imnet)

    return at


def crossed(y: Place, x: Place, batch: int) -> tuple[Place, Place]:
    """Rows (R,) and columns (S,) as lists (B, R * S), row-major."""
    pairs = (torch.meshgrid(a, b, indexing="ij") for a, b in zip(y, x, strict=True))
    (rows, cols), (down, across) = ([t.flatten().expand(batch, -1) for t in pair] for pair in pairs)
    return Place(rows, down), Place(cols, across)


def in_parts(
    places: Sequence[Place], colors: Callable[..., Tensor], *, progress: Progress | None = None
) -> Tensor:
    """The colours (B, Q, 3) of listed positions (B, Q), a part at a time; with gradients the list is one."""
    batch, count = places[0].index.shape
    step = max(1, count if torch.is_grad_enabled() else LIST_PART // batch)
    parts = []
    for start in range(0, count, step):
        parts.append(colors(*(Place(*(t[:, start : start + step] for t in place)) for place in places)))
        if progress is not None:
            progress(min(1.0, (start + step) / count))
    return torch.cat(parts, 1) if parts else places[0].offset.new_zeros(batch, 0, 3)


def _block(bordered: Tensor, y: Lines, x: Lines, rows: slice, cols: slice) -> Block:
    parts, spans = [], []
    for lines, cut in ((y, rows), (x, cols)):
        corners = [corner.part(cut.start, cut.stop) for corner in lines.corners]
        start = min(corner.pixel[0] for corner in corners)
        spans.append(slice(start, max(corner.pixel[-1] for corner in corners) + 3))  # with its frame
        parts.append([Line([p - start for p in c.pixel], c.phase) for c in corners])
    return Block(rows, cols, unfolded(bordered[:, spans[0], spans[1]]), *parts)


def _cuts(axis: Axis, n: int, batch: int) -> list[slice]:
    """An axis in nearly equal parts that read about ``BLOCK_SIDE`` pixels each, or is one."""
    side = max(LEAST_PIXELS, min(MOST_BLOCK, int(BLOCK_SIDE * axis.scale(n) / math.sqrt(batch))))
    count = max(1, axis.size // side)
    return [slice(i * axis.size // count, (i + 1) * axis.size // count) for i in range(count)]


def _take(x: Tensor, dim: int, index: list[int]) -> Tensor:
    """``index_select``, as a view where the indices follow one another."""
    if index == list(range(index[0], index[0] + len(index))):
        return x.narrow(dim, index[0], len(index))
    return x.index_select(dim, _index(index, x))


def _index(index: list[int], like: Tensor) -> Tensor:
    return torch.tensor(index, device=like.device)


def _at_least(rows: Tensor) -> Tensor:
    """A matrix with zeros below where it has fewer than ``LEAST_ROWS`` rows."""
    return F.pad(rows, (0, 0, 0, max(LEAST_ROWS - len(rows), 0)))
