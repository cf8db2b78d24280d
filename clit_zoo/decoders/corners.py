"""The four feature pixels around a position and their weights: LIIF's local ensemble, one axis at a time.

In exact arithmetic the area weights of the four corners are products of one weight for each axis. The
authors' code adds 1e-9 to every area instead; where a position lies exactly on the last pixel's centre, all
four areas fall to that and the other axis loses its interpolation. Here such a position has the limit from
both sides.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Corner(NamedTuple):
    """One side's corner along an axis, for Q positions.

    Attributes:
        pixel: (..., Q) int64 feature pixels.
        delta: (..., Q) float32 position relative to them, in half pixels.
        weight: (..., Q) float32; the two sides' weights sum to 1.
    """

    pixel: Tensor
    delta: Tensor
    weight: Tensor


def axis_corners(index: Tensor, offset: Tensor, n: int) -> tuple[Corner, Corner]:
    """The pixels below and above positions on an n-pixel axis, which may be one pixel at its ends.

    Args:
        index, offset: nearest pixels and offsets from them, in pixels, as ``Grid`` and ``Points`` hold them.
    """
    below = index - (offset < 0).long()
    sides = [(below + i).clamp(0, n - 1) for i in (0, 1)]
    low, high = ((index - side).to(offset.dtype) + offset for side in sides)
    total = low.abs() + high.abs()
    share = torch.where(total > 0, high.abs() / total.clamp(min=torch.finfo(offset.dtype).tiny), 0.5)
    return Corner(sides[0], 2 * low, share), Corner(sides[1], 2 * high, 1 - share)
