"""Transparency: what the model sees under it, and its own enlargement."""

from fractions import Fraction
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


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


def enlarge_alpha(alpha: Tensor, size: tuple[int, int], box: tuple[Any, Any, Any, Any] | None = None) -> Tensor:
    """Alpha at another size by bicubic interpolation (Keys, a = -0.5, as Pillow's and MATLAB's), clamped.

    Args:
        alpha: (B, 1, h, w) in [0, 1].
        size: (H, W) of the result, not below that of the box.
        box: (left, top, right, bottom) in pixels of ``alpha``, the whole where None. Given as ints or
            ``Fraction``, a window of the whole's grid equals its crop to the last bit.

    Returns:
        (B, 1, H, W) float32 in [0, 1].
    """
    left, top, right, bottom = box or (0, 0, alpha.shape[-1], alpha.shape[-2])
    rows, row_weights = _taps(alpha.shape[-2], size[0], Fraction(top), Fraction(bottom))
    columns, column_weights = _taps(alpha.shape[-1], size[1], Fraction(left), Fraction(right))
    # Products and sums one after the other: the same pixel then gets the same bits in every window.
    tall = sum(alpha[:, :, tap] * weight[:, None] for tap, weight in zip(rows, row_weights))
    wide = sum(tall[:, :, :, tap] * weight for tap, weight in zip(columns, column_weights))
    return wide.clamp_(0, 1)


def _taps(side: int, count: int, start: Fraction, end: Fraction) -> tuple[Tensor, Tensor]:
    """Indices and weights (4, count) of the input pixels that make each of ``count`` output pixels."""
    step = (end - start) / count
    centres = [float(start + step * i + (step - 1) / 2) for i in range(count)]
    position = torch.tensor(centres, dtype=torch.float64)
    taps = position.floor() + torch.arange(-1, 3)[:, None]
    t = (position - taps).abs()
    weights = torch.where(t < 1, (1.5 * t - 2.5) * t * t + 1, ((-0.5 * t + 2.5) * t - 4) * t + 2)
    weights[(taps < 0) | (taps >= side) | (t >= 2)] = 0
    weights /= weights.sum(dim=0)
    return taps.clamp(0, side - 1).long(), weights.float()
