"""Transparency: what the model sees under it, and its own enlargement."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..geometry import Pixels


def fill_hidden(color: Tensor, alpha: Tensor | None) -> Tensor:
    """Give the fully transparent pixels the colours of the visible ones around them.

    What a file stores under alpha = 0 is arbitrary (often black or white), and a network would draw its edge
    into the visible border. Push-pull interpolation (Gortler et al., The Lumigraph, 1996): average the
    alpha-weighted colours over a pyramid, then fill each level's holes from the coarser one.

    Args:
        color: (B, 3, h, w).
        alpha: (B, 1, h, w), or None, which leaves the colours as they are.

    Returns:
        (B, 3, h, w); visible pixels are left as they are.
    """
    if alpha is None or (alpha > 0).all():
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
    return torch.where(alpha > 0, color, filled)


def enlarge_alpha(alpha: Tensor, where: Pixels) -> Tensor:
    """Alpha at a window's pixels by bicubic interpolation.

    Keys' with a = -0.5 and, at the borders, with the weights of the pixels that exist: what Pillow's and
    MATLAB's ``imresize`` compute for an enlargement.

    Args:
        alpha: (B, 1, h, w) in [0, 1].
        where: the pixels asked for. A window of the whole's grid equals its crop to the last bit.

    Returns:
        (B, 1, H, W) in [0, 1].
    """
    rows = _cubic(alpha, 2, *where.rows.on(alpha.shape[2], alpha.device))
    return _cubic(rows, 3, *where.cols.on(alpha.shape[3], alpha.device)).clamp_(0, 1)


def _cubic(x: Tensor, dim: int, index: Tensor, offset: Tensor) -> Tensor:
    """Cubic interpolation of ``x`` along ``dim`` at positions ``index + offset``."""
    n, below = x.shape[dim], (offset < 0).long()
    around = torch.arange(-1, 3, device=x.device)[:, None]
    taps, d = index - below + around, (offset + below - around).abs()
    weights = torch.where(d <= 1, (1.5 * d - 2.5) * d * d + 1, ((2.5 - 0.5 * d) * d - 4) * d + 2)
    weights = torch.where((taps >= 0) & (taps < n), weights, 0.0)
    weights = weights / weights.sum(dim=0)
    shape = (-1,) + (1,) * (x.dim() - 1 - dim)
    # Products and sums one after the other: the same pixel then gets the same bits in every window.
    return sum(
        x.index_select(dim, tap) * weight.view(shape) for tap, weight in zip(taps.clamp(0, n - 1), weights)
    )
