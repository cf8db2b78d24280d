"""Folders of originals and of low-resolution pictures, and the pairs they give."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .. import imaging
from ..errors import ClitZooError, ImageError
from ..geometry import Size
from ..imaging.formats import PHOTOGRAPH_SUFFIXES, is_photograph_name, why_left_out
from .degradations import Degradation
from .resize import imresize, pil_bicubic

# Above this the papers make low-resolution pictures with Pillow, up to it with MATLAB.
LARGEST_MATLAB_SCALE = 4

# Folder names that say nothing of the dataset in them.
_GENERIC = {"hr", "gt", "original", "originals", "images"}


def images_in(folder: Path) -> list[Path]:
    """The pictures directly inside a folder, by name.

    Raises:
        OSError: it cannot be read.
        ClitZooError: no picture is in it.
    """
    entries = _entries(folder)
    found = [path for path in entries if is_photograph_name(path) and not os.path.isdir(path)]
    if not found:
        inside = [path.name for path in entries if os.path.isdir(path)]
        hint = f"; it holds the folders {', '.join(inside[:5])}: is it one of these?" if inside else "."
        if other := left_out_of(folder):
            hint = f"; {len(other)} left out, such as {other[0][0]}: {other[0][1]}."
        raise ClitZooError(f"There are no pictures ({' '.join(PHOTOGRAPH_SUFFIXES)}) in {folder}{hint}")
    return found


def left_out_of(folder: Path) -> list[tuple[str, str]]:
    """The pictures in a folder that are not measured by their format, and why, by name."""
    return [(p.name, why) for p in _entries(folder) if (why := why_left_out(p)) and not os.path.isdir(p)]


def _entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def dataset_of(folder: Path) -> str:
    """What to call the dataset in a folder: its name, or its parent's where that says only "HR"."""
    return _named(folder).name


def dataset_names(folders: Sequence[Path]) -> list[str]:
    """What to call the datasets of one table: as ``dataset_of``, with the folders above ("a/test") where
    two would have one name and be averaged as one.

    Raises:
        ClitZooError: a folder is given twice.
    """
    real = [_real(folder) for folder in folders]
    for i, folder in enumerate(folders):
        if real[i] in real[:i]:
            raise ClitZooError(f"The folder {folder} is given twice: give it once.")
    names = [dataset_of(folder) for folder in folders]
    for name in {name for name in names if names.count(name) > 1}:
        alike = [i for i, other in enumerate(names) if other == name]
        paths = [_named(folders[i]) for i in alike]
        if len(set(paths)) < len(paths):  # Set5/HR and Set5/GT
            paths = [real[i] for i in alike]
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
    folder = _real(folder)
    return folder.parent if folder.name.lower() in _GENERIC else folder


def _real(folder: Path) -> Path:
    return Path(os.path.realpath(folder))  # Path.resolve raises RuntimeError on a link that leads to itself


class Original(NamedTuple):
    """One original: its file and its 8-bit pixels, ``(H, W, 3)``, or ``(H, W)`` where the file is gray."""

    path: Path
    pixels: np.ndarray


def read_original(path: Path) -> Original:
    """The picture in a file.

    Raises:
        ImageError: it cannot be read, is deeper than 8 bits or transparent: cutting bits or dropping alpha
            would score another picture than the file's.
    """
    picture = imaging.read(path)
    if picture.bits > 8 or picture.transparent:
        what = "more than 8 bits per channel" if picture.bits > 8 else "an alpha channel"
        raise ImageError(f"{path} has {what}, which the protocols do not score: save it as 8-bit RGB or gray")
    color = picture.color[0, 0] if picture.gray else picture.color[0].permute(1, 2, 0)
    return Original(path, (color * 255).round().byte().numpy())


class Pair(NamedTuple):
    """A low-resolution picture, where it came from, and the original cropped to what it covers."""

    low: np.ndarray
    source: str  # "given", "MATLAB bicubic" or "Pillow bicubic"; and ", then jpeg:70", say
    high: np.ndarray

    def degraded(self, how: Degradation) -> "Pair":
        """The pair with a degraded low-resolution picture."""
        return self._replace(low=how(self.low), source=f"{self.source}, then {how.word}")


def sizes_at(size: Size, scale: float) -> tuple[Size, Size]:
    """The sizes of the low-resolution version of a picture ``(H, W)``, and of what it covers of that picture.

    As LIIF does for any real scale: ``floor(H / scale)`` rows, and the original cropped to
    ``round(floor(H / scale) · scale)``.
    """
    small = (math.floor(size[0] / scale + 1e-9), math.floor(size[1] / scale + 1e-9))
    return small, (round(small[0] * scale), round(small[1] * scale))


def make_pair(original: Original, scale: float, lr_folder: Path | None) -> Pair:
    """The original cropped to a multiple of the scale, and its low-resolution version, read or made.

    Raises:
        ImageError: the original is smaller than the scale, or its low-resolution version missing or unfit.
    """
    height, width = original.pixels.shape[:2]
    small, covered = sizes_at((height, width), scale)
    if min(small) < 1:
        raise ImageError(f"{original.path.name} ({width}×{height}) has no pixel left at 1/{scale:g}")
    high = original.pixels[: covered[0], : covered[1]]
    if lr_folder is None:
        if scale <= LARGEST_MATLAB_SCALE:
            return Pair(imresize(high, size=small), "MATLAB bicubic", high)
        return Pair(pil_bicubic(high, small), "Pillow bicubic", high)
    path, low = read_original(find_low(lr_folder, original.path.stem, scale))
    if low.shape[:2] != small:
        raise ImageError(
            f"{path.name} is {low.shape[1]}×{low.shape[0]}, but 1/{scale:g} of {original.path.name} "
            f"({width}×{height}) is {small[1]}×{small[0]}"
        )
    return Pair(low, "given", high)


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
            names = [path.stem for path in base.iterdir() if is_photograph_name(path)]
            if any(n.endswith(f"x{scale:g}") for n in names) or (names and len(scales) == 1):
                found[scale] = base
        if found[scale] is None and scale <= LARGEST_MATLAB_SCALE:
            raise ClitZooError(
                f"No folder of low-resolution pictures at ×{scale:g}: "
                f"looked for {' and '.join(map(str, tried))}. "
                "Give a pattern such as Set5/LR_bicubic/X{scale}, or none to have them made."
            )
    return found
