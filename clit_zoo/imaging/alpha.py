"""Transparency: what the model sees under it, and its own enlargement."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def fill_hidden(color: Tensor, alpha: Tensor) -> Tensor:
    """Give the fully transparent pixels of `color` (B, 3, h, w) the colours of the visible ones around them.

    What a file stores under alpha = 0 is arbitrary (often black or white), and a network would draw its edge
    into the visible border. Push-pull interpolation (Gortler et al., The Lumigraph, 1996): average the
    alpha-weighted colours over a pyramid, then fill each level's holes from the coarser one. Visible pixels
    are left as they are.
    """
    hidden = alpha <= 0
    if not hidden.any():
        return color
    pyramid = [(color * alpha, alpha)]
    while max(pyramid[-1][1].shape[-2:]) > 1:
        weighted, weight = pyramid[-1]
        pool = [2 if side > 1 else 1 for side in weight.shape[-2:]]
        pyramid.append(
            (F.avg_pool2d(weighted, pool, ceil_mode=True), F.avg_pool2d(weight, pool, ceil_mode=True))
        )
    # Where nothing at all is visible, keep a neutral gray.
    filled = torch.full_like(pyramid[-1][0], 0.5)
    for weighted, weight in reversed(pyramid):
        filled = F.interpolate(filled, size=weight.shape[-2:], mode="bilinear", align_corners=False)
        filled = torch.where(weight > 0, weighted / weight.clamp_min(1e-12), filled)
    return torch.where(hidden, filled, color)


def enlarge_alpha(alpha: Tensor, size: tuple[int, int]) -> Tensor:
    """Bicubic (a = -0.5, as Pillow's and MATLAB's), clamped to [0, 1]: (B, 1, h, w) -> (B, 1, *size)."""
    return F.interpolate(alpha, size=size, mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)
