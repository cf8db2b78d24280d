"""Transparency: what the model sees under it, and its own enlargement."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..geometry import Pixels


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


def enlarge_alpha(alpha: Tensor, where: Pixels) -> Tensor:
    """Alpha (B, 1, h, w) at a window's pixels (B, 1, H, W), clamped to [0, 1].

    Bicubic with a = -0.5 and, at the borders, with the weights of the pixels that exist: what Pillow's and
    MATLAB's ``imresize`` compute for an enlargement.
    """
    rows = _cubic(alpha, 2, *where.rows.on(alpha.shape[2], alpha.device))
    return _cubic(rows, 3, *where.cols.on(alpha.shape[3], alpha.device)).clamp(0, 1)


def _cubic(x: Tensor, dim: int, index: Tensor, offset: Tensor) -> Tensor:
    """Cubic interpolation of ``x`` along ``dim`` at positions ``index + offset``."""
    n, below = x.shape[dim], (offset < 0).long()
    low, fraction = index - below, offset + below
    total, weights = torch.zeros((), device=x.device), torch.zeros((), device=x.device)
    for tap in (-1, 0, 1, 2):
        d, pixel = (fraction - tap).abs(), low + tap
        weight = torch.where(d <= 1, (1.5 * d - 2.5) * d * d + 1, ((2.5 - 0.5 * d) * d - 4) * d + 2)
        weight = torch.where((pixel >= 0) & (pixel < n), weight, 0.0)
        shape = [-1 if axis == dim else 1 for axis in range(x.dim())]
        total = total + x.index_select(dim, pixel.clamp(0, n - 1)) * weight.view(shape)
        weights = weights + weight
    return total / weights.view(shape)
