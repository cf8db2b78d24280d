"""Meta-SR: a network that predicts the upscaling filter (Hu et al., CVPR 2019), and LIIF's form of it.

An output pixel's upper left corner lies in the feature pixel p, at the offset (y, x) in [0, 1) of its side.
An MLP makes of that and of the scale a linear map that turns the 3x3 features around p into a colour
(``predicted``):

    output = f(p) MLP([y, x, 1 / s])          original: MLP([1 / s, y, x]), in colours from 0 to 255

What LIIF, LTE and CLIT compare with as "Meta-SR" is LIIF's form. Where the scale differs between the axes,
the rows' counts, as in LIIF's code. The first authors find p by float32 divisions, which come out one pixel
low at some scales (x2.3 from row 31 on); here it follows from whole numbers. They take a scale and cut the
output, x2.7 of 9 pixels to 24; here the output's size is given and the scale is the ratio. Parameter names
are those of LIIF's code.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clit_kernels.queries import as_points

from ..axis import Axis
from ..geometry import Frame, Pixels, Where
from .base import Decoder, Progress
from .corners import NUDGE
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
    hidden,
    in_parts,
    lookup,
    over_window,
    phase_weights,
    products,
)

MEAN = (0.4488, 0.4371, 0.4040)
"""Of DIV2K's colours: where the original's ``sub_mean`` and ``add_mean`` begin."""


class MeanShift(nn.Module):
    """The original's normalisation: colours from 0 to 255 and 1x1 convolutions, trained like the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.sub_mean, self.add_mean = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        for sign, layer in ((-255, self.sub_mean), (255, self.add_mean)):
            nn.init.dirac_(layer.weight)
            layer.bias = nn.Parameter(sign * torch.tensor(MEAN))

    def normalise(self, image: Tensor) -> Tensor:
        """Image (B, 3, h, w) in [0, 1] -> what the encoder reads."""
        return self._shift((image * 255).movedim(1, -1), self.sub_mean).movedim(-1, 1)

    def restore(self, colors: Tensor) -> Tensor:
        """What ``decode`` gave, (B, Q, 3) -> colours in about [0, 1]."""
        return self._shift(colors, self.add_mean) / 255

    def _shift(self, colors: Tensor, layer: nn.Conv2d) -> Tensor:
        assert layer.bias is not None
        wide = torch.promote_types(layer.weight.dtype, torch.float32)
        return F.linear(colors.to(wide), layer.weight.flatten(1).to(wide), layer.bias.to(wide))


class Prepared(NamedTuple):
    """``bordered`` (B, h + 2, w + 2, C): the encoder's map, channels last, with zeros around."""

    bordered: Tensor


class MetaSR(nn.Module, Decoder):
    """Meta-SR's upscaling module.

    Args:
        in_channels: channels C of the encoder's map.
        hidden_dims: widths of the MLP's hidden layers.
        original: the first paper's: other colours (``MeanShift``), and another order of the MLP's inputs.
    """

    def __init__(self, in_channels: int, *, hidden_dims: Sequence[int] = (256,), original: bool = False):
        super().__init__()
        self.reach, self.original = 2, original
        self.imnet = MLP(3, hidden_dims, 27 * in_channels, lambda: nn.ReLU(inplace=True))
        if original:
            self.normalisation = MeanShift()

    def normalise(self, image: Tensor) -> Tensor:
        """Image (B, 3, h, w) in [0, 1] -> what the encoder reads."""
        return self.normalisation.normalise(image) if self.original else super().normalise(image)

    def restore(self, colors: Tensor) -> Tensor:
        """What ``decode`` gave, (B, Q, 3) -> colours in about [0, 1]."""
        return self.normalisation.restore(colors) if self.original else super().restore(colors)

    def begin(self, features: Tensor, image: Tensor) -> None:
        """Start with the colour that a linear map makes of the nearest features; see ``Decoder``."""
        begin_as(self.imnet, features, image)

    def prepare(self, features: Tensor, image: Tensor, frame: Frame | None = None) -> Prepared:
        """The features as they will be read; see ``Decoder``."""
        return Prepared(bordered(features))

    def decode(self, prepared: Prepared, where: Where, *, progress: Progress | None = None) -> Tensor:
        """Colours (B, Q, 3) at positions: by phase where there are few, else by pixel; see ``Decoder``."""
        features = prepared.bordered[:, 1:-1, 1:-1]
        if self.backend == "reference":
            return self.reference(features.permute(0, 3, 1, 2), where)
        scale = self._scale(where, features)
        if isinstance(where, Pixels):
            pays = by_phase_pays(where, *features.shape[1:3])
            begin = partial(self._by_phase if pays else self._by_pixel, scale)
            return over_window(where, prepared.bordered, [upper_left] * 2, begin, progress=progress)
        places = self._places(where, features)
        found = lookup(prepared.bordered, self.imnet, places[0].index.shape[1])

        def colors(y: Place, x: Place) -> Tensor:
            given = self._given(y.offset, x.offset, scale)
            return contract(found(y.index, x.index), hidden(self.imnet, given))

        return in_parts(places, colors, progress=progress)

    def reference(self, features: Tensor, where: Where) -> Tensor:
        """The formula as the paper states it: W of every position, from the whole MLP.

        Args:
            features: (B, C, h, w) the encoder's map, in float64 for a truth to test against.

        Returns:
            (B, Q, 3), as ``decode`` gives.
        """
        seen = F.unfold(features, 3, padding=1).unflatten(2, features.shape[2:]).permute(0, 2, 3, 1)
        scale = self._scale(where, seen)

        def colors(y: Place, x: Place) -> Tensor:
            weights = self.imnet(self._given(y.offset, x.offset, scale).to(seen.dtype))
            return (read(seen, y.index, x.index).unsqueeze(-2) @ weights.unflatten(-1, (-1, 3))).squeeze(-2)

        return in_parts(self._places(where, seen), colors)

    def _by_phase(self, scale: Tensor, y: Lines, x: Lines) -> Callable[[Block], Tensor]:
        rows, cols = (torch.tensor(lines.offsets, dtype=torch.float64).to(scale) for lines in (y, x))
        weights = phase_weights(self.imnet, self._given(rows.unsqueeze(1), cols, scale))
        return lambda block: by_phase(block.around, block.y[0], block.x[0], weights)

    def _by_pixel(self, scale: Tensor, y: Lines, x: Lines) -> Callable[[Block], Tensor]:
        rows, cols = y.place(0, scale).offset, x.place(0, scale).offset

        def colors(block: Block) -> Tensor:
            down, across = rows[block.rows], cols[block.cols]

            def row(i: int) -> Tensor:
                return hidden(self.imnet, self._given(down[i], across, scale))

            return by_pixel(products(block.around, self.imnet), block.y[0], block.x[0], row)

        return colors

    def _given(self, y: Tensor, x: Tensor, scale: Tensor) -> Tensor:
        """The MLP's inputs (..., 3) from offsets and 1 / s."""
        given = (scale, y, x) if self.original else (y, x, scale)
        return torch.stack(torch.broadcast_tensors(*given), -1)

    def _scale(self, where: Where, like: Tensor) -> Tensor:
        """The MLP's 1 / s: a number for a window, (B, 1) for lists; ``like`` is of the map (B, h, w, …)."""
        wide = torch.promote_types(like.dtype, torch.float32)
        if isinstance(where, Pixels):
            return torch.tensor(where.rows.cell(like.shape[1]) / 2, dtype=wide, device=like.device)
        batch, h, w = like.shape[:3]
        return where.cells((h, w), batch, like.device)[:, :1].to(wide) / 2

    def _places(self, where: Where, like: Tensor) -> tuple[Place, Place]:
        """Every position's feature pixel (B, Q) and offset from its corner, along both axes."""
        batch, h, w = like.shape[:3]
        wide = like.new_empty(0, dtype=torch.promote_types(like.dtype, torch.float32))
        if isinstance(where, Pixels):
            y, x = upper_left(where.rows, h).place(0, wide), upper_left(where.cols, w).place(0, wide)
            return crossed(y, x, batch)
        points, cells = (
            as_points(where.on((h, w), like.device), batch),
            where.cells((h, w), batch, like.device),
        )
        places = []
        for axis, n in enumerate((h, w)):
            index, corner = (
                points.index[..., axis],
                points.offset[..., axis] + 0.5 - cells[:, axis : axis + 1] / 4,
            )
            pixel = (index + (corner + NUDGE * n / 2).floor().long()).clamp(0, n - 1)
            places.append(Place(pixel, ((index - pixel).to(corner.dtype) + corner).to(wide.dtype)))
        return places[0], places[1]


def upper_left(axis: Axis, n: int) -> Lines:
    """The pixels of an n-pixel map that hold the upper left corners of an axis' pixels."""
    start, step, unit, size, n = map(int, (*axis, n))  # an exported program serves one size
    return Lines.of([[divmod((start + i * step) * n, unit) for i in range(size)]], unit)
