"""Folders of originals and of low-resolution pictures, and the pairs they give."""

import hashlib
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import ClitZooError, ImageError
from ..resize import imresize, pil_bicubic

SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".webp", ".jpg", ".jpeg")

# Above this the papers make low-resolution pictures with Pillow, up to it with MATLAB.
LARGEST_MATLAB_SCALE = 4


def images_in(folder: Path) -> list[Path]:
    """The pictures directly inside a folder, by name.

    Raises:
        ClitZooError: there is no such folder, or no picture in it.
    """
    if not folder.exists():
        raise ClitZooError(f"The folder {folder} does not exist: check the path.")
    if not folder.is_dir():
        raise ClitZooError(f"{folder} is not a folder: give the folder that holds the originals.")
    entries = sorted(folder.iterdir())
    found = [
        p for p in entries if p.suffix.lower() in SUFFIXES and p.is_file() and not p.name.startswith(".")
    ]
    if not found:
        inside = [p.name for p in entries if p.is_dir() and not p.name.startswith(".")]
        hint = f"; it holds the folders {', '.join(inside[:5])}: is it one of these?" if inside else "."
        raise ClitZooError(f"There are no pictures ({' '.join(SUFFIXES)}) in {folder}{hint}")
    return found


def dataset_of(folder: Path) -> str:
    """What to call the dataset in a folder: its name, or its parent's where that says only "HR"."""
    folder = folder.resolve()
    generic = folder.name.lower() in {"hr", "gt", "original", "originals", "images"}
    return folder.parent.name if generic else folder.name


def decode(data: bytes, name: str) -> np.ndarray:
    """An 8-bit picture from a file's bytes: ``(H, W, 3)``, or ``(H, W)`` where the file is gray."""
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(data))
        if image.mode.startswith(("I", "F")):
            raise ImageError(f"{name} has more than 8 bits per channel; the protocols are for 8-bit pictures")
        return np.asarray(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))
    except ImageError:
        raise
    # A damaged file makes Pillow raise nearly anything: SyntaxError, struct.error, OverflowError …
    except Exception as error:
        raise ImageError(f"{name} cannot be read as a picture ({error})") from error


@dataclass(frozen=True)
class Original:
    """One original with the hash of its file."""

    path: Path
    pixels: np.ndarray
    sha256: str


def read_original(path: Path) -> Original:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path.name} cannot be read ({error.strerror or error})") from error
    return Original(path, decode(data, path.name), hashlib.sha256(data).hexdigest())


@dataclass(frozen=True)
class Pair:
    """A low-resolution picture, the original cropped to what it covers, and where the former came from."""

    low: Callable[[], np.ndarray]  # made on demand: a resumed evaluation asks for few of them
    high: np.ndarray
    lr: str  # "given", "MATLAB bicubic" or "Pillow bicubic"
    lr_key: str  # changes when the low-resolution picture does


def make_pair(original: Original, scale: float, lr_folder: Path | None) -> Pair:
    """The original cropped to a multiple of the scale, and its low-resolution version, read or made.

    As LIIF does for any real scale: ``floor(H / scale)`` rows, and the original cropped to
    ``round(floor(H / scale) · scale)``.
    """
    height, width = original.pixels.shape[:2]
    small = (math.floor(height / scale + 1e-9), math.floor(width / scale + 1e-9))
    if min(small) < 1:
        raise ImageError(f"{original.path.name} ({width}×{height}) has no pixel left at 1/{scale:g}")
    high = original.pixels[: round(small[0] * scale), : round(small[1] * scale)]
    if lr_folder is None:
        if scale <= LARGEST_MATLAB_SCALE:
            return Pair(lambda: imresize(high, size=small), high, "MATLAB bicubic", "matlab")
        return Pair(lambda: pil_bicubic(high, small), high, "Pillow bicubic", "pillow")
    path = find_low(lr_folder, original.path.stem, scale)
    data = path.read_bytes()
    low = decode(data, path.name)
    if low.shape[:2] != small:
        raise ImageError(
            f"{path.name} is {low.shape[1]}×{low.shape[0]}, but 1/{scale:g} of {original.path.name} "
            f"({width}×{height}) is {small[1]}×{small[0]}"
        )
    return Pair(lambda: low, high, "given", hashlib.sha256(data).hexdigest())


def find_low(folder: Path, stem: str, scale: float) -> Path:
    """``babyx2.png``, ``baby.png`` or (for ``…_HR``) ``…_LR.png`` in a folder of low-resolution pictures."""
    names = [f"{stem}x{scale:g}", stem, *([stem.replace("_HR", "_LR")] if "_HR" in stem else [])]
    for name in names:
        for suffix in SUFFIXES:
            if (folder / (name + suffix)).is_file():
                return folder / (name + suffix)
    raise ImageError(f"{folder} has no {names[0]}.png or {names[1]}.png")


def low_folders(
    pattern: str | Path | None, dataset: str, scales: Sequence[float]
) -> dict[float, Path | None]:
    """Where the given low-resolution pictures of each scale lie; None for a scale whose are to be made.

    The pattern may hold ``{scale}`` and ``{dataset}``; without ``{scale}``, a folder ``X2`` (``X3`` …) inside
    it is taken, or the folder itself if its files end in ``x2`` or only one scale is asked for.

    Raises:
        ClitZooError: a scale up to ×4 has no folder. Larger ones, which no dataset ships, are then made.
    """
    if pattern is None:
        return dict.fromkeys(scales)
    found: dict[float, Path | None] = {}
    for scale in scales:
        base = Path(str(pattern).replace("{dataset}", dataset).replace("{scale}", f"{scale:g}"))
        tried = [base] if "{scale}" in str(pattern) else [base / f"X{scale:g}", base / f"x{scale:g}"]
        found[scale] = next((f for f in tried if f.is_dir()), None)
        if found[scale] is None and base.is_dir() and base not in tried:
            names = [p.stem for p in base.iterdir() if p.suffix.lower() in SUFFIXES]
            if any(n.endswith(f"x{scale:g}") for n in names) or (names and len(scales) == 1):
                found[scale] = base
        if found[scale] is None and scale <= LARGEST_MATLAB_SCALE:
            raise ClitZooError(
                f"No folder of low-resolution pictures at ×{scale:g}: "
                f"looked for {' and '.join(map(str, tried))}. "
                "Give a pattern such as Set5/LR_bicubic/X{scale}, or none to have them made."
            )
    return found
