"""Colours from features: where new decoders begin that give whole colours, and add nothing to the picture."""

import torch
import torch.nn.functional as F
from torch import Tensor

RIDGE = 1e-6
"""Share of the features' mean square that is added to each, so that there is one best map."""


def colors_from(features: Tensor, image: Tensor, side: int) -> Tensor:
    """The linear map that tells a pixel's colour best from the features around it, by least squares.

    Args:
        features: (B, C, h, w).
        image: (B, 3, h, w).
        side: rows and columns of features that are read.

    Returns:
        (3, C * side * side), in ``features``' dtype.
    """
    count = features.shape[1] * side * side
    squares, products = (features.new_zeros(count, n, dtype=torch.float64) for n in (count, 3))
    for one, colors in zip(features.split(1), image.double().flatten(2), strict=True):
        # one after the other, as 16 of 256x256 and 64 channels would unfold to 5 GB
        seen = F.unfold(one.double(), side, padding=side // 2)[0]
        squares += seen @ seen.T
        products += seen @ colors.T
    squares.diagonal().add_(RIDGE * squares.diagonal().mean())
    return torch.linalg.solve(squares, products).T.to(features.dtype)
