"""Cross-scale non-local attention (Mei et al., CVPR 2020), as CiaoSR uses it: scale 2, put back at scale 1.

Every pixel looks for patches like its own in the map at half the size, and takes what lies under them in the
map itself, which is twice as large there. Those 6x6 patches are laid at stride 2 on a canvas of twice the
size, where overlaps add up, and a convolution of stride 2 brings the canvas back:

    weights = softmax over l of 10 <key_l / |key_l|, query>,  down(sum over l of weights_l patch_l) / 6

The convolution is linear, so here it goes over each patch before they are weighted: a patch of 36 pixels
becomes the 4x4 of the result that it reaches, which is half the multiplications. Work and memory grow with
the square of the picture, so a large one goes in tiles.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..geometry import Frame

SHARPNESS = 10.0
"""Length of the keys."""

LEAST_NORM = 1e-4
"""A key's own length counts as no less."""

CHUNK = 1 << 20
"""Weights that exist at a time: 4 MB, or a row of pixels; more was no faster."""


class Piece(NamedTuple):
    """What of the convolution meets a patch along an axis, for one of the result's rows that it reaches.

    Its kernel rows ``first`` to ``last``, the first of them at row ``start`` of a map whose row 0 is the
    patch's third.
    """

    start: int
    first: int
    last: int


PIECES = (Piece(-2, 1, 2), Piece(-1, 0, 2), Piece(1, 0, 2), Piece(3, 0, 0))
"""For the rows at -1, 0, 1 and 2 from the pixel whose patch it is."""

FIRST = (Piece(0, 1, 2),)
"""For the row at 0, if it is the first: the canvas begins at a patch's third row."""


class CrossScaleAttention(nn.Module):
    """A map that has seen similar patches of itself; parameter names are those of CiaoSR's authors.

    Args:
        channels: C of the map and of the result.
        tile: rows and columns that look at each other. A larger map goes in tiles that overlap by a sixth of
            that; where they do, results are averaged.
    """

    def __init__(self, channels: int, tile: int):
        super().__init__()
        self.tile, half = tile, max(channels // 2, 1)
        self.conv_match_1 = nn.Sequential(nn.Conv2d(channels, half, 1), nn.PReLU())
        self.conv_match_2 = nn.Sequential(nn.Conv2d(channels, half, 1), nn.PReLU())
        self.conv_assembly = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.PReLU())
        self.down = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, features: Tensor, frame: Frame | None = None, *, literal: bool = False) -> Tensor:
        """The map of what is similar.

        Args:
            features: (B, C, h, w), any h, w >= 1.
            frame: where it lies in a larger map, whose tiles are taken: what lies within ``tile`` of the end
                of this part is then left incomplete.
            literal: build the canvas, as the paper.

        Returns:
            (B, C, h, w).
        """
        h, w = features.shape[-2:]
        frame = Frame(0, 0, (h, w)) if frame is None else frame
        attend = self._by_canvas if literal else self._attend
        if max(frame.whole) <= self.tile:
            return attend(features)
        total, count = torch.zeros_like(features), features.new_zeros(h, w)
        for top, bottom in spans(frame.whole[0], self.tile, frame.top, h):
            for left, right in spans(frame.whole[1], self.tile, frame.left, w):
                total[:, :, top:bottom, left:right] += attend(
                    features[:, :, top:bottom, left:right].contiguous()
                )
                count[top:bottom, left:right] += 1
        return total / count.clamp(min=1)

    def _attend(self, x: Tensor) -> Tensor:
        """One tile, by query rows, the convolution first."""
        (h, w), x = x.shape[-2:], to_even(x)
        batch, channels, height, width = x.shape
        queries, keys = self._queries(x), self._keys(x)
        values = self.conv_assembly(x)
        inner, left = self._reached(values, PIECES, PIECES), self._reached(values, PIECES, FIRST)
        above, corner = self._reached(values, FIRST, PIECES), self._reached(values, FIRST, FIRST)
        canvas = x.new_zeros(batch, channels, height + 3, width + 3)
        step = max(1, CHUNK // (batch * width * keys.shape[2]))
        for start in range(0, height, step):
            stop = min(start + step, height)
            weights = self._weights(queries[:, start * width : stop * width], keys)
            found = (weights @ inner).unflatten(2, (channels, 4, 4)).unflatten(1, (stop - start, width))
            found[:, :, 0, :, :, 1] = (weights[:, ::width] @ left).unflatten(2, (channels, 4))
            if start == 0:
                found[:, 0, :, :, 1] = (weights[:, :width] @ above).unflatten(2, (channels, 4))
                found[:, 0, 0, :, 1, 1] = (weights[:, :1] @ corner)[:, 0]
            size = (stop - start + 3, width + 3)
            placed = F.fold(found.flatten(3).flatten(1, 2).transpose(1, 2), size, 4)
            canvas[:, :, start : stop + 3] += placed
        bias = self.down.bias
        assert bias is not None
        return (canvas[:, :, 1 : h + 1, 1 : w + 1] + bias.view(-1, 1, 1)) / 6

    def _by_canvas(self, x: Tensor) -> Tensor:
        """One tile, as the paper says it."""
        (h, w), x = x.shape[-2:], to_even(x)
        patches = F.unfold(self.conv_assembly(x), 6, padding=2, stride=2).transpose(1, 2)
        found = self._weights(self._queries(x), self._keys(x)) @ patches
        size = (2 * x.shape[2], 2 * x.shape[3])
        out: Tensor = self.down(F.fold(found.transpose(1, 2), size, 6, padding=2, stride=2)) / 6
        return out[:, :, :h, :w]

    def _queries(self, x: Tensor) -> Tensor:
        """(B, h * w, 9 * C / 2)."""
        return F.unfold(self.conv_match_1(x), 3, padding=1).transpose(1, 2)

    def _keys(self, x: Tensor) -> Tensor:
        """(B, 9 * C / 2, h * w / 4), of length ``SHARPNESS``."""
        keys = F.unfold(self.conv_match_2(F.avg_pool2d(x, 2)), 3, padding=1)
        return keys * (SHARPNESS / keys.norm(dim=1, keepdim=True).clamp(min=LEAST_NORM))

    def _weights(self, queries: Tensor, keys: Tensor) -> Tensor:
        """(B, queries, keys), whose sum over the keys is 1."""
        return torch.softmax(queries @ keys, -1)

    def _reached(self, values: Tensor, rows: Sequence[Piece], cols: Sequence[Piece]) -> Tensor:
        """``down`` of each patch alone: (B, patches, C * rows * cols)."""
        (h, w), padded = values.shape[-2:], F.pad(values, (2, 2, 2, 2))
        found = []
        for y in rows:
            for x in cols:
                kernel = self.down.weight[:, :, y.first : y.last + 1, x.first : x.last + 1]
                part = F.conv2d(padded[:, :, y.start + 2 :, x.start + 2 :], kernel, stride=2)
                found.append(part[:, :, : h // 2, : w // 2].flatten(2))
        return torch.stack(found, 2).flatten(1, 2).transpose(1, 2)


def spans(n: int, tile: int, start: int, size: int) -> list[tuple[int, int]]:
    """Tiles along n pixels that lie within ``size`` of them from ``start``, counted from there.

    They overlap by a sixth or more, and the last ends at n.
    """
    tile = min(n, tile)
    firsts = [*range(0, n - tile, max(tile - tile // 6, 1)), n - tile]
    return [(i - start, i - start + tile) for i in firsts if start <= i and i + tile <= start + size]


def to_even(x: Tensor) -> Tensor:
    """Map (B, C, h, w) with a row and a column more where they are odd: the mirror's, or of one the same."""
    for axis in (2, 3):
        n = x.shape[axis]
        if n % 2:
            x = torch.cat((x, x.narrow(axis, max(n - 2, 0), 1)), axis)
    return x
