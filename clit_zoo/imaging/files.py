"""Picture files: their header without pixels, and the whole file as a Picture."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

import numpy as np
import tifffile
from PIL import Image, UnidentifiedImageError

from ..errors import ImageError
from . import metadata, png, tiff
from .formats import UNREADABLE, WEB_ADDRESS, is_unreadable_name, web_address
from .picture import Origin, Picture, from_samples
from .pil import from_pil, has_alpha
from .quality import jpeg_quality, webp_quality

# Three times Pillow's own limit against decompression bombs. As float32 colour this many pixels take 3 GiB.
MAX_INPUT_PIXELS = 2**28

_TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@dataclass(frozen=True)
class Header:
    """What a file says of its picture before any pixel is decoded; width and height are upright.

    quality: of a JPEG or a lossy WebP, up to 100, as libjpeg and libwebp count; None for other files.
    """

    width: int
    height: int
    gray: bool
    alpha: bool
    bits: int
    format: str  # "png", "jpeg", "tiff", "webp", "gif"…
    quality: int | None = None


def probe(path: str | os.PathLike) -> Header:
    """Header of a picture file; ImageError naming the file if it is none."""
    source = os.fspath(path)
    with _opened(source) as file:
        head = file.read(33)
        _refuse_raw(head, source)
        if (header := png.parse_header(head)) is not None:
            return _probe_png(file, header, source)
        if head.startswith(_TIFF_SIGNATURES) and (found := _probe_tiff(file, source)):
            return found
        with _pillow(file) as image:
            _check_pixels(image.width, image.height, source)
            orientation, _ = metadata.read_exif(image.getexif)
            width, height = image.size
            if image.format == "TIFF":  # whether Pillow has turned the size already depends on its version
                width, height = image.tag_v2[256], image.tag_v2[257]  # type: ignore[attr-defined]
            if orientation > 4:
                width, height = height, width
            gray = image.mode in ("1", "L", "La", "LA", "I", "F") or image.mode.startswith("I;16")
            bits = 32 if image.mode == "F" else 16 if image.mode.startswith("I") else 8
            name = "jpeg" if image.format == "MPO" else (image.format or "unknown").lower()
            quality = webp_quality(file) if name == "webp" else jpeg_quality(image)
            return Header(width, height, gray, has_alpha(image), bits, name, quality)


def read(path: str | os.PathLike) -> Picture:
    """The upright Picture in a file, all bits and metadata kept; ImageError naming a file that is none."""
    source = os.fspath(path)
    with _opened(source) as file:
        head = file.read(33)
        _refuse_raw(head, source)
        header = png.parse_header(head)
        if header is not None and header.depth == 16:
            return _read_png(file, header, source)
        if head.startswith(_TIFF_SIGNATURES) and (picture := _read_tiff(file, source)):
            return picture
        with _pillow(file) as image:
            _check_pixels(image.width, image.height, source)
            return from_pil(image, source, kind="path")


def _refuse_raw(head: bytes, source: str) -> None:
    """Most raw photographs are TIFFs too, whose first picture, all that would be read, is a thumbnail."""
    if head.startswith(_TIFF_SIGNATURES) and is_unreadable_name(source):
        raise ImageError(f"{source}: {UNREADABLE}.")


def _probe_png(file: IO[bytes], header: png.PngHeader, source: str) -> Header:
    _check_pixels(header.width, header.height, source)
    chunks = png.skim(file)
    orientation = 1
    if b"eXIf" in chunks:
        orientation, _ = metadata.read_exif(lambda: metadata.exif_from_bytes(chunks[b"eXIf"]))
    width, height = header.width, header.height
    if orientation > 4:
        width, height = height, width
    alpha = header.color_type in (4, 6) or b"tRNS" in chunks
    bits = 16 if header.depth == 16 else 8
    return Header(width, height, header.color_type in (0, 4), alpha, bits, "png")


def _read_png(file: IO[bytes], header: png.PngHeader, source: str) -> Picture:
    _check_pixels(header.width, header.height, source)
    samples, chunks = png.read_png(file)
    orientation, exif = 1, None
    if b"eXIf" in chunks:
        orientation, exif = metadata.read_exif(lambda: metadata.exif_from_bytes(chunks[b"eXIf"]))
    notices = []
    if b"acTL" in chunks:
        notices.append(f"{source} is animated: only its first frame is enlarged.")
    return _picture(samples, orientation, exif, png.icc_of(chunks), png.dpi_of(chunks), notices, source)


def _probe_tiff(file: IO[bytes], source: str) -> Header | None:
    with _tiff(file) as pages:
        header = tiff.parse_header(pages, source) if pages else None
    if header is None:
        return None
    _check_size(header, source)
    orientation, _ = metadata.read_exif(lambda: tiff.exif_of(file))
    width, height = header.width, header.height
    if orientation > 4:
        width, height = height, width
    bits = 16 if header.dtype.kind == "u" else 32
    return Header(width, height, header.color_samples == 1, bool(header.alpha), bits, "tiff")


def _read_tiff(file: IO[bytes], source: str) -> Picture | None:
    with _tiff(file) as pages:
        header = tiff.parse_header(pages, source) if pages else None
        if pages is None or header is None:
            return None
        _check_size(header, source)
        samples, notices = tiff.read_pixels(pages, header, source)
        icc, dpi = tiff.icc_of(pages), tiff.dpi_of(pages)
    orientation, exif = metadata.read_exif(lambda: tiff.exif_of(file))
    return _picture(samples, orientation, exif, icc, dpi, notices, source)


def _picture(
    samples: np.ndarray,
    orientation: int,
    exif: bytes | None,
    icc: bytes | None,
    dpi: tuple[float, float] | None,
    notices: list[str],
    source: str,
) -> Picture:
    color, alpha, gray = from_samples(metadata.upright(samples, orientation), source)
    return Picture(
        color=color,
        alpha=alpha,
        gray=gray,
        bits=16 if samples.dtype.kind == "u" else 32,
        icc=metadata.fitting_icc(icc, gray),
        exif=exif,
        dpi=dpi[::-1] if dpi and orientation > 4 else dpi,
        notices=tuple(notices),
        source=source,
        origin=Origin("path"),
    )


@contextmanager
def _opened(source: str) -> Iterator[IO[bytes]]:
    """The file, opened; whatever goes wrong with it becomes one ImageError naming it."""
    try:
        try:
            status = os.stat(source)
        except ValueError as error:  # a NUL character, or one that the file system cannot encode
            raise ImageError(f"{source!r} cannot be a path ({error}); check it.") from error
        if stat.S_ISDIR(status.st_mode):
            raise ImageError(f"{source} is a folder; name a picture in it.")
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(f"{source} is not a regular file; save the picture to a file first.")
        if status.st_size == 0:
            raise ImageError(f"{source} is empty; copy or download it again.")
        with open(source, "rb") as file:
            yield file
    except ImageError:
        raise
    except FileNotFoundError as error:
        if address := web_address(source):
            raise ImageError(f"{address} {WEB_ADDRESS}") from error
        raise ImageError(f"{source} does not exist; check the path.") from error
    except PermissionError as error:
        raise ImageError(f"{source} may not be read; check its permissions.") from error
    except UnidentifiedImageError as error:
        if is_unreadable_name(source):
            raise ImageError(f"{source}: {UNREADABLE}.") from error
        raise ImageError(
            f"{source} is not a picture in a format known here (PNG, JPEG, WebP, TIFF, GIF, BMP…), or its "
            "header is damaged; convert it to PNG, or copy it again."
        ) from error
    except MemoryError as error:
        raise ImageError(f"{source} does not fit into memory; cut it into tiles.") from error
    except Exception as error:  # decoders raise nearly anything on damaged files
        if isinstance(error, OSError) and error.strerror:  # the system's, not a decoder's
            raise ImageError(
                f"{source} cannot be read: {error.strerror}; check the path and its disk."
            ) from error
        reason = str(error) or type(error).__name__
        raise ImageError(
            f"{source} is damaged or incomplete ({reason}); copy or download it again."
        ) from error


_pixel_limit = threading.Lock()


@contextmanager
def _pillow(file: IO[bytes]) -> Iterator[Image.Image]:
    """Image.open without Pillow's pixel limit: `_check_pixels` has a higher one and a clear error."""
    file.seek(0)
    # The limit is a global of Pillow's; it is off only while the header is read.
    with _pixel_limit:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(file)
        finally:
            Image.MAX_IMAGE_PIXELS = before
    with image:
        yield image


@contextmanager
def _tiff(file: IO[bytes]) -> Iterator[tifffile.TiffFile | None]:
    """The TIFF through tifffile, or None where only Pillow may understand it."""
    file.seek(0)
    try:
        pages = tifffile.TiffFile(file)
    except Exception:  # Pillow will say what is wrong with it
        yield None
        return
    with pages:
        yield pages


def _check_pixels(width: int, height: int, source: str) -> None:
    if width * height > MAX_INPUT_PIXELS:
        raise ImageError(
            f"{source} has {width}×{height} = {width * height / 1e6:.0f} million pixels, more than the limit "
            f"of {MAX_INPUT_PIXELS / 1e6:.0f} million; cut it into tiles, or raise "
            "clit_zoo.imaging.files.MAX_INPUT_PIXELS if you trust it."
        )


# float32 colour and alpha. A TIFF may hold any number of samples per pixel, and all are decoded.
_BYTES_PER_PIXEL = 16


def _check_size(header: tiff.TiffHeader, source: str) -> None:
    _check_pixels(header.width, header.height, source)
    size = header.width * header.height * header.samples * header.dtype.itemsize
    limit = MAX_INPUT_PIXELS * _BYTES_PER_PIXEL
    if size > limit:
        raise ImageError(
            f"{source} has {header.width}×{header.height} pixels of {header.samples} samples "
            f"({header.dtype}), {size / 1e9:.1f} GB, more than the limit of {limit / 1e9:.1f} GB; leave out "
            "channels, cut it into tiles, or raise clit_zoo.imaging.files.MAX_INPUT_PIXELS if you trust it."
        )
