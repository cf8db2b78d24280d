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
    seen = F.unfold(features.double(), side, padding=side // 2).transpose(1, 2).flatten(0, 1)
    colors = image.double().flatten(2).transpose(1, 2).flatten(0, 1)
    squares = seen.T @ seen
    squares.diagonal().add_(RIDGE * squares.diagonal().mean())
    return torch.linalg.solve(squares, seen.T @ colors).T.to(features.dtype)
