"""TIFF with more than 8 bits per sample (read), and every TIFF (write), through tifffile."""

from __future__ import annotations

import io
import os
import struct
import zlib
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import tifffile
from PIL import Image, TiffImagePlugin

from ..errors import ImageError
from . import metadata

_BLACK_IS_MAX, _BLACK_IS_ZERO, _RGB, _CMYK = 0, 1, 2, 5
_ASSOCIATED, _UNASSOCIATED = 1, 2  # ExtraSamples (TIFF 6.0, tag 338)
_CENTIMETRE = 3
_LZW, _ZIP = 5, (8, 32946)  # Compression (tag 259)


@dataclass(frozen=True)
class TiffHeader:
    """First page of a deep TIFF; `alpha` is the ExtraSamples value of its alpha channel, 0 for none."""

    width: int
    height: int
    dtype: np.dtype
    photometric: int
    color_samples: int
    samples: int
    alpha: int
    planar: bool
    pages: int


def parse_header(file: tifffile.TiffFile, source: str) -> TiffHeader | None:
    """Header of a TIFF with more than 8 bits per sample; None for the others, which Pillow reads whole.

    ImageError for sample types that cannot be enlarged.
    """
    page: Any = file.pages[0]
    bits = page.bitspersample
    signed = page.dtype is not None and page.dtype.kind == "i"  # which Pillow only calls unknown
    if (max(bits) if isinstance(bits, tuple) else bits) <= 8 and not signed:
        return None
    if page.dtype is None or page.dtype.str[1:] not in ("u2", "f2", "f4", "f8") or bits not in (16, 32, 64):
        raise ImageError(
            f"{source}: TIFF samples of {bits} bits ({page.dtype or 'unknown type'}) cannot be enlarged; "
            "convert it to 8 or 16 bits unsigned or to floating point in [0, 1]."
        )
    colors = {_BLACK_IS_MAX: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _CMYK: 4}.get(page.photometric)
    if colors is None or page.samplesperpixel < colors or page.imagedepth > 1:
        raise ImageError(
            f"{source}: TIFF of {bits} bits with photometric interpretation {int(page.photometric)} and "
            f"{page.samplesperpixel} samples cannot be enlarged; convert it to gray or RGB."
        )
    extras = tuple(int(extra) for extra in page.extrasamples)
    alpha = extras[0] if extras and extras[0] in (_ASSOCIATED, _UNASSOCIATED) else 0
    return TiffHeader(
        page.imagewidth,
        page.imagelength,
        page.dtype,
        int(page.photometric),
        colors,
        page.samplesperpixel,
        alpha,
        page.planarconfig == 2 and page.samplesperpixel > 1,
        len(file.pages),
    )


def read_pixels(file: tifffile.TiffFile, header: TiffHeader, source: str) -> tuple[np.ndarray, list[str]]:
    """(h, w, c) upright-agnostic samples (uint16 or float), gray or RGB, alpha last if any; and notices."""
    page: Any = file.pages[0]
    size = file.filehandle.size
    if any(start + count > size for start, count in zip(page.dataoffsets, page.databytecounts)):
        raise ImageError(f"{source}: the file ends before its last pixel; copy or download it again.")
    try:
        samples = np.asarray(page.asarray())
    except ValueError as error:
        # tifffile leaves some codecs and the floating-point predictor to the optional imagecodecs.
        if "imagecodecs" not in str(error):
            raise
        samples = _read_strips(page, header, source)
    layout = (header.samples, header.height, header.width)
    samples = samples.reshape(layout if header.planar else (*layout[1:], layout[0]))
    if header.planar:
        samples = np.moveaxis(samples, 0, -1)

    notices = []
    if header.pages > 1:
        notices.append(f"{source} holds {header.pages} frames or pages: only the first is enlarged.")
    colors, full = samples[:, :, : header.color_samples], _full_scale(samples.dtype)
    if header.photometric == _BLACK_IS_MAX:
        colors = (full - colors).astype(samples.dtype)
    if header.photometric == _CMYK:
        ink = colors.astype(np.float32) / full
        colors = ((1 - ink[:, :, :3]) * (1 - ink[:, :, 3:]) * full + 0.5 * (full > 1)).astype(samples.dtype)
        notices.append(f"{source}: CMYK colours were converted to RGB.")
    if header.alpha:
        alpha = samples[:, :, header.color_samples, None]
        if header.alpha == _ASSOCIATED:
            straight = colors / np.maximum(alpha, np.finfo(np.float32).tiny).astype(np.float32)
            colors = (np.clip(straight, 0, 1) * full + 0.5 * (full > 1)).astype(samples.dtype)
        colors = np.concatenate([colors, alpha], axis=-1)
    elif header.samples > header.color_samples:
        notices.append(f"{source}: its extra channels, which are not marked as transparency, are left out.")
    return colors, notices


def icc_of(file: tifffile.TiffFile) -> bytes | None:
    page: Any = file.pages[0]
    tag = page.tags.get(34675)
    return bytes(tag.value) if tag is not None else None


def dpi_of(file: tifffile.TiffFile) -> tuple[float, float] | None:
    """Pixels per inch (XResolution, YResolution, ResolutionUnit)."""
    page: Any = file.pages[0]
    try:
        (xn, xd), (yn, yd) = page.tags[282].value, page.tags[283].value
        unit = int(page.tags[296].value) if 296 in page.tags else 2
        inch = {2: 1.0, _CENTIMETRE: 2.54}[unit]  # unit 1 gives a pixel's shape only
        return metadata.plausible_dpi(xn / xd * inch, yn / yd * inch)
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None


def exif_of(file: IO[bytes]) -> Image.Exif:
    """A TIFF file is itself laid out as EXIF."""
    exif = Image.Exif()
    file.seek(0)
    exif.load_from_fp(file)
    return exif


def write_tiff(
    path: str | os.PathLike,
    samples: np.ndarray,
    *,
    icc: bytes | None = None,
    exif: bytes | None = None,
    dpi: tuple[float, float] | None = None,
) -> None:
    """Write (h, w, c) uint8, uint16 or float32 samples, deflated; BigTIFF where 4 GB do not suffice."""
    channels = samples.shape[-1]
    entries = metadata.exif_from_bytes(exif) if exif else Image.Exif()
    subs = {tag: dict(entries.get_ifd(tag)) for tag in (metadata.EXIF_IFD, metadata.GPS_IFD)}
    subs = {tag: values for tag, values in subs.items() if values}
    texts: list[tuple] = [
        (t, "s", 0, metadata.writable(v), True)
        for t, v in entries.items()
        if isinstance(v, str) and t not in _OURS
    ]
    pointers: list[tuple] = [(_POINTERS[tag], "I", 1, 0, True) for tag in subs]
    orientation: list[tuple] = [(metadata.ORIENTATION, "H", 1, 1, True)]
    tifffile.imwrite(
        path,
        samples if channels > 1 else samples[:, :, 0],
        byteorder="<",
        photometric="rgb" if channels > 2 else "minisblack",
        planarconfig="contig" if channels > 1 else None,
        extrasamples=["unassalpha"] if channels in (2, 4) else None,
        compression="zlib",
        predictor=samples.dtype.kind == "u",
        rowsperstrip=max(1, min(samples.shape[0], 2**20 // samples[0].nbytes)),
        iccprofile=icc,
        resolution=dpi,
        resolutionunit="INCH" if dpi else None,
        metadata=None,
        software=False,
        extratags=texts + pointers + orientation,
    )
    if subs:
        _append_ifds(path, subs)


# tifffile writes these two only when they are given by name.
_POINTERS: dict[int, str] = {metadata.EXIF_IFD: "ExifTag", metadata.GPS_IFD: "GPSTag"}
_OURS = {282, 283, 296, 34675}  # written through tifffile's own arguments


def _append_ifds(path: str | os.PathLike, subs: dict[int, dict[int, Any]]) -> None:
    """Put the EXIF and GPS directories behind the pixels and let the placeholder tags point at them."""
    with open(path, "r+b") as raw:
        slots, big = _value_slots(raw)
        head = b"II+\0\x08\0\0\0" + bytes(8) if big else b"II*\0" + bytes(4)
        for tag in sorted(subs.keys() & slots.keys()):
            ifd = TiffImagePlugin.ImageFileDirectory_v2(head, group=tag)
            for key, value in subs[tag].items():
                ifd[key] = metadata.writable(value)
            start = raw.seek(0, os.SEEK_END)
            if start % 2:  # directories begin on a word boundary
                start += raw.write(b"\0")
            if start >= 2**32:  # beyond a LONG pointer: the picture matters more than its shutter time
                return
            raw.write(ifd.tobytes(start))
            raw.seek(slots[tag])
            raw.write(struct.pack("<I", start))


def _value_slots(raw: IO[bytes]) -> tuple[dict[int, int], bool]:
    """Where a little-endian TIFF's first directory keeps each tag's value, and whether it is a BigTIFF."""
    big = raw.read(4)[2] == 43
    offset, count, entry, value = (8, "<Q", 20, 12) if big else (4, "<H", 12, 8)
    raw.seek(offset)
    (start,) = struct.unpack("<Q" if big else "<I", raw.read(8 if big else 4))
    raw.seek(start)
    (entries,) = struct.unpack(count, raw.read(struct.calcsize(count)))
    start = raw.tell()
    table = raw.read(entries * entry)
    return {
        struct.unpack_from("<H", table, i * entry)[0]: start + i * entry + value for i in range(entries)
    }, big


def _full_scale(dtype: np.dtype) -> int:
    return 65535 if dtype.kind == "u" else 1


def _read_strips(page: Any, header: TiffHeader, source: str) -> np.ndarray:
    """Strips that are LZW-compressed (the usual one) or stored with the floating-point predictor."""
    if (
        page.compression not in (1, _LZW, *_ZIP)
        or page.is_tiled
        or page.fillorder != 1
        or page.predictor not in (1, 2, 3)
    ):
        raise ImageError(
            f"{source}: this TIFF's compression ({page.compression.name}, {header.dtype}) needs the package "
            "imagecodecs: `pip install imagecodecs`, or save it with LZW, ZIP or no compression in strips."
        )
    per_pixel = 1 if header.planar else header.samples
    planes = header.samples if header.planar else 1
    dtype = header.dtype.newbyteorder(page.parent.byteorder)
    strip_rows = min(page.rowsperstrip, header.height)
    tops = [(plane, top) for plane in range(planes) for top in range(0, header.height, strip_rows)]
    out = np.empty((planes, header.height, header.width, per_pixel), header.dtype.newbyteorder("="))
    for (plane, top), start, count in zip(tops, page.dataoffsets, page.databytecounts, strict=True):
        rows = min(strip_rows, header.height - top)
        page.parent.filehandle.seek(start)
        packed = page.parent.filehandle.read(count)
        line = header.width * per_pixel * dtype.itemsize
        if page.compression == _LZW:
            data = _lzw(packed, rows, line)
        else:
            data = zlib.decompress(packed) if page.compression in _ZIP else packed
        if len(data) < rows * line:
            raise ValueError("a strip is shorter than its rows")
        strip = np.frombuffer(data, np.uint8, rows * line).reshape(rows, line)
        out[plane, top : top + rows] = _unpredicted(strip, page.predictor, dtype, header.width, per_pixel)
    return out


def _unpredicted(strip: np.ndarray, predictor: int, dtype: np.dtype, width: int, samples: int) -> np.ndarray:
    """Undo horizontal differencing (2) or the floating-point predictor (3, Adobe TIFF technical note 3)."""
    rows = len(strip)
    if predictor == 3:
        # Bytes were split into planes, the most significant first, then differenced at a pixel's distance.
        bytewise = strip.reshape(rows, -1, samples).cumsum(axis=1, dtype=np.uint8)
        planes = bytewise.reshape(rows, dtype.itemsize, width * samples).swapaxes(1, 2)
        return np.ascontiguousarray(planes).view(dtype.newbyteorder(">")).reshape(rows, width, samples)
    values = strip.view(dtype).reshape(rows, width, samples)
    if predictor == 2 and dtype.kind == "u":
        return values.astype(np.uint16).cumsum(axis=1, dtype=np.uint16)
    if predictor == 2:
        raise ValueError("horizontal differencing of floating-point samples")
    return values


def _lzw(packed: bytes, rows: int, line: int) -> bytes:
    """LZW through Pillow's libtiff: the strip is presented to it as an 8-bit gray picture of its bytes."""
    tags = [(256, line), (257, rows), (258, 8), (259, 5), (262, 1), (273, 122), (277, 1), (278, rows)]
    tags.append((279, len(packed)))
    ifd = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    fake = b"II*\0" + struct.pack("<IH", 8, len(tags)) + ifd + struct.pack("<I", 0) + packed
    with TiffImagePlugin.TiffImageFile(io.BytesIO(fake)) as image:
        image.load()
        return image.tobytes()
