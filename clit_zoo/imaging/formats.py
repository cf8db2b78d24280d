"""The output formats and what each can hold: known before any pixel is computed."""

from __future__ import annotations

import os
import re
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


PHOTOGRAPH_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".webp", ".jpg", ".jpeg", ".jpe", ".jfif")
"""Of pictures to train on and to measure: formats of one picture, whose depth their readers tell.

Pillow cuts the samples of others to 8 bits without a word, or shows the first frame of several.
"""

PICTURE_SUFFIXES = (
    *PHOTOGRAPH_SUFFIXES, ".apng", ".gif", ".avif", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2",
)  # fmt: skip

UNREADABLE_SUFFIXES = (
    ".heic", ".heif", ".hif", ".jxl",
    ".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".sr2", ".srf", ".raf", ".orf", ".rw2", ".rwl",
    ".pef", ".srw", ".x3f", ".3fr", ".fff", ".iiq", ".mrw", ".kdc", ".dcr", ".erf", ".mef", ".mos", ".gpr",
)  # fmt: skip
"""Of photographs that no reader here knows, raw ones most of all: they are named where they are left out."""

UNREADABLE = "its format cannot be read here: save it as JPEG, PNG or TIFF first"


def is_picture_name(path: str | os.PathLike) -> bool:
    """Whether a folder's file is taken for a picture that can be enlarged, by its extension."""
    return Path(path).suffix.lower() in PICTURE_SUFFIXES


def is_unreadable_name(path: str | os.PathLike) -> bool:
    """Whether it is taken for a photograph in a format that cannot be read."""
    return Path(path).suffix.lower() in UNREADABLE_SUFFIXES


def is_photograph_name(path: str | os.PathLike) -> bool:
    """Whether it is taken for one to train on or to measure; hidden files are not."""
    path = Path(path)
    return path.suffix.lower() in PHOTOGRAPH_SUFFIXES and not path.name.startswith(".")


def why_left_out(path: str | os.PathLike) -> str | None:
    """Why a picture is neither trained on nor measured, by its name; None where it is, or is no picture."""
    if Path(path).name.startswith(".") or is_photograph_name(path):
        return None
    if is_unreadable_name(path):
        return UNREADABLE
    if is_picture_name(path):
        return "frames or depth of its format could be lost unseen: save it as JPEG, PNG or TIFF first"
    return None


WEB_ADDRESS = "is a web address, which is not read; download the picture first."


def web_address(path: str | os.PathLike) -> str | None:
    """The web address that was given as a path, which takes one of its slashes away; None if it is none."""
    found = re.match(r"(https?|ftp):[/\\]+(.*)", os.fspath(path), re.IGNORECASE)
    return f"{found[1]}://{found[2]}" if found else None
