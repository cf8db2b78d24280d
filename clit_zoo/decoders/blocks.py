"""A later stage's q, k and v maps around small blocks of queries only: what makes training a cascade cheap.

Stage 3's map is up to 16 times the patch on a side: 768 x 768 pixels for the paper's 48 x 48, of which the
2,304 queries of a training step read a hundredth. Queries that come in blocks of a few pixels need the map
there and a halo around, and give the same numbers.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from clit_kernels import Points
from clit_kernels.position_bias import has_float64

from ..geometry import Size

CONV_HALO = 1
"""Pixels that a 3x3 convolution reads beyond its output."""


def block_maps(
    base: Tensor, size: Size, points: Points, span: float, radius: int, weight: Tensor, bias: Tensor
) -> tuple[tuple[Tensor, ...], Points]:
    """The stage's maps around each block, and the queries' positions there.

    Args:
        base: (B, C, h, w) map that all stages share.
        size: this stage's map size, to which the base is resampled bilinearly with zero padding.
        points: (B, n, Q, 2) nearest pixels and offsets of n blocks of queries on that map.
        span: largest extent of a block, in pictures: 8 / m for blocks of 8 pixels of an m-pixel map.
        radius: window radius.
        weight, bias: (3C, C, 3, 3), (3C,) of the stage's three convolutions.

    Returns:
        q, k, v (B * n, C, L, L), zero where they lie outside the stage's map, and the queries on them.
    """
    batch, blocks, per_block, _ = points.index.shape
    halo = max(radius, 1)
    first = points.index.amin(2) - halo  # (B, n, 2)
    lengths = [int(span * n) + 2 + 2 * halo for n in size]
    windows = base.permute(0, 2, 3, 1)
    rows, inside_y = _resample(first[..., 0], lengths[0], base.shape[2], size[0], base.dtype)
    cols, inside_x = _resample(first[..., 1], lengths[1], base.shape[3], size[1], base.dtype)
    # products with the (few) weights rather than gathers: the backward pass then has no atomic additions
    windows = torch.matmul(rows.flatten(1, 2), windows.flatten(2)).unflatten(2, windows.shape[2:])
    windows = torch.matmul(cols.unsqueeze(2), windows.unflatten(1, rows.shape[1:3]))
    windows = windows.flatten(0, 1).permute(0, 3, 1, 2)
    maps = F.conv2d(windows, weight, bias)
    inside = inside_y.unsqueeze(-1) & inside_x.unsqueeze(-2)
    maps = maps * inside.flatten(0, 1).unsqueeze(1).to(maps.dtype)
    local = Points(
        (points.index - first.unsqueeze(2)).reshape(batch * blocks, per_block, 2),
        points.offset.reshape(batch * blocks, per_block, 2),
    )
    return maps.chunk(3, 1), local


def _resample(first: Tensor, length: int, n: int, m: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Bilinear weights (B, blocks, length + 2, n) of pixels ``first - 1`` on of an m-pixel axis on n pixels.

    A pixel outside the m has no weight. Also returns which of the ``length`` inner pixels lie inside.
    """
    reach = length + 2 * CONV_HALO
    pixel = first.unsqueeze(-1) - CONV_HALO + torch.arange(reach, device=first.device)
    wide = torch.float64 if has_float64(first.device) else torch.float32
    position = ((2 * pixel + 1) * n - m).to(wide) / (2 * m)
    distance = (position.unsqueeze(-1) - torch.arange(n, device=first.device)).abs()
    inside = (pixel >= 0) & (pixel < m)
    weights = (1 - distance).clamp(min=0) * inside.unsqueeze(-1)
    return weights.to(dtype), inside[..., CONV_HALO:-CONV_HALO]
