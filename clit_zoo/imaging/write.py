"""A Picture into a file: the whole file or nothing, with its profile, EXIF and resolution."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageColor

from ..atomic import replacing
from ..errors import ImageError
from . import metadata, png, tiff
from .formats import OutputFormat, check_output, format_of, stored_bits
from .picture import Picture, bands, to_samples

DEFAULT_QUALITY = 95
_MAX_JPEG_EXIF = 65533  # one APP1 segment
_DTYPES = {8: np.uint8, 16: np.uint16, 32: np.float32}


def write(
    picture: Picture,
    path: str | os.PathLike,
    format: str | None = None,
    quality: int | None = None,
    flatten: str | None = None,
) -> list[str]:
    """Write one picture, whole or not at all (see `clit_zoo.atomic`); returns notices.

    format: "png", "jpeg", "webp" or "tiff"; by the path's extension if None.
    quality: 1 to 100, 95 if None, for JPEG and WebP; 100 makes WebP lossless. PNG and TIFF always are.
    flatten: a background colour ("white", "#202020") to lay a transparent picture on.
    Raises ImageError if the format cannot hold the picture or the file cannot be written.
    """
    form = format_of(format or path)
    if picture.color.shape[0] != 1:
        raise ImageError(
            f"cannot write a batch of {picture.color.shape[0]} pictures into one file: write each."
        )
    if quality is not None and not 1 <= quality <= 100:
        raise ImageError(f"quality {quality} is outside 1…100.")
    if flatten is not None:
        picture = flattened(picture, flatten)
    notices = check_output(
        form.name, picture.width, picture.height, alpha=picture.alpha is not None, bits=picture.bits
    )
    samples = to_samples(picture, _DTYPES[stored_bits(form, picture.bits)])[0]
    exif = metadata.exif_for(picture.exif, picture.width, picture.height)
    if exif and form.name == "jpeg" and len(exif) > _MAX_JPEG_EXIF:
        exif = None
        notices.append("the EXIF data is too long for JPEG and was left out.")
    gray = picture.gray and form.gray
    icc = metadata.fitting_icc(picture.icc, gray)
    kept: dict[str, Any] = {"icc": icc, "exif": exif, "dpi": picture.dpi}

    try:
        with replacing(path) as part:
            if form.name == "tiff":
                tiff.write_tiff(part, samples, **kept)
            elif samples.dtype == np.uint16:
                with open(part, "wb") as file:
                    png.write_png(file, samples, **kept)
            else:
                _write_pillow(part, samples, form, quality or DEFAULT_QUALITY, kept)
    except (OSError, ValueError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ImageError(
            f"cannot write {path}: {reason}. Check the folder, its permissions and free space."
        ) from error
    return notices


def flattened(picture: Picture, background: str) -> Picture:
    """The picture laid on a background of a CSS colour name or #rrggbb; without alpha it stays as it is."""
    try:
        rgb = ImageColor.getrgb(background)[:3]
    except ValueError as error:
        raise ImageError(
            f"{background!r} is no colour: give a name such as white, or a code such as #202020."
        ) from error
    if picture.alpha is None:
        return picture
    ground = picture.color.new_tensor(rgb).div(255)[None, :, None, None]
    color = picture.color.clone()
    for rows in bands(picture.height, picture.width):
        weight = picture.alpha[:, :, rows].to(color)
        color[:, :, rows] = ground + (color[:, :, rows] - ground) * weight
    gray = picture.gray and len(set(rgb)) == 1
    return replace(picture, color=color, alpha=None, gray=gray)


def _write_pillow(
    path: Path, samples: np.ndarray, form: OutputFormat, quality: int, kept: dict[str, Any]
) -> None:
    image = Image.fromarray(samples[:, :, 0] if samples.shape[-1] == 1 else samples)
    options: dict[str, Any] = {
        key: value
        for key, value in (("icc_profile", kept["icc"]), ("exif", kept["exif"]), ("dpi", kept["dpi"]))
        if value is not None
    }
    if form.name == "jpeg":
        # Full colour resolution: halving it is what a person enlarges pictures to get rid of.
        options |= {"quality": quality, "subsampling": 0}
    elif form.name == "webp":
        options |= {"quality": quality, "lossless": quality == 100, "exact": True}
        options.pop("dpi", None)
    with open(path, "wb") as file:
        image.save(file, form.name.upper(), **options)
