"""A window of a decoder that reads one map: band after band of its rows, each with the maps it reads."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from clit_kernels import Grid

from ..axis import Axis
from ..geometry import Pixels
from .bands import BandedMap, cut_rows
from .base import Progress
from .positions import LEAST_PIXELS
from .sampling import border_columns, border_rows


class Band(NamedTuple):
    """Some rows of a window.

    Attributes:
        maps: what the ``BandedMap``s hold for it, one map after the other.
        top, left: row and column of the whole maps at which these begin.
        grid: the band's positions on them.
        rows, cols: the same positions in the picture.
        skip: (B, Q, 3) the image there, bilinearly.
    """

    maps: tuple[Tensor, ...]
    top: int
    left: int
    grid: Grid
    rows: Axis
    cols: Axis
    skip: Tensor


def by_bands(
    where: Pixels,
    image: Tensor,
    maps: Callable[[tuple[int, int]], list[BandedMap]],
    colors: Callable[[Band], Tensor],
    *,
    whole: bool = False,
    progress: Progress | None = None,
) -> Tensor:
    """The colours (B, Q, 3) of a window, row-major, in ``image``'s dtype.

    Args:
        where: the window.
        image: (B, 3, h, w) of the maps' size.
        maps: makes the maps for positions that are nearest to columns [first, last].
        colors: a band's colours (B, Q, 3).
        whole: take whole maps and one band, as the published formulas do.
        progress: called after each band with the share done.
    """
    size = image.shape[2], image.shape[3]
    # products of very few rows differ in their last bits from those of many: see ``Axis.grown``
    rows, above = where.rows.grown(LEAST_PIXELS, size[0])
    cols, before = where.cols.grown(LEAST_PIXELS, size[1])
    grid = Pixels(rows, cols).on(size, image.device)
    columns = border_columns(image, grid)
    banded = maps((0, size[1] - 1) if whole else cols.on_map(0, cols.size, size[1]))
    out = image.new_empty(image.shape[0], rows.size, cols.size, 3)
    for start, stop in cut_rows(banded, rows, banded[0].base, whole=whole):
        ends = (0, size[0] - 1) if whole else rows.on_map(start, stop, size[0])
        found = [one.rows(*ends) for one in banded]
        (top, _), left, part = found[0], banded[0].left, grid.rows(start, stop)
        skip = border_rows(columns, part)
        held = tuple(one for _, parts in found for one in parts)
        band = colors(Band(held, top, left, part.shifted(top, left), rows.part(start, stop), cols, skip))
        out[:, start:stop] = band.unflatten(1, (stop - start, cols.size))
        if progress is not None:
            progress(stop / rows.size)
    height, width = where.size
    return out[:, above : above + height, before : before + width].flatten(1, 2)
