"""LIIF: local implicit image function (Chen, Liu and Wang, CVPR 2021, arXiv:2012.09161).

For a position and each of the four feature pixels p_t around it (``corners``), an MLP gives a colour from the
3x3 features around p_t, the position relative to it and the cell; the four are averaged by area:

    z_t = MLP([f(p_t), dy, dx, cell]),  output = sum_t w_t z_t

The first layer is linear in what it reads, so its share of the features is computed once for each feature
pixel, by a 3x3 convolution, and that of the position once for each row and column. That is the same number in
another order of additions, with 1.7 times fewer multiplications at x4. Parameter names are the authors'.

UltraSR and IPE give the position as more numbers (``encode``), UltraSR to every layer. None of them mixes the
axes, so that these shares too belong to a row or a column.
"""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..geometry import Frame, Where
from .base import Decoder, Progress
from .corners import Corner, axis_corners
from .fit import colors_from
from .mlp import MLP
from .positions import Place, by_blocks, read


class Prepared(NamedTuple):
    """``hidden`` (B, h, w, D): the first layer's share of each feature pixel.

    ``features`` (B, C, h, w): the encoder's map, where the formula itself computes.
    """

    hidden: Tensor
    features: Tensor | None = None


class LIIF(nn.Module, Decoder):
    """Local implicit image function.

    Args:
        in_channels: channels C of the encoder's map.
        hidden_dims: widths of the MLP's hidden layers, the first one D.
        feat_unfold: read the 3x3 features around a pixel, not only its own.
        local_ensemble: average the four corners; else the nearest pixel's colour is taken.
        cell_decode: the MLP reads the cell.

    Attributes:
        numbers: how many ``encode`` gives along each axis; a subclass sets it before ``super().__init__``.
        every_layer: all layers read these numbers, not only the first.
    """

    numbers = 1
    every_layer = False

    def __init__(
        self,
        in_channels: int,
        *,
        hidden_dims: Sequence[int] = (256, 256, 256, 256),
        feat_unfold: bool = True,
        local_ensemble: bool = True,
        cell_decode: bool = True,
    ):
        super().__init__()
        self.reach = 3
        self.in_channels, self.side = in_channels, 3 if feat_unfold else 1
        self.local_ensemble, self.cell_decode = local_ensemble, cell_decode
        fan_in = in_channels * self.side**2 + 2 * self.numbers + 2 * cell_decode
        beside = 2 * self.numbers if self.every_layer else 0
        self.imnet = MLP(fan_in, hidden_dims, 3, lambda: nn.ReLU(inplace=True), beside=beside)

    def encode(self, delta: Tensor, cell: Tensor) -> Tensor:
        """Numbers (..., Q, ``numbers``) for positions along an axis: here themselves.

        Args:
            delta: (..., Q) relative to a corner, in half pixels.
            cell: (B, ..., 1) the cell's side along the axis, in half pixels.
        """
        return delta.unsqueeze(-1)

    def begin(self, features: Tensor, image: Tensor) -> None:
        """Start as the bilinear interpolation of what a linear map makes of the features; see ``Decoder``."""
        self.imnet.pass_on(colors_from(features, image, self.side))

    def prepare(self, features: Tensor, image: Tensor, frame: Frame | None = None) -> Prepared:
        """The first layer's share of the features; see ``Decoder``."""
        kernel = self._weights()[0].unflatten(1, (self.in_channels, self.side, self.side))
        hidden = F.conv2d(features, kernel, padding=self.side // 2)
        kept = features if self.backend == "reference" else None
        return Prepared(hidden.permute(0, 2, 3, 1).contiguous(), kept)

    def decode(self, prepared: Prepared, where: Where, *, progress: Progress | None = None) -> Tensor:
        """Colours (B, Q, 3) at positions; see ``Decoder``."""
        if prepared.features is not None:
            return self.reference(prepared.features, where)
        hidden = prepared.hidden
        batch, h, w, _ = hidden.shape
        cells = where.cells((h, w), batch, hidden.device)
        cell = self._cell_share(cells)

        def colors(y: Place, x: Place) -> Tensor:
            total = torch.zeros((), device=hidden.device)
            shares = [
                [(corner, self._shares(corner, axis, cells)) for corner in self._corners(*place, n)]
                for axis, (place, n) in enumerate(((y, h), (x, w)))
            ]
            for _, parts in shares[0]:
                parts[0] = parts[0] + cell.view(batch, *(1,) * (y.index.dim() - 1), -1)
            for (low, rows), (left, cols) in product(*shares):
                first = read(hidden, low.pixel, left.pixel)
                seen = self._through(first, list(zip(rows, cols, strict=True)))
                total = total + seen * (low.weight * left.weight).unsqueeze(-1)
            return total

        return by_blocks(where, (h, w), batch, hidden.device, colors, progress=progress)

    def reference(self, features: Tensor, where: Where) -> Tensor:
        """The formula as the paper states it: each position's whole input through the whole MLP.

        Args:
            features: (B, C, h, w) the encoder's map, in float64 for a truth to test against.

        Returns:
            (B, Q, 3), as ``decode`` gives.
        """
        batch, _, h, w = features.shape
        unfolded = F.unfold(features, self.side, padding=self.side // 2).unflatten(2, (h, w))
        unfolded = unfolded.permute(0, 2, 3, 1)
        cell = where.cells((h, w), batch, features.device).to(features.dtype)

        def colors(y: Place, x: Place) -> Tensor:
            total = torch.zeros((), device=features.device)
            for low, left in product(self._corners(*y, h), self._corners(*x, w)):
                seen = read(unfolded, low.pixel, left.pixel)
                shape = seen.shape[:-1]
                cells = cell.view(batch, *(1,) * (len(shape) - 1), 2).expand(*shape, 2)
                delta = [corner.delta.to(seen.dtype).expand(shape) for corner in (low, left)]
                position = torch.cat([self.encode(delta[i], cells[..., i]) for i in (0, 1)], -1)
                given = torch.cat([seen, position, *[cells] * self.cell_decode], -1)
                seen = self.imnet(given, position if self.every_layer else None)
                total = total + seen * (low.weight * left.weight).unsqueeze(-1)
            return total

        return by_blocks(where, (h, w), batch, features.device, colors)

    def _corners(self, index: Tensor, offset: Tensor, n: int) -> Sequence[Corner]:
        if self.local_ensemble:
            return axis_corners(index, offset, n)
        return (Corner(index.clamp(0, n - 1), 2 * offset, torch.ones_like(offset)),)

    def _weights(self) -> tuple[Tensor, Tensor, Tensor]:
        """The first layer's: for features (D, C * side**2), position (D, 2 * numbers), cell (D, 2 or 0)."""
        weight, features = self.imnet.linears()[0].weight, self.in_channels * self.side**2
        parts = weight.split((features, 2 * self.numbers, 2 * self.cell_decode), 1)
        return parts[0], parts[1], parts[2]

    def _shares(self, corner: Corner, axis: int, cells: Tensor) -> list[Tensor]:
        """Each layer's share (..., Q, D) of the position along an axis, in float32 at least."""
        weights = [self._weights()[1]]
        if self.every_layer:
            weights += [layer.weight[:, -2 * self.numbers :] for layer in self.imnet.linears()[1:]]
        wide = torch.promote_types(weights[0].dtype, torch.float32)
        cell = cells[:, axis].to(wide).view(-1, *(1,) * (corner.delta.dim() - 1))
        encoded = self.encode(corner.delta.to(wide), cell)
        return [_product(encoded, weight.to(wide).chunk(2, 1)[axis]) for weight in weights]

    def _through(self, x: Tensor, shares: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """Colours from the first layer's share of the features and the layers' shares of the position."""
        layers = self.imnet.linears()
        for i, layer in enumerate(layers):
            if i:
                x = F.linear(x.relu_(), layer.weight[:, : x.shape[-1]], layer.bias)
            for part in shares[i] if i < len(shares) else ():
                x += part.to(x.dtype)
        return x

    def _cell_share(self, cells: Tensor) -> Tensor:
        """The first layer's share (B, D) of the cells (B, 2), with its bias, in float32 at least."""
        weight, bias = self._weights()[2], self.imnet.linears()[0].bias
        wide = torch.promote_types(bias.dtype, torch.float32)
        share = cells.to(wide) @ weight.to(wide).T if self.cell_decode else cells.new_zeros(len(cells), 1)
        return share + bias.to(wide)


def _product(encoded: Tensor, weight: Tensor) -> Tensor:
    """(..., E) times (D, E) -> (..., D)."""
    if encoded.dim() == 3 and encoded.shape[-1] > 1:
        return encoded @ weight.T
    # a window's few rows and columns one number after another: a matrix product of few rows has other bits
    total = encoded[..., :1] * weight[:, 0]
    for i in range(1, encoded.shape[-1]):
        total = total + encoded[..., i : i + 1] * weight[:, i]
    return total
