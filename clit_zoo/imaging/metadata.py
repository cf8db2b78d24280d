"""What a file says of its picture (EXIF, XMP, IPTC, ICC profile, resolution), kept true of the larger one."""

import re
import struct
from contextlib import suppress
from typing import Any, NamedTuple

from PIL import Image

ORIENTATION, EXIF_IFD, GPS_IFD = 0x0112, 0x8769, 0x8825
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 282, 283, 296
XMP, IPTC, ICC = 700, 33723, 34675
_DESCRIPTION, _LAYOUTS = 0x010E, ('{"shape"', "<?xml", "<OME", "ImageJ=")
_PIXEL_WIDTH, _PIXEL_HEIGHT, _INTEROP = 0xA002, 0xA003, 0xA005
_CM_PER_INCH = 2.54

# Tags that say how a TIFF file lays out its pixels, that are carried apart (XMP, IPTC, ICC, resolution), or
# that say something about the old pixels (thumbnails): none may reach the new file's EXIF.
_DROPPED = {
    *range(254, 260), 262, 263, 266, 273, *range(277, 285), 290, 291, 296, 301, *range(317, 326), 330, 332,
    *range(338, 343), 347, *range(512, 522), *range(529, 533), 700, 33723, 34377, 34675, 37724, 50838, 50839,
}  # fmt: skip


class Metadata(NamedTuple):
    """What survives beside the pixels. The orientation is applied to them, and 1 wherever it stands."""

    icc: bytes | None = None
    exif: bytes | None = None  # as Pillow's ``Exif.tobytes`` writes it
    xmp: bytes | None = None
    iptc: bytes | None = None  # records of IPTC-IIM
    dpi: tuple[float, float] | None = None  # (x, y)

    def of_size(self, size: tuple[int, int]) -> "Metadata":
        """The metadata with the picture's new size (H, W) entered where the old one stood."""
        if self.exif is None:
            return self
        exif = Image.Exif()
        exif.load(self.exif)
        return self._replace(exif=clean_exif(exif, size))


def orientation_of(exif: Image.Exif) -> int:
    """1 to 8 (TIFF 6.0, tag 274)."""
    value = exif.get(ORIENTATION, 1)
    return int(value) if value in range(1, 9) else 1


def clean_exif(exif: Image.Exif, size: tuple[int, int] | None = None) -> bytes | None:
    """Its bytes without the layout of the old file and with orientation 1; None where nothing is left.

    Args:
        exif: as Pillow reads it; malformed entries raise almost anything, and then all are left out, for the
            pixels are what matters.
        size: (H, W), entered where the EXIF named the old one.
    """
    with suppress(Exception):
        clean = Image.Exif()
        for tag, value in exif.items():
            layout = tag == _DESCRIPTION and str(value).startswith(_LAYOUTS)  # by tifffile, OME, ImageJ
            if tag not in _DROPPED and tag not in (EXIF_IFD, GPS_IFD) and not layout:
                clean[tag] = writable(value)
        for ifd in (EXIF_IFD, GPS_IFD):
            entries = {tag: writable(value) for tag, value in exif.get_ifd(ifd).items()}
            entries.pop(_INTEROP, None)  # an offset into the old file
            if size and ifd == EXIF_IFD:
                new = {_PIXEL_HEIGHT: size[0], _PIXEL_WIDTH: size[1]}
                entries |= {tag: side for tag, side in new.items() if tag in entries}
            if entries:
                clean[ifd] = entries
        if ORIENTATION in clean:
            clean[ORIENTATION] = 1
        return clean.tobytes() if len(clean) else None
    return None


class _Text(str):
    """EXIF text that is written as the bytes it was read from.

    EXIF means text to be ASCII, but programs store UTF-8. Pillow reads each byte as Latin-1 and writes a
    question mark for what is not ASCII; given bytes instead, it would change the type of tags it does not
    know.
    """

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        try:
            return super().encode("latin-1")
        except UnicodeEncodeError:  # not read from a file: set by a program
            return super().encode("utf-8", "replace")


def writable(value: Any) -> Any:
    """An EXIF entry so that Pillow and tifffile write text beyond ASCII, too."""
    return _Text(value) if isinstance(value, str) else value


def clean_xmp(xmp: Any) -> bytes | None:
    """The packet with its own copy of the orientation set to 1; None for what is none."""
    if not isinstance(xmp, bytes) or not xmp:
        return None
    return re.sub(rb"""(tiff:Orientation(?:\s*=\s*["']|>)\s*)[1-8]""", rb"\g<1>1", xmp)


def xmp_of_jxl(data: bytes) -> bytes | None:
    """The packet in a JPEG XL file (ISO/IEC 18181-2), which its reader for Pillow leaves there."""
    place = 0
    while place + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, place)
        if kind == b"xml ":
            return data[place + 8 : place + size if size else None]
        if size < 8:  # the rest of the file, a box above 4 GB, or none of all this
            return None
        place += size
    return None


def fitting_icc(icc: bytes | None, gray: bool) -> bytes | None:
    """The profile if it is for this number of channels, else None: a CMYK profile on RGB pixels is a lie."""
    space = b"GRAY" if gray else b"RGB "
    return icc if icc is not None and icc[16:20] == space else None


def dpi_of_tags(tags: Any) -> tuple[float, float] | None:
    """Pixels per inch (x, y) by a TIFF's tags; None where they do not say."""
    inch = {2: 1.0, 3: _CM_PER_INCH}.get(tags.get(RESOLUTION_UNIT, 2))  # unit 1 gives a pixel's shape only
    with suppress(KeyError, TypeError, ValueError, ZeroDivisionError):
        return plausible_dpi(tags[X_RESOLUTION] * inch, tags[Y_RESOLUTION] * inch)
    return None


def plausible_dpi(x: Any, y: Any) -> tuple[float, float] | None:
    """Pixels per inch as floats, or None for what cannot be."""
    x, y = float(x), float(y)
    return (x, y) if 0 < x < 1e6 and 0 < y < 1e6 else None
