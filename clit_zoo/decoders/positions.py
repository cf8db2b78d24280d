"""Positions, block after block: how a decoder that reads one map goes through those it is asked for.

A window's blocks are bands of rows, whose tensors broadcast over rows x columns, so that what depends on one
axis is computed once for each row or column and nothing is gathered one by one. A list's blocks are parts.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from clit_kernels import Points
from clit_kernels.queries import as_points, gather_pixels

from ..geometry import Pixels, Size, Where
from .base import Progress
from .sampling import resample_axis, sample_border

BLOCK = 1 << 14
"""Positions in a block: 16 MB for each hidden layer of 256, small beside a picture."""

LEAST_PIXELS = 16
"""Output rows and columns that are decoded at least; see ``Axis.grown``."""


class Place(NamedTuple):
    """A block's positions along one axis of the map: (1, R, 1) rows, (1, 1, S) columns, or a list (B, Q).

    ``index`` int64 nearest pixels; ``offset`` float32 from their centres, in pixels of the map.
    """

    index: Tensor  # type: ignore[assignment]
    offset: Tensor


def by_blocks(
    where: Where,
    size: Size,
    batch: int,
    device: torch.device,
    colors: Callable[[Place, Place], Tensor],
    *,
    block: int | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """The colours (B, Q, 3) of all positions, in their order.

    Args:
        where: the positions.
        size: (h, w) of the map they are read on.
        batch, device: of the maps.
        colors: a block's colours (B, R, S, 3) or (B, Q, 3), from its places along y and x.
        block: positions of all images in a block, ``BLOCK`` where left out; with gradients a list is one.
        progress: called after each block with the share done.
    """
    if isinstance(where, Pixels):
        return _window(where, size, batch, device, colors, block or BLOCK, progress)
    points = as_points(where.on(size, device), batch)
    step = max(1, points.count if torch.is_grad_enabled() else (block or BLOCK) // batch)
    parts = []
    for start in range(0, points.count, step):
        y, x = (
            Place(points.index[:, start : start + step, i], points.offset[:, start : start + step, i])
            for i in (0, 1)
        )
        parts.append(colors(y, x))
        if progress is not None:
            progress(min(1.0, (start + step) / points.count))
    return torch.cat(parts, 1) if parts else torch.zeros(batch, 0, 3, device=device)


def read(x: Tensor, y: Tensor, col: Tensor) -> Tensor:
    """``x`` (B, h, w, C) at a block's pixels, rows ``y`` and columns ``col`` -> (B, R, S, C) or (B, Q, C)."""
    if y.dim() == 3:
        return x.index_select(1, y.flatten()).index_select(2, col.flatten())
    return gather_pixels(x.permute(0, 3, 1, 2), torch.stack((y, col), -1))


def skip(image: Tensor, y: Place, x: Place) -> Tensor:
    """``image`` (B, 3, h, w), bilinearly at a block's positions -> (B, R, S, 3) or (B, Q, 3)."""
    if y.index.dim() == 3:
        rows = resample_axis(image, 2, y.index.flatten(), y.offset.flatten(), "border")
        return resample_axis(rows, 3, x.index.flatten(), x.offset.flatten(), "border").permute(0, 2, 3, 1)
    points = (torch.stack((y.index, x.index), -1), torch.stack((y.offset, x.offset), -1))
    return sample_border(image, Points(*points))


def _window(
    where: Pixels,
    size: Size,
    batch: int,
    device: torch.device,
    colors: Callable[[Place, Place], Tensor],
    block: int,
    progress: Progress | None,
) -> Tensor:
    (rows, above), (cols, before) = where.rows.grown(LEAST_PIXELS), where.cols.grown(LEAST_PIXELS)
    x = Place(*(t.view(1, 1, -1) for t in cols.on(size[1], device)))
    out: Tensor | None = None
    step = max(1, block // (cols.size * batch))
    for start in range(0, rows.size, step):
        stop = min(start + step, rows.size)
        y = Place(*(t.view(1, -1, 1) for t in rows.part(start, stop).on(size[0], device)))
        band = colors(y, x)
        if out is None:
            out = band.new_empty(batch, rows.size, cols.size, 3)
        out[:, start:stop] = band
        if progress is not None:
            progress(stop / rows.size)
    assert out is not None
    height, width = where.size
    return out[:, above : above + height, before : before + width].flatten(1, 2)
