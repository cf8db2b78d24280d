"""The output formats and what each can hold: known before any pixel is computed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ..errors import ImageError


@dataclass(frozen=True)
class OutputFormat:
    name: str
    extensions: tuple[str, ...]  # the first one is written
    max_side: int  # pixels
    alpha: bool
    bits: tuple[int, ...]  # per sample; 32 is floating point
    gray: bool = True  # a one-channel form exists
    lossy: bool = False  # takes a quality


OUTPUT_FORMATS = {
    form.name: form
    for form in (
        OutputFormat("png", ("png",), 2**31 - 1, alpha=True, bits=(8, 16)),
        OutputFormat("jpeg", ("jpg", "jpeg", "jpe", "jfif"), 65535, alpha=False, bits=(8,), lossy=True),
        # VP8 and VP8L (lossy and lossless WebP) both store 14 bits per side.
        OutputFormat("webp", ("webp",), 16383, alpha=True, bits=(8,), gray=False, lossy=True),
        OutputFormat("tiff", ("tif", "tiff"), 2**31 - 1, alpha=True, bits=(8, 16, 32)),
    )
}
_BY_EXTENSION = {extension: form for form in OUTPUT_FORMATS.values() for extension in form.extensions}


def format_of(name_or_path: str | os.PathLike) -> OutputFormat:
    """The output format of "png", "jpg", "photo.TIFF"…; ImageError for one that cannot be written."""
    text = os.fspath(name_or_path)
    key = (Path(text).suffix or text).lower().lstrip(".")
    form = OUTPUT_FORMATS.get(key) or _BY_EXTENSION.get(key)
    if form is None:
        raise ImageError(f"cannot write {text!r}: choose one of the formats {', '.join(OUTPUT_FORMATS)}.")
    return form


def stored_bits(form: OutputFormat, bits: int) -> int:
    """Bits per sample that `form` will use for samples of `bits`."""
    return bits if bits in form.bits else max(form.bits)


def check_output(
    format: str, width: int, height: int, *, alpha: bool = False, bits: int = 8, flatten: bool = False
) -> list[str]:
    """Can `format` hold such a picture? Raises ImageError if not; returns notices of what would be lost.

    width, height: pixels. alpha: the picture has transparency; flatten: it will be laid on a background.
    bits: 8, 16, or 32 (floating point) per sample.
    """
    form = format_of(format)
    if max(width, height) > form.max_side:
        roomier = [f.name.upper() for f in OUTPUT_FORMATS.values() if f.max_side >= max(width, height)]
        remedy = (
            f"write {' or '.join(roomier)}, or take a smaller scale" if roomier else "take a smaller scale"
        )
        raise ImageError(
            f"{width}×{height} is too large for {form.name.upper()}, whose sides end at {form.max_side} "
            f"pixels: {remedy}."
        )
    if alpha and not form.alpha and not flatten:
        raise ImageError(
            f"{form.name.upper()} cannot hold the picture's transparency: write PNG, WebP or TIFF, or lay it "
            "on a background with the flatten option."
        )
    kept = stored_bits(form, bits)
    if kept < bits:
        was = "32-bit floating-point" if bits == 32 else f"{bits}-bit"
        return [f"{was} samples are written as {kept} bits: {form.name.upper()} holds no more."]
    return []
