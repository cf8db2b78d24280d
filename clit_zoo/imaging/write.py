"""A Picture into a file: the whole file or nothing, with all that stands beside its pixels."""

import io
import os
import struct
import zlib
from dataclasses import replace
from typing import Any

import imagecodecs
import numpy as np
from PIL import Image, ImageColor
from PIL.PngImagePlugin import putchunk

from ..atomic import replacing
from ..errors import ImageError
from . import metadata, tiff
from .formats import OUTPUTS, check_output, output_format, stored_bits
from .metadata import Metadata
from .picture import SAMPLE_TYPES, Picture, to_samples

DEFAULT_QUALITY = 95
_MAX_SEGMENT = 65533  # bytes of a JPEG's marker
_XMP_HEAD, _IPTC_HEAD = b"http://ns.adobe.com/xap/1.0/\0", b"Photoshop 3.0\0"
_METRES_PER_INCH = 0.0254


def write(
    picture: Picture,
    path: str | os.PathLike,
    format: str | None = None,
    quality: int | None = None,
    flatten: str | None = None,
) -> list[str]:
    """Write one picture, whole or not at all: it is encoded in memory first (see ``clit_zoo.atomic``).

    Args:
        picture: not a batch.
        path: where to.
        format: "png", "jpeg", "webp" or "tiff"; by the path's suffix if None.
        quality: 1 to 100, 95 if None, for JPEG and WebP; 100 makes WebP lossless. PNG and TIFF always are.
        flatten: a background colour ("white", "#202020") to lay a transparent picture on.

    Returns:
        Notices of what the file could not hold.

    Raises:
        ImageError: the format cannot hold the picture.
        OSError: the file cannot be written.
    """
    form = output_format(format or path)
    assert form.output is not None
    if picture.samples.shape[0] != 1:
        batch = picture.samples.shape[0]
        raise ImageError(f"cannot write a batch of {batch} pictures into one file: write each.")
    if flatten is not None:
        picture = flattened(picture, flatten)
    size = (picture.height, picture.width)
    notices = check_output(form.name, size, alpha=picture.transparent, bits=picture.bits)
    samples = to_samples(picture, SAMPLE_TYPES[stored_bits(form.output, picture.bits)])[0]
    kept, left_out = kept_by(form.name, picture, size)
    data = encoded(samples, form.name, quality or DEFAULT_QUALITY, kept)
    with replacing(path) as part:
        part.write_bytes(data)
    return notices + left_out


def kept_by(name: str, picture: Picture, size: tuple[int, int]) -> tuple[Metadata, list[str]]:
    """What stands beside the pixels of a picture in a format, and notices of what it has no room for."""
    kept = picture.metadata.of_size(size)
    gray = picture.gray and OUTPUTS[name].gray
    kept = kept._replace(icc=metadata.fitting_icc(kept.icc, gray))
    return _that_fits_jpeg(kept) if name == "jpeg" else (kept, [])


def encoded(samples: np.ndarray, name: str, quality: int, kept: Metadata) -> bytes:
    """The file of (h, w, c) samples in the format of that name."""
    if name == "tiff":
        file = io.BytesIO()
        tiff.write(file, samples, samples.shape, samples.dtype, kept)
        return file.getvalue()
    return _png(samples, kept) if name == "png" else _pillow(samples, name, quality, kept)


def flattened(picture: Picture, background: str) -> Picture:
    """The picture laid on a colour; without alpha it stays as it is.

    Args:
        picture: of any kind.
        background: a CSS colour name or #rrggbb.

    Raises:
        ValueError: it is no colour.
    """
    red, green, blue = (sample / 255 for sample in ImageColor.getrgb(background)[:3])
    return replace(picture, ground=(red, green, blue)) if picture.transparent else picture


def _png(samples: np.ndarray, kept: Metadata) -> bytes:
    """Pixels of 8 or 16 bits by libpng, the other chunks between its header and its pixels."""
    pixels = imagecodecs.png_encode(samples[:, :, 0] if samples.shape[-1] == 1 else samples)
    file = io.BytesIO()
    file.write(pixels[:_IHDR_END])
    if kept.icc is not None:
        putchunk(file, b"iCCP", b"ICC Profile\0\0", zlib.compress(kept.icc))
    if kept.dpi is not None:
        putchunk(file, b"pHYs", struct.pack(">IIB", *(round(n / _METRES_PER_INCH) for n in kept.dpi), 1))
    if kept.exif is not None:
        putchunk(file, b"eXIf", kept.exif.removeprefix(b"Exif\0\0"))
    if kept.xmp is not None:
        putchunk(file, b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0", kept.xmp)
    file.write(pixels[_IHDR_END:])
    return file.getvalue()


_IHDR_END = 33  # signature and header, always of this length


def _pillow(samples: np.ndarray, name: str, quality: int, kept: Metadata) -> bytes:
    """A JPEG or WebP."""
    options: dict[str, Any] = {
        "icc_profile": kept.icc,
        "exif": kept.exif,
        "xmp": kept.xmp,
        "quality": quality,
    }
    if name == "jpeg":
        # Full colour resolution: halving it is what a person enlarges pictures to get rid of.
        options |= {"subsampling": 0, "dpi": kept.dpi}
        if kept.iptc is not None:
            options["extra"] = _jpeg_iptc(kept.iptc)
    else:
        options |= {"lossless": quality == 100, "exact": True}
    image = Image.fromarray(samples[:, :, 0] if samples.shape[-1] == 1 else samples)
    file = io.BytesIO()  # Pillow writes a JPEG in one call, and on a full disk does not look how much of it
    image.save(file, name.upper(), **{key: value for key, value in options.items() if value is not None})
    return file.getvalue()


def _jpeg_iptc(iptc: bytes) -> bytes:
    """The APP13 marker in which a JPEG holds IPTC records, as an image resource of Photoshop's."""
    resource = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(iptc)) + iptc + bytes(len(iptc) % 2)
    return b"\xff\xed" + struct.pack(">H", 2 + len(_IPTC_HEAD) + len(resource)) + _IPTC_HEAD + resource


def _that_fits_jpeg(kept: Metadata) -> tuple[Metadata, list[str]]:
    """The metadata without those longer than one marker of a JPEG, and notices of them."""
    room = {"exif": 0, "xmp": len(_XMP_HEAD), "iptc": len(_IPTC_HEAD) + 13}
    too_long = [name for name, head in room.items() if len(getattr(kept, name) or b"") + head > _MAX_SEGMENT]
    notices = [f"the {name.upper()} data is too long for JPEG and was left out." for name in too_long]
    return kept._replace(**dict.fromkeys(too_long)), notices
