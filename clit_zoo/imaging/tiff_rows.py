"""TIFFs of any size: their rows are decoded when they are asked for, strip by strip or tile by tile."""

import math
import threading
from typing import Any

import numpy as np
import tifffile
import torch
from torch import Tensor

from ..errors import ImageError
from . import tiff
from .metadata import fitting_icc
from .picture import Picture

LAZY_PIXELS = 1 << 26
"""Larger pictures are read by rows, where they can be."""

_DTYPES = {"u1": torch.uint8, "u2": torch.uint16}


class TiffRows:
    """``Samples`` of the first page of a TIFF, decoded from top to bottom as they are asked for.

    The rows asked for last are kept, because the next ones overlap them. Threads may share it.

    Args:
        path: of a file whose page ``can_be_read_by_rows``. It stays open.
    """

    def __init__(self, path: str):
        self._source, self._page = path, tifffile.TiffFile(path).pages[0]
        page: Any = self._page
        self.shape = (1, page.samplesperpixel, page.imagelength, page.imagewidth)
        self.dtype = _DTYPES[page.dtype.str[1:]]
        kind = page.dtype.newbyteorder("=")
        self._kept, self._top = np.empty((0, page.imagewidth, page.samplesperpixel), kind), 0
        self._lock = threading.Lock()

    def __getitem__(self, where: tuple[slice, slice, slice, slice]) -> Tensor:
        top, bottom, _ = where[2].indices(self.shape[2])
        with self._lock:
            rows = self._rows(top, bottom)
        part = np.ascontiguousarray(rows[:, where[3]])
        return torch.from_numpy(part).movedim(-1, 0)[None][where[:2]]

    def _rows(self, top: int, bottom: int) -> np.ndarray:
        """Rows [top, bottom), (rows, w, c)."""
        rows = np.empty((max(bottom - top, 0), self.shape[3], self.shape[1]), self._kept.dtype)
        start, kept = top, self._kept[max(top - self._top, 0) : max(bottom - self._top, 0)]
        if self._top <= top:
            rows[: len(kept)] = kept
            start += len(kept)
        try:
            self._decode(start, bottom, rows[start - top :])
        except Exception as error:  # decoders raise nearly anything on damaged files
            raise ImageError(damaged(error, self._source)) from error
        self._kept, self._top = rows, top
        return rows

    def _decode(self, top: int, bottom: int, out: np.ndarray) -> None:
        page: Any = self._page
        high = page.tilelength if page.is_tiled else page.rowsperstrip
        across = math.ceil(page.imagewidth / page.tilewidth) if page.is_tiled else 1
        file = page.parent.filehandle
        if top >= bottom:
            return
        for index in range(top // high * across, math.ceil(bottom / high) * across):
            file.seek(page.dataoffsets[index])
            data = file.read(page.databytecounts[index])
            segment, (_, _, y, x, _), (_, rows, cols, _) = page.decode(data, index)
            part = segment[0][:, : self.shape[3] - x]  # tiles reach beyond the picture
            first, last = max(top, y), min(bottom, y + rows)
            if first < last:
                out[first - top : last - top, x : x + cols] = part[first - y : last - y]


def damaged(error: Exception, source: str) -> str:
    """What a decoder's error means."""
    reason = str(error) or type(error).__name__
    return f"{source} is damaged or incomplete ({reason}); copy or download it again."


def can_be_read_by_rows(page: Any) -> bool:
    """Whether it is large, and plain: gray or RGB of 8 or 16 bits in strips or tiles of bounded size."""
    rows, cols = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
    alpha = [int(extra) for extra in page.extrasamples]
    return (
        page.imagelength * page.imagewidth > LAZY_PIXELS
        and page.dtype is not None
        and page.dtype.str[1:] in _DTYPES
        and page.bitspersample in (8, 16)
        and (page.photometric, page.samplesperpixel - len(alpha)) in ((1, 1), (2, 3))
        and alpha in ([], [2])
        and (page.planarconfig == 1 or page.samplesperpixel == 1)
        and page.compression in tiff.BYTEWISE
        and page.imagedepth == 1
        and page.tags.valueof(274, 1) in (0, 1)
        and rows * cols * page.samplesperpixel * page.dtype.itemsize <= tiff.MAX_TILE_BYTES
    )


def read_by_rows(page: Any, source: str) -> Picture:
    """The Picture of a page that ``can_be_read_by_rows``.

    Raises:
        ImageError: some of its strips or tiles are missing.
    """
    tiff.check_segments(page, source)
    samples, kept = TiffRows(source), tiff.metadata_of(page)
    kept = kept._replace(icc=fitting_icc(kept.icc, samples.shape[1] < 3))
    return Picture(samples, page.bitspersample, kept, tiff.several(page, source), source)
