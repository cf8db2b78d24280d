"""The one list of picture formats: which are read, with what, and what each output can hold."""

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from ..errors import ImageError


@dataclass(frozen=True)
class Output:
    """What a format that is written can hold."""

    max_side: int  # pixels
    bits: tuple[int, ...]  # per sample; 32 is floating point
    alpha: bool = True
    gray: bool = True  # a one-channel form exists


@dataclass(frozen=True)
class Format:
    """A row of the list: the name is Pillow's in small letters, the first suffix is the one written."""

    name: str
    suffixes: tuple[str, ...]
    output: Output | None = None
    package: str = ""  # adds the format to Pillow and must be installed
    module: str = ""  # of that package
    read: bool = True
    searched: bool = True  # a file of that name in a folder is meant as a picture
    photograph: bool = False  # always one picture, whose depth its readers tell: to train on and to measure

    @property
    def readable(self) -> bool:
        """Whether it can be read with what is installed."""
        return self.read and (not self.module or importlib.util.find_spec(self.module) is not None)


FORMATS = (
    Format("png", (".png",), Output(2**31 - 1, (8, 16)), photograph=True),
    Format("jpeg", (".jpg", ".jpeg", ".jpe", ".jfif"), Output(65535, (8,), alpha=False),
           photograph=True),
    # VP8 and VP8L (lossy and lossless WebP) both store 14 bits per side.
    Format("webp", (".webp",), Output(16383, (8,), gray=False), photograph=True),
    Format("tiff", (".tif", ".tiff"), Output(2**31 - 1, (8, 16, 32)), photograph=True),
    Format("bmp", (".bmp",), photograph=True),
    Format("apng", (".apng",)),
    Format("gif", (".gif",)),
    Format("avif", (".avif",)),
    Format("ppm", (".ppm", ".pgm", ".pbm", ".pnm")),
    Format("tga", (".tga",)),
    Format("jpeg2000", (".jp2",)),
    Format("heif", (".heic", ".heif", ".hif"), package="pillow-heif", module="pillow_heif"),
    Format("jxl", (".jxl",), package="pillow-jxl-plugin", module="pillow_jxl"),
    Format("psd", (".psd",), searched=False),
    Format("ico", (".ico",), searched=False),
    Format("drawing", (".svg", ".pdf", ".exr"), read=False, searched=False),
    Format("raw", (
        ".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".sr2", ".srf", ".raf", ".orf", ".rw2",
        ".rwl", ".pef", ".srw", ".x3f", ".3fr", ".fff", ".iiq", ".mrw", ".kdc", ".dcr", ".erf", ".mef",
        ".mos", ".gpr",
    ), read=False),
)  # fmt: skip

OUTPUTS = {form.name: form.output for form in FORMATS if form.output is not None}
"""What each format that is written can hold, by its name."""

PHOTOGRAPH_SUFFIXES = tuple(suffix for form in FORMATS if form.photograph for suffix in form.suffixes)
"""Of pictures to train on and to measure.

Pillow cuts the samples of other formats to 8 bits without a word, or shows the first frame of several.
"""

SAVE_AS = "save it as JPEG, PNG or TIFF first"


def by_suffix(path: str | os.PathLike) -> Format | None:
    """The format that a file's name says it has."""
    suffix = Path(path).suffix.lower()
    return next((form for form in FORMATS if suffix in form.suffixes), None)


def output_format(name: str | os.PathLike) -> Format:
    """The format to write.

    Args:
        name: a format's name, a suffix without its dot or a file's name: "png", "jpg", "photo.TIFF".

    Raises:
        ImageError: it is none that can be written.
    """
    text = os.fspath(name).lower()
    form = (
        next((form for form in FORMATS if form.name == text), None)
        or by_suffix(text)
        or by_suffix("a." + text)
    )
    if form is None or form.output is None:
        raise ImageError(f"cannot write {os.fspath(name)!r}: the formats are {', '.join(OUTPUTS)}.")
    return form


def is_picture_name(path: str | os.PathLike) -> bool:
    """Whether a folder's file is taken for a picture that can be read, by its name."""
    form = by_suffix(path)
    return form is not None and form.searched and form.readable


def is_photograph_name(path: str | os.PathLike) -> bool:
    """Whether it is taken for one to train on or to measure; hidden files are not."""
    form = by_suffix(path)
    return form is not None and form.photograph and not Path(path).name.startswith(".")


def why_unreadable(path: str | os.PathLike) -> str | None:
    """Why a photograph of that name cannot be read here; None where it can, or is none."""
    form = by_suffix(path)
    if form is None or form.readable or not form.searched:
        return None
    if not form.package:
        return f"its format cannot be read here: {SAVE_AS}"
    return (
        f"its format cannot be read here without the package {form.package}: "
        f"`pip install {form.package}`, or {SAVE_AS}"
    )


def why_left_out(path: str | os.PathLike) -> str | None:
    """Why a picture is neither trained on nor measured, by its name; None where it is, or is no picture."""
    form = by_suffix(path)
    if form is None or form.photograph or not form.searched or Path(path).name.startswith("."):
        return None
    if not form.read or form.package:
        return f"its format cannot be read here: {SAVE_AS}"
    return f"frames or depth of its format could be lost unseen: {SAVE_AS}"


def stored_bits(output: Output, bits: int) -> int:
    """Bits per sample that ``output`` will use for samples of ``bits``."""
    return bits if bits in output.bits else max(output.bits)


def check_output(
    name: str | os.PathLike,
    size: tuple[int, int],
    *,
    alpha: bool = False,
    bits: int = 8,
    flatten: bool = False,
) -> list[str]:
    """Whether a format can hold such a picture; known before any pixel is computed.

    Args:
        name: as ``output_format`` takes it.
        size: (H, W).
        alpha: the picture has transparency.
        bits: per sample: 8, 16, or 32 (floating point).
        flatten: it will be laid on a background.

    Returns:
        Notices of what will be lost.

    Raises:
        ImageError: the format cannot hold it.
    """
    form = output_format(name)
    assert form.output is not None
    title, (height, width) = form.name.upper(), size
    if max(size) > form.output.max_side:
        roomier = [other.upper() for other, output in OUTPUTS.items() if output.max_side >= max(size)]
        larger = f"write {' or '.join(roomier)}, or " if roomier else ""
        raise ImageError(
            f"{width}×{height} is too large for {title}, whose sides end at {form.output.max_side} pixels: "
            f"{larger}take a smaller scale."
        )
    if alpha and not form.output.alpha and not flatten:
        others = ", ".join(other.upper() for other, output in OUTPUTS.items() if output.alpha)
        raise ImageError(
            f"{title} cannot hold the picture's transparency: write one of {others}, or lay it on a "
            "background with the flatten option."
        )
    kept = stored_bits(form.output, bits)
    if kept >= bits:
        return []
    was = "32-bit floating-point" if bits == 32 else f"{bits}-bit"
    return [f"{was} samples are written as {kept} bits: {title} holds no more."]
