"""A window, band after band of its rows, each with the part of every map that it reads."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from torch import Tensor

from clit_kernels import Grid

from ..axis import Axis
from ..geometry import Pixels, Size
from .bands import BandedMap, Span, cut_rows
from .base import Progress
from .positions import LEAST_PIXELS
from .sampling import border_columns, border_rows


class Part(NamedTuple):
    """What a band reads of one ``BandedMap``.

    Attributes:
        maps: its parts.
        top, left: row and column of the whole map at which they begin.
        grid: the band's positions on them.
    """

    maps: tuple[Tensor, ...]
    top: int
    left: int
    grid: Grid


class Band(NamedTuple):
    """Some rows of a window.

    Attributes:
        parts: of the maps in their order, each made when it is asked for.
        rows, cols: the positions in the picture.
        skip: (B, Q, 3) the image there, bilinearly.
    """

    parts: Iterator[Part]
    rows: Axis
    cols: Axis
    skip: Tensor


def by_bands(
    where: Pixels,
    image: Tensor,
    sizes: Sequence[Size],
    maps: Callable[[int, Span], BandedMap],
    colors: Callable[[Band], Tensor],
    *,
    whole: bool = False,
    progress: Progress | None = None,
) -> Tensor:
    """The colours (B, Q, 3) of a window, row-major, in ``image``'s dtype.

    Args:
        where: the window.
        image: (B, 3, h, w).
        sizes: of the maps.
        maps: makes the i-th map for positions that are nearest to its columns [first, last].
        colors: a band's colours (B, Q, 3).
        whole: take whole maps and one band, as the published formulas do.
        progress: called after each band with the share done.
    """
    # products of very few rows differ in their last bits from those of many: see ``Axis.grown``
    rows, above = where.rows.grown(LEAST_PIXELS, *(size[0] for size in sizes))
    cols, before = where.cols.grown(LEAST_PIXELS, *(size[1] for size in sizes))
    grown = Pixels(rows, cols)
    banded = [
        maps(i, (0, w - 1) if whole else cols.on_map(0, cols.size, w)) for i, (_, w) in enumerate(sizes)
    ]
    grids = [grown.on(one.size, image.device).shifted(0, one.left) for one in banded]
    on_image = grown.on((image.shape[2], image.shape[3]), image.device)
    across = border_columns(image, on_image)

    def parts(start: int, stop: int) -> Iterator[Part]:
        for one, grid in zip(banded, grids, strict=True):
            ends = (0, one.size[0] - 1) if whole else rows.on_map(start, stop, one.size[0])
            top, held = one.rows(*ends)
            yield Part(held, top, one.left, grid.rows(start, stop).shifted(top))

    out = image.new_empty(image.shape[0], rows.size, cols.size, 3)
    for start, stop in cut_rows(banded, rows, banded[0].base, whole=whole):
        skip = border_rows(across, on_image.rows(start, stop))
        found = colors(Band(parts(start, stop), rows.part(start, stop), cols, skip))
        out[:, start:stop] = found.unflatten(1, (stop - start, cols.size))
        if progress is not None:
            progress(stop / rows.size)
    height, width = where.size
    return out[:, above : above + height, before : before + width].flatten(1, 2)
