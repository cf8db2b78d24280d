"""The training pictures: decoded once, in memory or in one memory-mapped file that all processes share."""

import hashlib
import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from .. import imaging
from ..errors import ImageError
from ..imaging.formats import PHOTOGRAPH_SUFFIXES, is_photograph_name, why_left_out
from .checkpoint import DAMAGE, save_checkpoint

CACHE_FILE = "pictures.pt"


class Skipped(NamedTuple):
    """A picture left out, and why."""

    file: str
    reason: str


class Photographs:
    """All pictures of a folder (searched recursively, hidden folders left out) as uint8 (3, h, w) tensors.

    Args:
        folder: where they lie.
        smallest: pictures with fewer pixels on a side are left out.
        cache: a folder to keep the decoded pictures in, mapped into memory instead of held there; used again
            by later runs as long as the pictures do not change.
        threads: how many pictures to decode at once.
        progress: draw a bar.

    Attributes:
        images: the tensors, in the order of the files' names.
        skipped: pictures that could not be read, are too small or of a format not trained on.
        reach: the largest s such that pictures with both sides >= s hold half of all pixels.

    Raises:
        ImageError: the folder holds no usable picture.
        OSError: it cannot be read, or the cache not be written.
    """

    def __init__(
        self,
        folder: str | Path,
        smallest: int = 96,
        *,
        cache: str | Path | None = None,
        threads: int = 4,
        progress: bool = True,
    ):
        root = Path(folder)
        os.listdir(root)  # of a folder that is none the system says so, and rglob nothing
        entries = sorted(f for f in root.rglob("*") if not _hidden(f.relative_to(root)))
        files = [f for f in entries if is_photograph_name(f)]
        other = [
            Skipped(str(f.relative_to(root)), why)
            for f in entries
            if (why := why_left_out(f)) is not None and not f.is_dir()
        ]
        self.images: list[Tensor] = []
        self.skipped: list[Skipped] = []
        key = _key(root, files, smallest) if cache is not None else ""
        if cache is None or not self._open(Path(cache), key):
            self._decode(root, files, smallest, threads, progress)
            if cache is not None:
                _store(Path(cache), key, self.images, self.skipped)
                self._open(Path(cache), key)
        if not self.images:
            formats = f", {len(other)} of other formats such as {other[0].file}" if other else ""
            raise ImageError(
                f"{root} holds no usable picture ({len(self.skipped)} unreadable or smaller than {smallest} "
                f"pixels{formats}): give a folder with photographs ({' '.join(PHOTOGRAPH_SUFFIXES)})."
            )
        self.skipped += other
        self.sides = np.array([min(image.shape[1:]) for image in self.images])
        # a large picture holds more patches, so it is drawn more often
        self.areas = np.array([image[0].numel() for image in self.images], dtype=np.float64)
        order = np.argsort(-self.sides)
        half = np.searchsorted(self.areas[order].cumsum(), self.areas.sum() / 2)
        self.reach = int(self.sides[order][half])

    @property
    def in_words(self) -> str:
        """How much there is."""
        number = len(self.images)
        return f"{number} picture{'s' * (number != 1)} ({self.areas.sum() / 1e6:.3g} megapixels)"

    def draw(self, rng: np.random.Generator, side: int) -> Tensor:
        """A random picture that holds a crop of ``side`` pixels (at most ``reach``)."""
        shares = np.where(self.sides >= side, self.areas, 0.0).cumsum()
        return self.images[int(np.searchsorted(shares, rng.random() * shares[-1], side="right"))]

    def _decode(self, root: Path, files: list[Path], smallest: int, threads: int, progress: bool) -> None:
        with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
            decoded: Iterable[Tensor | str] = pool.map(lambda file: _read(file, smallest), files)
            if progress:
                decoded = tqdm(decoded, total=len(files), desc="decoding", unit="image", leave=False)
            for file, found in zip(files, decoded, strict=True):
                if isinstance(found, str):
                    self.skipped.append(Skipped(str(file.relative_to(root)), found))
                else:
                    self.images.append(found)

    def _open(self, cache: Path, key: str) -> bool:
        """Map a cache of exactly these pictures; False where there is none."""
        try:
            saved = torch.load(cache / CACHE_FILE, map_location="cpu", mmap=True, weights_only=True)
            if saved["key"] != key:
                return False
            self.images, skipped = saved["images"], saved["skipped"]
        except DAMAGE:
            return False
        self.skipped = [Skipped(*entry) for entry in skipped]
        return True


def _hidden(file: Path) -> bool:
    """Whether it or a folder on the way to it is hidden: .thumbs/ holds the pictures once more, and small."""
    return any(part.startswith(".") for part in file.parts)


def _read(file: Path, smallest: int) -> Tensor | str:
    """The picture, or why it is left out."""
    try:
        header = imaging.probe(file)
        if min(header.height, header.width) < smallest:
            return f"{header.width}×{header.height}, smaller than {smallest} pixels"
        return (imaging.read(file).color[0] * 255).round_().to(torch.uint8)
    except ImageError as error:
        return str(error).replace(str(file), file.name)


def _key(root: Path, files: list[Path], smallest: int) -> str:
    """Changes whenever the decoded pictures would."""
    entries = []
    for file in files:
        # a link to nothing, say, is left out, with its reason, when it is to be decoded
        info = (file if os.path.exists(file) else root).stat()
        entries.append((str(file.relative_to(root)), info.st_size, info.st_mtime_ns))
    return hashlib.sha256(json.dumps([smallest, entries]).encode()).hexdigest()


def _store(cache: Path, key: str, images: list[Tensor], skipped: list[Skipped]) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    save_checkpoint(
        cache / CACHE_FILE,
        {"key": key, "images": images, "skipped": [tuple(entry) for entry in skipped]},
    )
