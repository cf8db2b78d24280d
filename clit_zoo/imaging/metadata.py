"""EXIF and ICC profiles: what stays true when the pixels are turned upright and enlarged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

ORIENTATION = 0x0112
_DESCRIPTION, _LAYOUTS = 0x010E, ('{"shape"', "<?xml", "<OME", "ImageJ=")
EXIF_IFD, GPS_IFD = 0x8769, 0x8825
_PIXEL_WIDTH, _PIXEL_HEIGHT, _INTEROP = 0xA002, 0xA003, 0xA005

# Tags that describe how a TIFF file lays out its pixels, or that are carried apart (resolution, ICC), or that
# say something about the old pixels (thumbnails, XMP's own copy of the orientation): none may reach the new
# file.
_DROPPED = {
    *range(254, 260), 262, 263, 266, 273, *range(277, 285), 290, 291, 296, 301, *range(317, 326), 330, 332,
    *range(338, 343), 347, *range(512, 522), *range(529, 533), 700, 33723, 34377, 34675, 37724, 50838, 50839,
}  # fmt: skip


def read_exif(exif: Callable[[], Image.Exif]) -> tuple[int, bytes | None]:
    """(orientation 1–8, EXIF bytes with the orientation reset to 1 and layout tags dropped, or None)."""
    try:
        entries = exif()
        orientation = entries.get(ORIENTATION, 1)
        orientation = int(orientation) if orientation in range(1, 9) else 1
    except Exception:  # malformed EXIF raises almost anything in Pillow; the pixels are what matters
        return 1, None
    return orientation, _cleaned(entries, None)


def exif_from_bytes(data: bytes) -> Image.Exif:
    exif = Image.Exif()
    exif.load(data)
    return exif


def exif_for(exif: bytes | None, width: int, height: int) -> bytes | None:
    """EXIF bytes with the picture's new size entered where the old one stood."""
    if exif is None:
        return None
    try:
        return _cleaned(exif_from_bytes(exif), (width, height))
    except Exception:  # as above
        return None


def _cleaned(exif: Image.Exif, size: tuple[int, int] | None) -> bytes | None:
    try:
        clean = Image.Exif()
        for tag, value in exif.items():
            if tag not in _DROPPED and tag not in (EXIF_IFD, GPS_IFD) and not _tells_layout(tag, value):
                clean[tag] = writable(value)
        for ifd in (EXIF_IFD, GPS_IFD):
            entries = {tag: writable(value) for tag, value in exif.get_ifd(ifd).items()}
            if size and ifd == EXIF_IFD:
                entries |= {t: n for t, n in zip((_PIXEL_WIDTH, _PIXEL_HEIGHT), size) if t in entries}
            entries.pop(_INTEROP, None)  # an offset into the old file
            if entries:
                clean[ifd] = entries
        if ORIENTATION in clean:
            clean[ORIENTATION] = 1
        return clean.tobytes() if len(clean) else None
    except Exception:  # an entry of a type Pillow reads but cannot write
        return None


def _tells_layout(tag: int, value: Any) -> bool:
    """Whether it is a description by which programs find the old pixels: tifffile's, OME's or ImageJ's."""
    return tag == _DESCRIPTION and str(value).startswith(_LAYOUTS)


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


def fitting_icc(icc: bytes | None, gray: bool) -> bytes | None:
    """The profile if it is for this number of channels, else None (a CMYK profile on RGB pixels is a lie)."""
    space = b"GRAY" if gray else b"RGB "
    return icc if icc is not None and icc[16:20] == space else None


def upright(samples: np.ndarray, orientation: int) -> np.ndarray:
    """Turn an (h, w, …) array upright by its EXIF orientation (TIFF 6.0, tag 274)."""
    if orientation > 4:  # 5–8 exchange rows and columns
        samples = samples.swapaxes(0, 1)
    flips = {2: (1,), 3: (0, 1), 4: (0,), 6: (1,), 7: (0, 1), 8: (0,)}.get(orientation, ())
    return np.flip(samples, flips)


def plausible_dpi(x: float, y: float) -> tuple[float, float] | None:
    return (x, y) if 0 < x < 1e6 and 0 < y < 1e6 else None
