"""Outputs of any size: finished rows go to a spool file beside the target, and from there into the format.

TIFF is written by tifffile, the other formats by libvips (the extra ``large``), which reads the spool and
writes in one pass of a few rows. libvips loses metadata (EXIF in TIFF, text beyond ASCII), so what stands
before the pixels of a JPEG or PNG is that of a picture of one pixel written as small pictures are.
"""

import importlib.util
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import numpy as np

from ..atomic import replacing
from ..errors import ImageError
from . import tiff
from .formats import Format
from .metadata import Metadata
from .spool import HEAD_BYTES, Spool, spool_path
from .write import DEFAULT_QUALITY, encoded

LARGE_BYTES = 1 << 28
"""Outputs of more samples go by way of a spool: 89 megapixels of 8-bit RGB."""

VIPS_FORMATS = {"jpeg": 65_500, "png": 2**31 - 1}
"""What libvips writes here, and the largest side: libjpeg's own is a little below JPEG's."""

TILE_SIDE = 512

Rows = Callable[[int], Iterator[np.ndarray]]
"""Finished rows from a row on: 0, or one that a band began with."""


def is_large(form: Format, output_bytes: int, size: tuple[int, int]) -> bool:
    """Whether an output goes by way of a spool: it is large, and there is something that can write it so."""
    if output_bytes <= LARGE_BYTES:
        return False
    if form.name == "tiff":
        return True
    return max(size) <= VIPS_FORMATS.get(form.name, 0) and importlib.util.find_spec("pyvips") is not None


def write_large(
    rows: Rows,
    shape: tuple[int, int, int],
    dtype: np.dtype,
    kept: Metadata,
    path: Path,
    form: Format,
    quality: int | None,
    identity: str,
) -> None:
    """Write an output, whole or not at all. Stopped, it goes on at its last finished band when called again.

    Args:
        rows: gives them.
        shape: (H, W, c) of them all.
        dtype: of their samples.
        kept: stands beside the pixels.
        path: the output.
        form: its format.
        quality: of a JPEG.
        identity: says what the rows are made of: a spool of other rows is begun anew.

    Raises:
        ImageError: the disk has no room for it, another run is at it, or it cannot be written.
    """
    try:
        with Spool(path, shape, dtype, identity) as spool:
            _check_room(spool, path)
            if spool.done < shape[0]:
                for band in rows(spool.done):
                    spool.append(band)
            with replacing(path) as part:
                if form.name == "tiff":
                    _tiff(spool, part, kept)
                else:
                    _vips(spool, part, kept, form, quality or DEFAULT_QUALITY)
            spool.remove()
    except OSError as error:
        raise ImageError(f"cannot write {path}: {error.strerror or error}. {_where(path)}") from error


def _where(path: Path) -> str:
    return f"What is finished stands in {spool_path(path)}: the same command goes on from there."


def _check_room(spool: Spool, path: Path) -> None:
    """Refuse before the work what the disk cannot hold: the spool, and beside it the output."""
    free = shutil.disk_usage(path.parent).free
    whole = spool.shape[0] * spool.row_bytes
    needed = spool.missing_bytes + whole  # samples that do not compress are no larger than that
    if needed > free:
        raise ImageError(
            f"{path} needs up to {needed / 1e9:.1f} GB of disk while it is made, and {path.parent} has "
            f"{free / 1e9:.1f} GB free; make room, or write it to another disk."
        )


def _tiff(spool: Spool, part: Path, kept: Metadata) -> None:
    with open(part, "r+b") as file:
        tiff.write(file, spool.tiles(TILE_SIDE), spool.shape, spool.dtype, kept, tile=TILE_SIDE)


def _vips(spool: Spool, part: Path, kept: Metadata, form: Format, quality: int) -> None:
    import pyvips

    height, width, channels = spool.shape
    wide = spool.dtype.itemsize == 2
    kinds = {False: ("b-w", "srgb"), True: ("grey16", "rgb16")}[wide]
    pixels = pyvips.Image.rawload(
        os.fspath(spool.path), width, height, channels, offset=HEAD_BYTES,
        format="ushort" if wide else "uchar", interpretation=kinds[channels > 2],
    )  # fmt: skip
    body = part.with_name(part.name.removesuffix(".part") + "0.part")  # so that remove_stale knows it
    try:
        if form.name == "jpeg":
            pixels.jpegsave(os.fspath(body), Q=quality, subsample_mode="off", keep="none")
        else:
            pixels.pngsave(os.fspath(body), compression=6, filter="up", keep="none")
        one = np.zeros((1, 1, channels), spool.dtype)
        head = encoded(one, form.name, quality, kept)
        between = _jpeg_markers if form.name == "jpeg" else _png_chunks
        with open(body, "rb") as source, open(part, "wb") as file:
            _splice(source, file, head, between)
    except pyvips.Error as error:
        raise OSError(None, str(error).strip().splitlines()[-1]) from error
    finally:
        body.unlink(missing_ok=True)


def _splice(
    source: IO[bytes], file: IO[bytes], head: bytes, between: Callable[[bytes], tuple[int, int]]
) -> None:
    """The picture ``source`` with what stands before the pixels of the picture ``head``."""
    (start, stop), (begin, end) = between(head), between(source.read(1 << 16))
    source.seek(0)
    file.write(source.read(begin))
    file.write(head[start:stop])
    source.seek(end)
    shutil.copyfileobj(source, file, 1 << 22)


def _jpeg_markers(data: bytes) -> tuple[int, int]:
    """Where the application's markers and comments of a JPEG begin and end."""
    at = 2
    while data[at] == 0xFF and (0xE0 <= data[at + 1] <= 0xEF or data[at + 1] == 0xFE):
        at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    return 2, at


def _png_chunks(data: bytes) -> tuple[int, int]:
    """Where the chunks between a PNG's header and its pixels begin and end."""
    at = 33
    while data[at + 4 : at + 8] != b"IDAT":
        at += 12 + struct.unpack_from(">I", data, at)[0]
    return 33, at
