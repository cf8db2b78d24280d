"""UltraSR, reconstructed (Xu, Wang and Shi, 2021, arXiv:2103.12716).

LIIF whose MLP reads the position as waves too, again in every layer. The authors published neither code nor
weights, and what they describe leaves open how many waves there are, their frequencies and whether the cell
is read: these are our choice, as is the order in which a layer's inputs stand. So no figure of the paper need
come out.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .liif import LIIF


class UltraSR(LIIF):
    """LIIF with a position's waves in every layer; reconstructed.

    Args:
        in_channels: channels of the encoder's map.
        bands: frequencies along each axis, from 1 to 64 radians per half pixel, evenly in their logarithm.
        hidden_dims, feat_unfold, local_ensemble, cell_decode: as in LIIF.
    """

    every_layer = True

    def __init__(
        self,
        in_channels: int,
        *,
        bands: int = 12,
        hidden_dims: Sequence[int] = (256, 256, 256, 256),
        feat_unfold: bool = True,
        local_ensemble: bool = True,
        cell_decode: bool = True,
    ):
        self.bands, self.numbers = bands, 1 + 2 * bands
        super().__init__(
            in_channels,
            hidden_dims=hidden_dims,
            feat_unfold=feat_unfold,
            local_ensemble=local_ensemble,
            cell_decode=cell_decode,
        )

    def encode(self, delta: Tensor, cell: Tensor) -> Tensor:
        """The position, the sines and the cosines of its waves; see ``LIIF``."""
        frequencies = 2 ** torch.linspace(0, 6, self.bands, dtype=delta.dtype, device=delta.device)
        angle = delta.unsqueeze(-1) * frequencies
        return torch.cat((delta.unsqueeze(-1), angle.sin(), angle.cos()), -1)
