"""Picture files: their header without pixels, and the whole file as a Picture."""

import functools
import importlib
import os
import re
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import IO, Any

import imagecodecs
import numpy as np
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from ..errors import ImageError
from . import metadata, tiff
from .formats import FORMATS, why_unreadable
from .picture import Picture
from .pil import exif_of, from_pil, has_alpha
from .quality import jpeg_quality, webp_quality
from .tiff_rows import can_be_read_by_rows, damaged, read_by_rows

# Three times Pillow's own limit against decompression bombs. As float32 colour this many pixels take 3 GiB.
MAX_INPUT_PIXELS = 2**28

# float32 colour and alpha. A TIFF may hold any number of samples per pixel, and all are decoded.
_BYTES_PER_PIXEL = 16


@dataclass(frozen=True)
class Header:
    """What a file says of its picture before any pixel is decoded."""

    height: int  # upright
    width: int
    gray: bool
    alpha: bool
    bits: int
    format: str  # as the list of formats names it
    quality: int | None = None  # of a JPEG or a lossy WebP, up to 100, as libjpeg and libwebp count


def probe(path: str | os.PathLike) -> Header:
    """The header of a picture file.

    Raises:
        ImageError: the file is none, or its picture is too large; the message names it.
    """
    quality = None
    with _opened(path) as (file, source):
        page = tiff.first_page(file)
        if page is not None and can_be_read_by_rows(page):
            size, colors = (page.imagelength, page.imagewidth), page.samplesperpixel
            return Header(*size, colors < 3, colors in (2, 4), page.bitspersample, "tiff")
        layout = _checked_layout(page, source) if page is not None else None
        if layout is not None:
            size, orientation = (layout.height, layout.width), layout.orientation
            gray, alpha, bits, form = layout.colors == 1, bool(layout.alpha), layout.bits, "tiff"
        else:
            with _pillow(file, source) as image:
                size, orientation = _stored_size(image), _orientation(image)
                alpha, form = has_alpha(image), (image.format or "unknown").lower()
                quality = webp_quality(file) if form == "webp" else jpeg_quality(image)
                if form == "png":  # whose 16 bits Pillow has no modes for
                    file.seek(24)  # in IHDR, always the first chunk
                    depth, color_type = file.read(2)
                    gray, bits = color_type in (0, 4), max(depth, 8)
                else:
                    gray = image.mode in ("1", "L", "La", "LA", "F") or image.mode.startswith("I")
                    bits = 32 if image.mode == "F" else 16 if image.mode.startswith("I") else 8
        height, width = size[::-1] if orientation > 4 else size
        return Header(height, width, gray, alpha, bits, "jpeg" if form == "mpo" else form, quality)


def read(path: str | os.PathLike) -> Picture:
    """The upright Picture in a file, all bits and metadata kept.

    Raises:
        ImageError: the file is none, is damaged or too large; the message names it.
    """
    with _opened(path) as (file, source):
        page = tiff.first_page(file)
        if page is not None:
            if can_be_read_by_rows(page):
                return read_by_rows(page, source)
            if layout := _checked_layout(page, source):
                return tiff.read_deep(page, layout, source)
            tiff.check_segments(page, source)
        with _pillow(file, source) as image:
            if image.format in _EXACT:
                exact = functools.partial(_exact_samples, file, _EXACT[image.format])
                if image.format == "JXL":
                    image.info["xmp"] = metadata.xmp_of_jxl(_content(file))
                return from_pil(image, source, kind="path", exact=exact)
            if image.format == "AVIF":
                image.info["bit_depth"] = _avif_depth(_content(file))
            if isinstance(image, TiffImagePlugin.TiffImageFile):
                with _no_pixel_limit():  # asked for again here; done once, it is not when loading
                    image.load_prepare()
            picture = from_pil(image, source, kind="path")
            if page is not None:
                kept = picture.metadata._replace(iptc=tiff.iptc_of(page))
                picture = replace(picture, metadata=kept)
            return picture


@contextmanager
def _opened(path: str | os.PathLike) -> Iterator[tuple[IO[bytes], str]]:
    """The file, opened, and its name; whatever goes wrong with it becomes one ImageError naming it."""
    source = os.fspath(path)
    unreadable = why_unreadable(source)
    try:
        if not stat.S_ISREG(os.stat(source).st_mode):  # a pipe would be waited for
            raise ImageError(f"{source} is not a regular file; name a picture.")
        with open(source, "rb") as file:
            # Most raw photographs are TIFFs too, whose first picture, all that would be read, is a thumbnail.
            if unreadable and file.read(4) in tiff.SIGNATURES:
                raise ImageError(f"{source}: {unreadable}.")
            yield file, source
    except ImageError:
        raise
    except Exception as error:  # decoders raise nearly anything on damaged files
        raise ImageError(_why(error, source)) from error


def _why(error: Exception, source: str) -> str:
    if isinstance(error, UnidentifiedImageError):
        unknown = "not a picture in a format that is known here, or damaged"
        return f"{source}: {why_unreadable(source) or unknown}."
    if isinstance(error, MemoryError):
        return f"{source} does not fit into memory; cut it into tiles."
    if isinstance(error, FileNotFoundError) and re.match(r"(https?|ftp):[/\\]", source, re.IGNORECASE):
        return f"{source} is a web address, which is not read; download the picture first."
    if isinstance(error, OSError) and error.strerror:  # the system's, not a decoder's
        return f"{source} cannot be read: {error.strerror}."
    return damaged(error, source)


_pixel_limit = threading.Lock()


@contextmanager
def _no_pixel_limit() -> Iterator[None]:
    """Without Pillow's pixel limit, a global: ``_check_size`` has a higher one and a clear error."""
    with _pixel_limit:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


@contextmanager
def _pillow(file: IO[bytes], source: str) -> Iterator[Image.Image]:
    """The picture opened by Pillow, its header read and its size checked."""
    with _no_pixel_limit():
        image = _identified(file)
    with image:
        _check_size(_stored_size(image), source)
        yield image


def _identified(file: IO[bytes]) -> Image.Image:
    file.seek(0)
    with suppress(UnidentifiedImageError):
        return Image.open(file)
    _plug_ins()
    file.seek(0)
    return Image.open(file)


@functools.cache
def _plug_ins() -> None:
    """Let Pillow know the installed packages that read further formats."""
    for form in FORMATS:
        with suppress(ImportError):
            if form.module:
                module = importlib.import_module(form.module)
                getattr(module, "register_heif_opener", lambda: None)()  # the others do so when imported


def _stored_size(image: Image.Image) -> tuple[int, int]:
    """(h, w) as stored: whether Pillow has turned a TIFF's already depends on its version."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return image.tag_v2[257], image.tag_v2[256]
    return image.height, image.width


def _orientation(image: Image.Image) -> int:
    """By EXIF; a PNG's is taken only where it stands before the pixels, which Pillow would decode for it."""
    if image.format == "PNG" and not image.info.keys() & {"exif", "xmp"}:
        return 1
    return metadata.orientation_of(exif_of(image))


# What Pillow cuts to 8 bits. A PNG's missing rows it takes for black, too; but only it compares checksums.
_EXACT = {"PNG": imagecodecs.png_decode, "JXL": imagecodecs.jpegxl_decode}


def _exact_samples(file: IO[bytes], decode: Callable[[bytes], np.ndarray]) -> np.ndarray:
    return decode(_content(file))


def _content(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()


def _avif_depth(data: bytes) -> int:
    """Bits per sample, by the flags of AV1CodecConfigurationRecord (AV1-ISOBMFF, section 2.3.3)."""
    start = data.find(b"av1C")
    flags = data[start + 6] if 0 <= start < len(data) - 6 else 0
    return 12 if flags & 0x20 else 10 if flags & 0x40 else 8


def _check_size(size: tuple[int, int], source: str, pixel_bytes: int = 0) -> None:
    """Refuse sides that cannot be, and more pixels or bytes of them than may be decoded."""
    height, width = size
    if not all(isinstance(side, int) and side > 0 for side in size):
        raise ImageError(f"{source} is damaged: its header says {width}×{height} pixels; copy it again.")
    pixels = width * height
    if pixels * max(pixel_bytes, _BYTES_PER_PIXEL) > MAX_INPUT_PIXELS * _BYTES_PER_PIXEL:
        each = f" of {pixel_bytes} bytes" if pixel_bytes > _BYTES_PER_PIXEL else ""
        raise ImageError(
            f"{source} has {width}×{height} = {pixels / 1e6:.0f} million pixels{each}, more than the limit "
            f"of {MAX_INPUT_PIXELS / 1e6:.0f} million; save it as a plain TIFF in "
            "strips or tiles, which is read by rows, or raise clit_zoo.imaging.files.MAX_INPUT_PIXELS if you "
            "trust it."
        )


def _checked_layout(page: Any, source: str) -> tiff.Layout | None:
    """The layout of a deep TIFF, its size checked."""
    layout = tiff.deep_layout(page, source)
    if layout is not None:
        size, pixel_bytes = (layout.height, layout.width), layout.samples * layout.dtype.itemsize
        _check_size(size, source, pixel_bytes)
    return layout
