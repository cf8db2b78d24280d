"""Folders of originals and of low-resolution pictures, and the pairs they give."""

import hashlib
import io
import math
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ClitZooError, ImageError
from ..imaging.formats import PHOTOGRAPH_SUFFIXES, is_photograph_name, why_left_out
from .degradations import Degradation
from .resize import imresize, pil_bicubic

if TYPE_CHECKING:
    from PIL import Image

# Above this the papers make low-resolution pictures with Pillow, up to it with MATLAB.
LARGEST_MATLAB_SCALE = 4

# Folder names that say nothing of the dataset in them.
_GENERIC = {"hr", "gt", "original", "originals", "images"}


def images_in(folder: Path) -> list[Path]:
    """The pictures directly inside a folder, by name.

    Raises:
        ClitZooError: there is no such folder, it may not be read, or no picture is in it.
    """
    entries = _entries(folder)
    found = [p for p in entries if is_photograph_name(p) and not os.path.isdir(p)]
    if not found:
        inside = [p.name for p in entries if os.path.isdir(p)]
        hint = f"; it holds the folders {', '.join(inside[:5])}: is it one of these?" if inside else "."
        if other := left_out_of(folder):
            hint = f"; {len(other)} left out, such as {other[0][0]}: {other[0][1]}."
        raise ClitZooError(f"There are no pictures ({' '.join(PHOTOGRAPH_SUFFIXES)}) in {folder}{hint}")
    return found


def left_out_of(folder: Path) -> list[tuple[str, str]]:
    """The pictures in a folder that are not measured by their format, and why, by name.

    Raises:
        ClitZooError: there is no such folder, or it may not be read.
    """
    return [
        (p.name, why)
        for p in _entries(folder)
        if (why := why_left_out(p)) is not None and not os.path.isdir(p)
    ]


def _entries(folder: Path) -> list[Path]:
    """What is in a folder and not hidden, by name."""
    try:
        if not stat.S_ISDIR(os.stat(folder).st_mode):
            raise ClitZooError(f"{folder} is not a folder: give the folder that holds the originals.")
        return sorted(folder / name for name in os.listdir(folder) if not name.startswith("."))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ClitZooError(f"The folder {folder} does not exist: check the path.") from error
    except OSError as error:
        raise ClitZooError(
            f"The folder {folder} cannot be read ({error.strerror or error}): check its permissions."
        ) from error


def dataset_of(folder: Path) -> str:
    """What to call the dataset in a folder: its name, or its parent's where that says only "HR"."""
    return _named(folder).name


def dataset_names(folders: Sequence[Path]) -> list[str]:
    """What to call the datasets of one table: as ``dataset_of``, with the folders above ("a/test") where
    two would have one name and be averaged as one.

    Raises:
        ClitZooError: a folder is given twice.
    """
    seen: set[str] = set()
    for folder in folders:
        real = os.path.realpath(folder)
        if real in seen:
            raise ClitZooError(f"The folder {folder} is given twice: give it once.")
        seen.add(real)
    names = [dataset_of(folder) for folder in folders]
    for name in {name for name in names if names.count(name) > 1}:
        alike = [i for i, other in enumerate(names) if other == name]
        paths = [_named(folders[i]) for i in alike]
        if len(set(paths)) < len(paths):  # Set5/HR and Set5/GT
            paths = [folders[i].resolve() for i in alike]
        depth = 2
        while len({path.parts[-depth:] for path in paths}) < len(paths):
            depth += 1
        for i, path in zip(alike, paths, strict=True):
            names[i] = "/".join(path.parts[-depth:])
    return names


def plain_name(dataset: str) -> str:
    """A name of ``dataset_names`` without the folders above."""
    *above, last = dataset.split("/")
    return above[-1] if above and last.lower() in _GENERIC else last


def _named(folder: Path) -> Path:
    """The folder that says what the dataset is."""
    folder = folder.resolve()
    return folder.parent if folder.name.lower() in _GENERIC else folder


def decode(data: bytes, name: str) -> np.ndarray:
    """An 8-bit picture from a file's bytes: ``(H, W, 3)``, or ``(H, W)`` where the file is gray.

    Raises:
        ImageError: it is no picture, damaged, deeper than 8 bits or transparent. Cutting bits or dropping
            alpha would score another picture than the file's.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(io.BytesIO(data))
        if _bits(image, data) > 8:
            raise ImageError(
                f"{name} has more than 8 bits per channel; the protocols are for 8-bit pictures: convert it"
            )
        if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or image.has_transparency_data:
            raise ImageError(
                f"{name} has an alpha channel, which the protocols do not score: save it without one"
            )
        return np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError(f"{name} does not fit into memory") from error
    except UnidentifiedImageError as error:  # which names the object in memory
        raise ImageError(
            f"{name} cannot be read as a picture: its format is unknown here, or its header is damaged"
        ) from error
    # A damaged file makes Pillow raise nearly anything: SyntaxError, struct.error, OverflowError …
    except Exception as error:
        raise ImageError(f"{name} cannot be read as a picture ({error})") from error


def _bits(image: "Image.Image", data: bytes) -> int:
    """Bits per channel in the file, which Pillow may cut to 8: as `imaging.probe` without torch."""
    if image.mode.startswith(("I", "F")):
        return 16
    if image.format == "PNG":
        return data[24]  # in IHDR, always the first chunk
    if image.format == "TIFF":
        return max(image.tag_v2.get(258, (1,)))  # type: ignore[attr-defined]
    return 8


@dataclass(frozen=True)
class Original:
    """One original with the hash of its file."""

    path: Path
    pixels: np.ndarray
    sha256: str


def read_original(path: Path) -> Original:
    data = _bytes_of(path)
    return Original(path, decode(data, path.name), hashlib.sha256(data).hexdigest())


def _bytes_of(path: Path) -> bytes:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # reading a pipe would wait for ever
            raise ImageError(f"{path.name} is not a regular file")
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path.name} cannot be read ({error.strerror or error})") from error
    except MemoryError as error:
        raise ImageError(f"{path.name} does not fit into memory") from error


@dataclass(frozen=True)
class Pair:
    """A low-resolution picture, the original cropped to what it covers, and where the former came from."""

    low: Callable[[], np.ndarray]  # made on demand: a resumed evaluation asks for few of them
    high: np.ndarray
    lr: str  # "given", "MATLAB bicubic" or "Pillow bicubic"; and ", then jpeg:70", say
    lr_key: str  # changes when the low-resolution picture does

    def degraded(self, how: Degradation) -> "Pair":
        """The pair with a degraded low-resolution picture."""
        return replace(
            self,
            low=lambda: how(self.low()),
            lr=f"{self.lr}, then {how.word}",
            lr_key=f"{self.lr_key} {how.word}",
        )


def sizes_at(size: tuple[int, int], scale: float) -> tuple[tuple[int, int], tuple[int, int]]:
    """The sizes of the low-resolution version of a picture ``(H, W)``, and of what it covers of that picture.

    As LIIF does for any real scale: ``floor(H / scale)`` rows, and the original cropped to
    ``round(floor(H / scale) · scale)``.
    """
    small = (math.floor(size[0] / scale + 1e-9), math.floor(size[1] / scale + 1e-9))
    return small, (round(small[0] * scale), round(small[1] * scale))


def make_pair(original: Original, scale: float, lr_folder: Path | None) -> Pair:
    """The original cropped to a multiple of the scale, and its low-resolution version, read or made."""
    height, width = original.pixels.shape[:2]
    small, covered = sizes_at((height, width), scale)
    if min(small) < 1:
        raise ImageError(f"{original.path.name} ({width}×{height}) has no pixel left at 1/{scale:g}")
    high = original.pixels[: covered[0], : covered[1]]
    if lr_folder is None:
        if scale <= LARGEST_MATLAB_SCALE:
            return Pair(lambda: imresize(high, size=small), high, "MATLAB bicubic", "matlab")
        return Pair(lambda: pil_bicubic(high, small), high, "Pillow bicubic", "pillow")
    path = find_low(lr_folder, original.path.stem, scale)
    data = _bytes_of(path)
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
        for suffix in PHOTOGRAPH_SUFFIXES:
            if os.path.isfile(folder / (name + suffix)):
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
        found[scale] = next((f for f in tried if os.path.isdir(f)), None)
        if found[scale] is None and os.path.isdir(base) and base not in tried:
            try:
                names = [p.stem for p in base.iterdir() if is_photograph_name(p)]
            except OSError as error:
                raise ClitZooError(
                    f"The folder {base} cannot be read ({error.strerror or error}): check its permissions."
                ) from error
            if any(n.endswith(f"x{scale:g}") for n in names) or (names and len(scales) == 1):
                found[scale] = base
        if found[scale] is None and scale <= LARGEST_MATLAB_SCALE:
            raise ClitZooError(
                f"No folder of low-resolution pictures at ×{scale:g}: "
                f"looked for {' and '.join(map(str, tried))}. "
                "Give a pattern such as Set5/LR_bicubic/X{scale}, or none to have them made."
            )
    return found
