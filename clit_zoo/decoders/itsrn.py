"""ITSRN: implicit transformer for screen content (Yang et al., NeurIPS 2021).

For a position and each of four feature pixels p_t around it, (y_t, x_t) half pixels from them, an MLP makes
a linear map that turns the 3x3 features around p_t into a colour (``predicted``), another MLP adds a score,
and a third merges the four colours, channel by channel:

    z_t = f(p_t) MLP([y_t, x_t, 1 / s_y, 1 / s_x]) + Score([y_t, x_t]),  output = Weight([z_0, z_1, z_2, z_3])

The four are the pixels nearest to what lies (1 - c) / (n - 1) to each side of the position, c a pixel of the
output and n the picture's pixels along the axis, so they depend on the whole picture's size. A window's are
found in whole numbers (``itsrn_corners``). Parameter names are the authors'.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clit_kernels.queries import as_points

from ..axis import Axis
from ..geometry import Frame, Pixels, Size, Where
from .base import Decoder, Progress
from .corners import wide_corners
from .mlp import MLP
from .positions import Place, read
from .predicted import (
    Block,
    Lines,
    begin_as,
    bordered,
    by_phase,
    by_phase_pays,
    by_pixel,
    contract,
    crossed,
    evaluated,
    hidden,
    in_parts,
    lookup,
    over_window,
    phase_weights,
    products,
)

NUDGES = 2_000_000
"""The authors add 1e-6 to positions in [-1, 1]: a pixel of the map in so many, for each of its pixels."""

MERGED = 1 << 12
"""Positions whose four colours are merged at once, up to twice as many: 12 MB for a hidden layer of 256."""


class Prepared(NamedTuple):
    """``bordered`` (B, h + 2, w + 2, C): the encoder's map, channels last, with zeros around.

    ``whole``: size of the whole picture.
    """

    bordered: Tensor
    whole: Size


class ITSRN(nn.Module, Decoder):
    """Implicit transformer super-resolution network.

    Args:
        in_channels: channels C of the encoder's map.
        hidden_dims: widths of the hidden layers of the MLP that makes weights.
        merge_dim: width of the hidden layer of the two others.
    """

    def __init__(
        self, in_channels: int, *, hidden_dims: Sequence[int] = (256, 256, 256, 256), merge_dim: int = 256
    ):
        super().__init__()
        self.reach = 2
        self.imnet = MLP(4, hidden_dims, 27 * in_channels)
        self.Weight, self.Score = MLP(4, [merge_dim], 1), MLP(2, [merge_dim], 1)

    def begin(self, features: Tensor, image: Tensor) -> None:
        """Start with the mean of four colours that a linear map makes of the features; see ``Decoder``."""
        begin_as(self.imnet, features, image)
        self.Score.pass_on(torch.zeros(1, 2))
        self.Weight.pass_on(torch.full((1, 4), 1 / 4))

    def prepare(self, features: Tensor, image: Tensor, frame: Frame | None = None) -> Prepared:
        """The features as they will be read; see ``Decoder``."""
        h, w = features.shape[-2:]
        return Prepared(bordered(features), (h, w) if frame is None else frame.whole)

    def decode(self, prepared: Prepared, where: Where, *, progress: Progress | None = None) -> Tensor:
        """Colours (B, Q, 3) at positions: by phase where there are few, else by pixel; see ``Decoder``."""
        features = prepared.bordered[:, 1:-1, 1:-1]
        if self.backend == "reference":
            return self.reference(features.permute(0, 3, 1, 2), where, prepared.whole)
        token = self._token(where, features)
        if isinstance(where, Pixels):
            pays = by_phase_pays(where, *features.shape[1:3])
            begin = partial(self._by_phase if pays else self._by_pixel, token)
            lines = [partial(itsrn_corners, whole=n) for n in prepared.whole]
            return over_window(where, prepared.bordered, lines, begin, progress=progress)
        places = self._places(where, features, prepared.whole)
        found = lookup(prepared.bordered, self.imnet, 4 * places[0].index.shape[1])

        def colors(*places: Place) -> Tensor:
            values = []
            for y, x in _pairs(places):
                seen = found(y.index, x.index)
                values.append(contract(seen, hidden(self.imnet, self._given(y.offset, x.offset, token))))
                values[-1] += self._score(y.offset, x.offset)
            return self._merged(values)

        return in_parts(places, colors, progress=progress)

    def reference(self, features: Tensor, where: Where, whole: Size | None = None) -> Tensor:
        """The formula as the paper states it: W of every position and corner, from the whole MLP.

        Args:
            features: (B, C, h, w) the encoder's map, in float64 for a truth to test against.
            where: the positions.
            whole: size of the whole picture, where the map is of a part.

        Returns:
            (B, Q, 3), as ``decode`` gives.
        """
        seen = F.unfold(features, 3, padding=1).unflatten(2, features.shape[2:]).permute(0, 2, 3, 1)
        h, w = features.shape[2:]
        token = self._token(where, seen)

        def colors(*places: Place) -> Tensor:
            values = []
            for y, x in _pairs(places):
                given = self._given(y.offset, x.offset, token).to(seen.dtype)
                weights = self.imnet(given).unflatten(-1, (-1, 3))
                value = (read(seen, y.index, x.index).unsqueeze(-2) @ weights).squeeze(-2)
                values.append(value + self.Score(given[..., :2]))
            return self.Weight(torch.stack(values, -1)).squeeze(-1)

        return in_parts(self._places(where, seen, whole or (h, w)), colors)

    def _by_phase(self, token: Tensor, y: Lines, x: Lines) -> Callable[[Block], Tensor]:
        rows, cols = (torch.tensor(lines.offsets, dtype=torch.float64).to(token) for lines in (y, x))
        weights = phase_weights(self.imnet, self._given(rows.unsqueeze(1), cols, token))
        scores = self._score(rows.unsqueeze(1), cols)

        def colors(block: Block) -> Tensor:
            values = []
            for row, col in product(block.y, block.x):
                value = by_phase(block.around, row, col, weights)
                values.append(value + scores[row.phase][:, col.phase])
            return self._merged(values)

        return colors

    def _by_pixel(self, token: Tensor, y: Lines, x: Lines) -> Callable[[Block], Tensor]:
        rows, cols = ([lines.place(i, token).offset for i in (0, 1)] for lines in (y, x))

        def colors(block: Block) -> Tensor:
            table, values = products(block.around, self.imnet), []
            for (row, down), (col, across) in product(
                zip(block.y, rows, strict=True), zip(block.x, cols, strict=True)
            ):
                down, across = down[block.rows], across[block.cols]

                def one(i: int, down: Tensor = down, across: Tensor = across) -> Tensor:
                    return hidden(self.imnet, self._given(down[i], across, token))

                values.append(by_pixel(table, row, col, one) + self._score(down.unsqueeze(1), across))
            return self._merged(values)

        return colors

    def _given(self, y: Tensor, x: Tensor, token: Tensor) -> Tensor:
        """The MLP's inputs (..., 4) from offsets and 1 / s."""
        return torch.stack(torch.broadcast_tensors(y, x, *token.unbind(-1)), -1)

    def _score(self, y: Tensor, x: Tensor) -> Tensor:
        """Scores (..., 1) of offsets."""
        return evaluated(self.Score, torch.stack(torch.broadcast_tensors(y, x), -1)).unsqueeze(-1)

    def _merged(self, values: list[Tensor]) -> Tensor:
        """One colour of the four corners': (B, ..., 3) of each."""
        given = torch.stack(values, -1).flatten(0, -3)
        count = 1 if torch.is_grad_enabled() else max(1, len(given) // MERGED)
        found = [evaluated(self.Weight, part) for part in given.tensor_split(count)]
        return torch.cat(found).view_as(values[0])

    def _token(self, where: Where, like: Tensor) -> Tensor:
        """(1 / s_y, 1 / s_x): (2,) for a window, (B, 1, 2) for lists; ``like`` is of the map (B, h, w, …)."""
        batch, h, w = like.shape[:3]
        wide = torch.promote_types(like.dtype, torch.float32)
        if isinstance(where, Pixels):
            return torch.tensor([where.rows.cell(h) / 2, where.cols.cell(w) / 2], dtype=wide).to(like.device)
        return where.cells((h, w), batch, like.device).unsqueeze(1).to(wide) / 2

    def _places(self, where: Where, like: Tensor, whole: Size) -> list[Place]:
        """Every position's feature pixels (B, Q) and offsets: rows low and high, columns low and high."""
        batch, h, w = like.shape[:3]
        wide = like.new_empty(0, dtype=torch.promote_types(like.dtype, torch.float32))
        if isinstance(where, Pixels):
            y, x = itsrn_corners(where.rows, h, whole[0]), itsrn_corners(where.cols, w, whole[1])
            sides = [crossed(y.place(i, wide), x.place(i, wide), batch) for i in (0, 1)]
            return [sides[0][0], sides[1][0], sides[0][1], sides[1][1]]
        points = as_points(where.on((h, w), like.device), batch)
        cells = where.cells((h, w), batch, like.device) / 2
        return [
            Place(corner.pixel, corner.delta.to(wide.dtype))
            for i, n in enumerate((h, w))
            for corner in wide_corners(
                points.index[..., i], points.offset[..., i], n, cells[:, i : i + 1], whole[i]
            )
        ]


def _pairs(places: Sequence[Place]) -> Iterator[tuple[Place, Place]]:
    """The four corners (y, x) of rows low and high, columns low and high."""
    return product(places[:2], places[2:])


def itsrn_corners(axis: Axis, n: int, whole: int) -> Lines:
    """The two pixels of an n-pixel map beside each of an axis' pixels, and its distance in half pixels.

    They are floor(p - r + e + 1/2) and floor(p + r + e + 1/2) for a position p, in pixels of the map; r is
    the reach, (whole - 1 / s) / (2 (whole - 1)), and e the authors' 1e-6.

    Args:
        axis: pixels of the output.
        n: pixels of the map.
        whole: those of the whole picture's map, where this one is a part of it.
    """
    start, step, unit, size, n = map(int, (*axis, n))  # an exported program serves one size
    most = max(whole - 1, 1)
    # in parts of a pixel, 1 / (2 * unit * most * NUDGES) each
    reach = (whole * unit - step * n) * NUDGES
    nudge = 2 * unit * most * whole
    sides: list[list[tuple[int, int]]] = [[], []]
    for i in range(size):
        centre = (2 * (start + i * step) + step) * n  # of pixel i, in parts of 1 / (2 * unit)
        for side, sign in zip(sides, (-1, 1), strict=True):
            pixel = (centre * most * NUDGES + sign * reach + nudge) // (2 * unit * most * NUDGES)
            pixel = min(max(pixel, 0), n - 1)
            side.append((pixel, centre - unit - 2 * unit * pixel))
    return Lines.of(sides, unit)
