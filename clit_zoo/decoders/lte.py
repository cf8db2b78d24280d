"""LTE and LTE+: local texture estimator (Lee and Jin, CVPR 2022, arXiv:2111.08918).

Two convolutions give each feature pixel amplitudes A and frequencies (f_y, f_x), and the cell gives phases.
For a position and each of the four feature pixels p_t around it (``corners``), an MLP reads waves of them:

    theta = pi * (f_y(p_t) dy + f_x(p_t) dx + phase(cell))
    z_t = MLP(A(p_t) * [cos theta, sin theta]),  output = sum_t w_t z_t + the picture, bilinearly

Amplitude and position are multiplied before the first layer, so that nothing of it can be computed once for
each feature pixel, and this is the formula as it stands. Waves made once for each row and column, joined by
the angle-sum identities, were slower: 1.13 times at x4, 1.19 times at x8 on a CPU. Parameter names are the
authors'.
"""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import pairwise, product
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.amp import is_autocast_available

from ..geometry import Frame, Where
from .base import Decoder, Progress
from .corners import axis_corners
from .mlp import MLP
from .positions import Place, by_blocks, read, skip

BLOCK = 1 << 11
"""Positions whose waves meet the MLP together: 2 MB, which a processor's cache keeps."""


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
        device = features.device.type
        with torch.autocast(device, enabled=False) if is_autocast_available(device) else nullcontext():
            frequencies = F.conv2d(features.to(wide), weight.to(wide), bias.to(wide), padding=1)
        amplitudes = self.coef(features).permute(0, 2, 3, 1).contiguous()
        return Prepared(amplitudes, frequencies.permute(0, 2, 3, 1).contiguous(), image)

    def decode(self, prepared: Prepared, where: Where, *, progress: Progress | None = None) -> Tensor:
        """Colours (B, Q, 3) at positions; see ``Decoder``."""
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

        return by_blocks(where, (h, w), batch, device, colors, block=BLOCK, progress=progress)

    def _mlp(self, waves: Tensor) -> Tensor:
        x = waves.to(self.coef.weight.dtype)
        for step in self.layers if self.plus else self.imnet.layers:
            x = F.linear(x, step.weight.flatten(1), step.bias) if isinstance(step, nn.Conv2d) else step(x)
        return x
