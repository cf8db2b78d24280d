"""LTE and LTE+: local texture estimator (Lee and Jin, CVPR 2022, arXiv:2111.08918).

Two convolutions give each feature pixel amplitudes A and frequencies (f_y, f_x), and the cell gives phases.
For a position and each of the four feature pixels p_t around it (``corners``), an MLP reads waves of them:

    theta = pi * (f_y(p_t) dy + f_x(p_t) dx + phase(cell))
    z_t = MLP(A(p_t) * [cos theta, sin theta]),  output = sum_t w_t z_t + the picture, bilinearly

Amplitude and position are multiplied before the first layer, so that nothing of it can be computed once for
each feature pixel. But the angle is a sum over the axes: on a window's rows and columns the sines and cosines
of each axis are computed once for each of its positions and each feature pixel across it, and the
angle-sum identities join them, with s times fewer sines at scale s. The MLP takes four fifths of a CPU's time
all the same. Parameter names are the authors'.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise, product
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..geometry import Frame, Where
from .base import Decoder, Progress
from .corners import Corner, axis_corners
from .mlp import MLP
from .positions import Place, Span, by_blocks, read, skip

BLOCK = 1 << 11
"""Positions whose waves meet the MLP together: 2 MB, which a processor's cache keeps."""

BAND = 1 << 14
"""Positions of a window's bands, for which the waves along each axis are made once."""


class Prepared(NamedTuple):
    """``amplitudes`` (B, h, w, D): those of the cosines, then of the sines.

    ``frequencies`` (B, h, w, D): along y, then along x, in float32 at least. ``image`` (B, 3, h, w).
    """

    amplitudes: Tensor
    frequencies: Tensor
    image: Tensor


class LTE(nn.Module, Decoder):
    """Local texture estimator.

    Args:
        in_channels: channels of the encoder's map.
        dim: amplitudes D: D / 2 waves.
        hidden_dims: widths of the MLP's hidden layers; all D in LTE+.
        plus: LTE+'s names and order of frequencies: first all along y, then all along x. LTE has them in
            pairs.
        max_scale_cell: the cell is that of this scale at most. The authors' test and demo scripts clip it at
            the largest scale of training, 4, which their figures from x6 on need; 1000 clips nothing.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        dim: int = 256,
        hidden_dims: Sequence[int] = (256, 256, 256),
        plus: bool = False,
        max_scale_cell: float = 4.0,
    ):
        super().__init__()
        self.reach = 2
        self.plus, self.max_scale_cell = plus, max_scale_cell
        self.coef = nn.Conv2d(in_channels, dim, 3, padding=1)
        self.freq = nn.Conv2d(in_channels, dim, 3, padding=1)
        self.phase = nn.Linear(2, dim // 2, bias=False)
        if plus:  # its MLP is 1x1 convolutions
            dense = [nn.Conv2d(*pair, 1) for pair in pairwise((dim, *hidden_dims, 3))]
            self.layers = nn.Sequential(*[m for layer in dense for m in (layer, nn.ReLU(inplace=True))][:-1])
        else:
            self.imnet = MLP(dim, hidden_dims, 3, lambda: nn.ReLU(inplace=True))

    def prepare(self, features: Tensor, image: Tensor, frame: Frame | None = None) -> Prepared:
        """Amplitudes and frequencies; see ``Decoder``."""
        weight, bias = self.freq.weight, self.freq.bias
        assert bias is not None
        if not self.plus:
            weight, bias = (t.unflatten(0, (-1, 2)).transpose(0, 1).flatten(0, 1) for t in (weight, bias))
        # angles reach hundreds of radians, which half precision rounds by a radian
        wide = torch.promote_types(features.dtype, torch.float32)
        with torch.autocast(features.device.type, enabled=False):
            frequencies = F.conv2d(features.to(wide), weight.to(wide), bias.to(wide), padding=1)
        amplitudes = self.coef(features).permute(0, 2, 3, 1).contiguous()
        return Prepared(amplitudes, frequencies.permute(0, 2, 3, 1).contiguous(), image)

    def decode(self, prepared: Prepared, where: Where, *, progress: Progress | None = None) -> Tensor:
        """Colours (B, Q, 3) at positions; see ``Decoder``."""
        return self._colors(prepared, where, self.backend == "reference", progress)

    def reference(self, features: Tensor, image: Tensor, where: Where) -> Tensor:
        """The formula as the paper states it: the waves of each position by themselves.

        Args:
            features: (B, C, h, w) the encoder's map, in float64 for a truth to test against.
            image: (B, 3, h, w) in [-1, 1].

        Returns:
            (B, Q, 3), as ``decode`` gives.
        """
        return self._colors(self.prepare(features, image), where, True)

    def _colors(
        self, prepared: Prepared, where: Where, direct: bool, progress: Progress | None = None
    ) -> Tensor:
        batch, _, h, w = prepared.image.shape
        device, frequencies = prepared.image.device, prepared.frequencies
        cells = where.cells((h, w), batch, device).clamp(min=2 / self.max_scale_cell)
        # by hand: autocast would multiply the matrix in half precision
        phase = (cells.unsqueeze(1) * self.phase.weight.to(frequencies.dtype)).sum(-1)

        def colors(y: Place, x: Place) -> Tensor:
            total = skip(prepared.image, y, x)
            shift = phase.view(batch, *(1,) * (y.index.dim() - 1), -1)
            for low, left in product(axis_corners(*y, h), axis_corners(*x, w)):
                along_y, along_x = read(frequencies, low.pixel, left.pixel).chunk(2, -1)
                angle = math.pi * (along_y * low.delta[..., None] + along_x * left.delta[..., None] + shift)
                waves = torch.cat((angle.cos(), angle.sin()), -1)
                waves = waves * read(prepared.amplitudes, low.pixel, left.pixel)
                total = total + self._mlp(waves) * (low.weight * left.weight).unsqueeze(-1)
            return total

        def window(y: Place, x: Place, y_span: Span, x_span: Span) -> Tensor:
            top, first = max(y_span[0] - 1, 0), max(x_span[0] - 1, 0)
            rows = prepared.amplitudes[:, :, first : x_span[1] + 2], frequencies[:, :, first : x_span[1] + 2]
            cols = frequencies[:, top : y_span[1] + 2]
            down = [(low, _down(*rows, phase, low)) for low in axis_corners(*y, h)]
            across = [(left, _across(cols, left)) for left in axis_corners(*x, w)]
            parts = []
            for start, stop in _parts(y.index.shape[1], x.index.shape[2] * batch):
                total = skip(prepared.image, Place(*(t[:, start:stop] for t in y)), x)
                for (low, waves), (left, turns) in product(down, across):
                    at, beside = low.pixel[:, start:stop].flatten() - top, left.pixel.flatten() - first
                    cos, sin = (wave[:, start:stop].index_select(2, beside) for wave in waves)
                    cos *= turns[0].index_select(1, at)
                    cos += sin.mul_(turns[1].index_select(1, at))
                    weight = low.weight[:, start:stop] * left.weight
                    total = total + self._mlp(cos.flatten(-2)) * weight.unsqueeze(-1)
                parts.append(total)
            return torch.cat(parts, 1)

        if direct:
            return by_blocks(where, (h, w), batch, device, colors, block=BLOCK, progress=progress)
        return by_blocks(where, (h, w), batch, device, colors, window=window, block=BAND, progress=progress)

    def _mlp(self, waves: Tensor) -> Tensor:
        x = waves.to(self.coef.weight.dtype)
        for step in self.layers if self.plus else self.imnet.layers:
            x = F.linear(x, step.weight.flatten(1), step.bias) if isinstance(step, nn.Conv2d) else step(x)
        return x


def _down(amplitudes: Tensor, frequencies: Tensor, phase: Tensor, low: Corner) -> tuple[Tensor, Tensor]:
    """A_1 cos a, A_2 sin a and -A_1 sin a, A_2 cos a of the rows' angle a: twice (B, R, columns, 2, D / 2).

    Then A_1 cos(a + b) and A_2 sin(a + b) are the first pair times cos b plus the second times sin b.
    """
    at = low.pixel.flatten()
    along_y = frequencies.chunk(2, -1)[0].index_select(1, at)
    angle = math.pi * (along_y * low.delta.unsqueeze(-1) + phase.view(len(phase), 1, 1, -1))
    cos, sin, size = angle.cos(), angle.sin(), amplitudes.unflatten(-1, (2, -1)).index_select(1, at)
    return size * torch.stack((cos, sin), -2), size * torch.stack((-sin, cos), -2)


def _across(frequencies: Tensor, left: Corner) -> tuple[Tensor, Tensor]:
    """cos b and sin b of the columns' angle b: twice (B, rows, S, 1, D / 2)."""
    along_x = frequencies.chunk(2, -1)[1].index_select(2, left.pixel.flatten())
    angle = math.pi * along_x * left.delta.unsqueeze(-1)
    return angle.cos().unsqueeze(-2), angle.sin().unsqueeze(-2)


def _parts(rows: int, width: int) -> Iterator[tuple[int, int]]:
    """Nearly equal parts [start, stop) of a band's rows, of about ``BLOCK`` positions."""
    count = min(rows, -(-rows * width // BLOCK))
    return pairwise(rows * i // count for i in range(count + 1))
