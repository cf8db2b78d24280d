"""IPE: integrated positional encoding in LIIF, reconstructed (Liu, Guo and Zhang, 2021, arXiv:2112.05756).

LIIF whose MLP reads, instead of the position and the cell, the mean of the position's waves over the output
pixel. With g for half the pixel's side, the mean of sin(w t) for t from d - g to d + g is
sin(w d) * sin(w g) / (w g), and that of the cosine likewise. The authors published neither code nor weights:
the formula is theirs, the frequencies, and that the position itself is read too, are our choice. So no figure
of the paper need come out.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .liif import LIIF


class IPE(LIIF):
    """LIIF with the mean of a position's waves over the output pixel; reconstructed.

    Args:
        in_channels: channels of the encoder's map.
        bands: frequencies along each axis: 1, 2, 4 … radians per half pixel.
        hidden_dims, feat_unfold, local_ensemble: as in LIIF.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        bands: int = 10,
        hidden_dims: Sequence[int] = (256, 256, 256, 256),
        feat_unfold: bool = True,
        local_ensemble: bool = True,
    ):
        self.bands, self.numbers = bands, 1 + 2 * bands
        super().__init__(
            in_channels,
            hidden_dims=hidden_dims,
            feat_unfold=feat_unfold,
            local_ensemble=local_ensemble,
            cell_decode=False,
        )

    def encode(self, delta: Tensor, cell: Tensor) -> Tensor:
        """The position, and the means of the sines and the cosines of its waves; see ``LIIF``."""
        frequencies = 2.0 ** torch.arange(self.bands, dtype=delta.dtype, device=delta.device)
        angle = delta.unsqueeze(-1) * frequencies
        share = torch.sinc((cell / 2).unsqueeze(-1) * frequencies / math.pi)  # sinc has pi in it
        waves = torch.cat((angle.sin(), angle.cos()), -1) * torch.cat((share, share), -1)
        return torch.cat((delta.unsqueeze(-1).expand(*waves.shape[:-1], 1), waves), -1)
