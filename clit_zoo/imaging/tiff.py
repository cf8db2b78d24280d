"""TIFF through tifffile and imagecodecs: those of more than 8 bits per sample are read, all are written."""

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import IO, Any, NamedTuple

import numpy as np
import tifffile
from PIL import Image, TiffImagePlugin

from ..errors import ImageError
from . import metadata
from .formats import SAVE_AS
from .metadata import Metadata
from .picture import Picture
from .pil import SEVERAL, upright_picture

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_BLACK_IS_MAX, _BLACK_IS_ZERO, _RGB, _CMYK = 0, 1, 2, 5  # PhotometricInterpretation (TIFF 6.0, tag 262)
_ASSOCIATED, _UNASSOCIATED = 1, 2  # ExtraSamples (tag 338)
_OLD_JPEG = 6  # Compression (tag 259)
_IMAGE_LENGTH = 257

# Compressions of bytes: none, LZW, deflate, PackBits, deflate, LZMA, Zstandard. tifffile tells each decoder
# how many bytes a strip or tile must give; those of pictures (JPEG 2000 …) give as many as their data say.
BYTEWISE = (1, 5, 8, 32773, 32946, 34925, 50000)

# A tile may be larger than the picture, and is decoded whole. As many bytes as 4096×4096 RGBA of 32 bits.
MAX_TILE_BYTES = 2**28

# What a TIFF with 32-bit offsets holds, less room for what stands beside the pixels.
_MAX_CLASSIC = 2**32 - 2**25


class Layout(NamedTuple):
    """How the first page of a deep TIFF stores its pixels."""

    height: int
    width: int
    dtype: np.dtype
    photometric: int
    colors: int  # samples of colour
    samples: int  # all
    alpha: int  # ExtraSamples of the alpha channel; 0 for none
    orientation: int

    @property
    def bits(self) -> int:
        """As a Picture counts them."""
        return 16 if self.dtype.kind == "u" else 32


def first_page(file: IO[bytes]) -> Any:
    """tifffile's page, or None for what is no TIFF or one that only Pillow may understand."""
    file.seek(0)
    head = file.read(4)
    file.seek(0)
    with suppress(Exception):  # Pillow will say what is wrong with it
        return tifffile.TiffFile(file).pages[0] if head in SIGNATURES else None
    return None


def deep_layout(page: Any, source: str) -> Layout | None:
    """The layout of a page with more than 8 bits per sample; None for the others, which Pillow reads.

    Raises:
        ImageError: samples that cannot be enlarged.
    """
    bits = page.bitspersample
    signed = page.dtype is not None and page.dtype.kind == "i"  # which Pillow only calls unknown
    if (max(bits) if isinstance(bits, tuple) else bits) <= 8 and not signed:
        return None
    known = page.dtype is not None and page.dtype.str[1:] in ("u2", "f2", "f4", "f8") and bits in (16, 32, 64)
    colors = {_BLACK_IS_MAX: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _CMYK: 4}.get(page.photometric)
    if not known or colors is None or page.samplesperpixel < colors or page.imagedepth > 1:
        raise ImageError(
            f"{source}: TIFF of {page.samplesperpixel} samples of {bits} bits ({page.dtype or 'unknown'}) "
            f"with photometric interpretation {int(page.photometric)} cannot be enlarged; convert it to gray "
            "or RGB of 8 or 16 bits unsigned, or of floating point in [0, 1]."
        )
    extras = tuple(int(extra) for extra in page.extrasamples)
    alpha = extras[0] if extras and extras[0] in (_ASSOCIATED, _UNASSOCIATED) else 0
    size = (page.imagelength, page.imagewidth)
    return Layout(
        *size, page.dtype, int(page.photometric), colors, page.samplesperpixel, alpha,
        metadata.orientation_of(_exif(page)),
    )  # fmt: skip


def check_segments(page: Any, source: str) -> None:
    """Refuse a page whose strips or tiles are missing, empty or cut off: they would be read as black.

    Raises:
        ImageError: with the first reason found.
    """
    if page.compression == _OLD_JPEG:  # whose data may lie elsewhere
        return
    high, wide = page.imagelength, page.imagewidth
    bits = max(page.bitspersample) if isinstance(page.bitspersample, tuple) else page.bitspersample
    rows, columns = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, wide)
    if page.is_tiled and rows * columns * page.samplesperpixel * bits // 8 > MAX_TILE_BYTES:
        raise ImageError(
            f"{source} has tiles of {columns}×{rows} pixels, too large to be decoded: {SAVE_AS}."
        )
    planes = page.samplesperpixel if page.planarconfig == 2 else 1
    needed = math.ceil(high / rows) * math.ceil(wide / columns) * planes * page.imagedepth
    sizes = page.databytecounts
    ends = [start + count for start, count in zip(page.dataoffsets, sizes)]
    missing = len(ends) < needed or any(min(pair) < 1 for pair in zip(page.dataoffsets, sizes))
    whole_bytes = page.compression == 1 and bits >= 8 and not page.is_subsampled
    if missing or max(ends) > page.parent.filehandle.size or (whole_bytes and sum(sizes) < page.nbytes):
        raise ImageError(f"{source} ends before its last pixel, or lacks others; copy or download it again.")


def read_deep(page: Any, layout: Layout, source: str) -> Picture:
    """The Picture of a page: uint16 or floating point, gray or RGB, with its alpha if it has one.

    Raises:
        ImageError: its compression is of pictures, or its strips are damaged.
    """
    if page.compression not in BYTEWISE:
        raise ImageError(
            f"{source}: TIFF of {page.bitspersample} bits with {page.compression.name} compression cannot be "
            "read here; save it with LZW, ZIP or no compression."
        )
    check_segments(page, source)
    try:
        samples = page.asarray()
    except Exception:
        if page.is_tiled or page.rowsperstrip > layout.height or not layout.height % page.rowsperstrip:
            raise
        samples = _with_whole_strips(page)
    if page.planarconfig == 2:
        samples = np.moveaxis(samples.reshape(layout.samples, layout.height, layout.width), 0, -1)
    samples = samples.reshape(layout.height, layout.width, layout.samples)
    notices = list(several(page, source))
    colors = samples[:, :, : layout.colors]
    if layout.photometric == _CMYK or layout.alpha == _ASSOCIATED:
        samples = samples.astype(np.float32) / (65535 if layout.bits == 16 else 1)
        colors = samples[:, :, : layout.colors]
    if layout.photometric == _BLACK_IS_MAX:
        colors = (65535 if colors.dtype.kind == "u" else 1) - colors
    if layout.photometric == _CMYK:
        colors = (1 - colors[:, :, :3]) * (1 - colors[:, :, 3:])
        notices.append(f"{source}: CMYK colours were converted to RGB.")
    if layout.alpha:
        alpha = samples[:, :, layout.colors, None]
        if layout.alpha == _ASSOCIATED:
            colors = np.clip(colors / np.maximum(alpha, np.finfo(np.float32).tiny), 0, 1)
        colors = np.concatenate([colors, alpha], axis=-1)
    elif layout.samples > layout.colors:
        notices.append(f"{source}: its extra channels, which are not marked as transparency, are left out.")
    kept = metadata_of(page)
    if layout.orientation > 4 and kept.dpi:
        kept = kept._replace(dpi=kept.dpi[::-1])
    return upright_picture(
        colors, layout.orientation, source, bits=layout.bits, metadata=kept, notices=tuple(notices)
    )


def metadata_of(page: Any) -> Metadata:
    """What a page holds beside its pixels."""
    exif = _exif(page)
    return Metadata(
        icc=_bytes(exif.get(metadata.ICC)),
        exif=metadata.clean_exif(exif),
        xmp=metadata.clean_xmp(_bytes(exif.get(metadata.XMP))),
        iptc=iptc_of(page),
        dpi=metadata.dpi_of_tags(exif),
    )


def several(page: Any, source: str) -> tuple[str, ...]:
    """The notice that there are further pages, where there are."""
    return (f"{source} {SEVERAL}",) if len(page.parent.pages) > 1 else ()


def _with_whole_strips(page: Any) -> np.ndarray:
    """The samples where the last strip is stored as long as the others, which decoders must be told."""
    page.parent.filehandle.seek(0)
    file = io.BytesIO(page.parent.filehandle.read())
    rows = math.ceil(page.imagelength / page.rowsperstrip) * page.rowsperstrip
    first_page(file).tags[_IMAGE_LENGTH].overwrite(rows)
    samples = first_page(file).asarray()
    planes = page.planarconfig == 2 and page.samplesperpixel > 1
    return samples[:, : page.imagelength] if planes else samples[: page.imagelength]


def iptc_of(page: Any) -> bytes | None:
    """The IPTC records of a page, of which Pillow reads but the first number."""
    return _bytes(page.tags.valueof(metadata.IPTC))


def write(
    file: IO[bytes],
    samples: np.ndarray | Iterator[np.ndarray],
    shape: Sequence[int],
    dtype: np.dtype,
    kept: Metadata,
    tile: int | None = None,
) -> None:
    """A TIFF of (h, w, c) uint8, uint16 or float32 samples, deflated; BigTIFF where 4 GB do not suffice.

    Args:
        file: to write to, and to read from.
        samples: all of them, or tiles of them.
        shape: (h, w, c).
        dtype: of the samples.
        kept: stands beside the pixels.
        tile: side of the tiles; strips where None.
    """
    channels, row_bytes = shape[2], shape[1] * shape[2] * dtype.itemsize
    exif = Image.Exif()
    if kept.exif:
        exif.load(kept.exif)
    texts = [
        (tag, "s", 0, metadata.writable(text), True) for tag, text in exif.items() if isinstance(text, str)
    ]
    packets = [
        (tag, kind, len(data), data, True)
        for tag, kind, data in ((metadata.XMP, "B", kept.xmp), (metadata.IPTC, 7, kept.iptc))
        if data
    ]
    folders = {tag: dict(exif.get_ifd(tag)) for tag in _FOLDERS}
    big = shape[0] * row_bytes > _MAX_CLASSIC
    first = 16 if big else 8  # where the first directory lies: a valid pointer until the right one is known
    pointers = [(_FOLDERS[tag], "I", 1, first, True) for tag, entries in folders.items() if entries]
    layout: dict[str, Any] = {"rowsperstrip": max(1, min(shape[0], 2**20 // row_bytes))}
    if tile is not None:
        layout = {"tile": (tile, tile)}
    tifffile.imwrite(
        file,
        samples.reshape(shape[: 2 + (channels > 1)]) if isinstance(samples, np.ndarray) else samples,
        shape=tuple(shape[: 2 + (channels > 1)]),
        dtype=dtype,
        byteorder="<",
        bigtiff=big,
        photometric="rgb" if channels > 2 else "minisblack",
        planarconfig="contig" if channels > 1 else None,
        extrasamples=["unassalpha"] if channels in (2, 4) else None,
        compression="zlib",
        predictor=dtype.kind == "u",
        **layout,
        iccprofile=kept.icc,
        resolution=kept.dpi,
        resolutionunit="INCH" if kept.dpi else None,
        metadata=None,
        software=False,
        extratags=[*texts, *packets, *pointers, (metadata.ORIENTATION, "H", 1, 1, True)],
    )
    if pointers:
        _append_folders(file, folders)


# tifffile writes these two only when they are given by name.
_FOLDERS = {metadata.EXIF_IFD: "ExifTag", metadata.GPS_IFD: "GPSTag"}


def _append_folders(file: IO[bytes], folders: dict[int, dict[int, Any]]) -> None:
    """Put the EXIF and GPS directories, which tifffile does not write, behind the pixels."""
    file.seek(0)
    with tifffile.TiffFile(file) as pages:
        page: Any = pages.pages[0]
        head = b"II+\0\x08\0\0\0" + bytes(8) if pages.is_bigtiff else b"II*\0" + bytes(4)
        for tag, entries in folders.items():
            folder = TiffImagePlugin.ImageFileDirectory_v2(head, group=tag)
            for key, value in entries.items():
                folder[key] = metadata.writable(value)
            start = file.seek(0, io.SEEK_END)
            start += file.write(bytes(start % 2))  # directories begin on a word boundary
            if entries and start < 2**32:  # the pointer is a LONG
                file.write(folder.tobytes(start))
                page.tags[tag].overwrite(start)


def _exif(page: Any) -> Image.Exif:
    """A TIFF file is itself laid out as EXIF."""
    exif, file = Image.Exif(), page.parent.filehandle
    with suppress(Exception):  # malformed entries raise almost anything; the pixels are what matters
        exif.bigtiff, exif.endian = page.parent.is_bigtiff, page.parent.byteorder
        exif.load_from_fp(file, page.offset)
        return exif
    return Image.Exif()


def _bytes(value: Any) -> bytes | None:
    return value if isinstance(value, bytes) else None
