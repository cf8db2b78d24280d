"""The four feature pixels around a position, one axis at a time: LIIF's local ensemble, and a wider one.

In exact arithmetic the area weights of the four corners are products of one weight for each axis. The
authors' code adds 1e-9 to every area instead; where a position lies exactly on the last pixel's centre, all
four areas fall to that and the other axis loses its interpolation. Here such a position has the limit from
both sides.
"""

from typing import NamedTuple

import torch
from torch import Tensor

NUDGE = 1e-6
"""Added to positions in [-1, 1] before they go to the nearest pixel, so that half-way ones go up."""


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


class Neighbour(NamedTuple):
    """One side's feature pixel along an axis, for Q positions.

    Attributes:
        pixel, delta: as in ``Corner``.
    """

    pixel: Tensor
    delta: Tensor


def wide_corners(
    index: Tensor, offset: Tensor, n: int, cell: Tensor, whole: int
) -> tuple[Neighbour, Neighbour]:
    """The pixels nearest to what lies half a step to each side of positions, as ITSRN and CiaoSR take them.

    The step is (1 - c) / (n - 1) of the picture, c an output pixel's share of it, so it is a little over a
    pixel at scales above CiaoSR's 2: near a pixel's centre, both of its neighbours are the corners.

    Args:
        index, offset, n: as for ``axis_corners``.
        cell: an output pixel's size as the system counts it, in pixels of the map.
        whole: pixels of the whole picture's map, where this one is a part of it.
    """
    half = (whole - cell) / (2 * max(whole - 1, 1))
    position = offset + NUDGE * whole / 2 + 0.5
    found = []
    for side in (position - half, position + half):
        pixel = (index + side.floor().long()).clamp(0, n - 1)
        found.append(Neighbour(pixel, 2 * ((index - pixel).to(offset.dtype) + offset)))
    return found[0], found[1]
