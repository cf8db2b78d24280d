"""Finished rows on the disk: a run that is killed goes on at the last band that stands there."""

import json
import math
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ImageError

HEAD_BYTES = 4096
"""What it is made of, as JSON, and in the last eight bytes the number of rows that are finished."""

_COUNT = struct.Struct("<Q")


class Spool:
    """A hidden file beside an output that takes its rows, (rows, W, c) of one type, from top to bottom.

    It is locked while it is open. Rows that stand in one of the same ``identity`` are kept; another one is
    begun anew.

    Args:
        target: the output.
        shape: (H, W, c) of all rows.
        dtype: of their samples.
        identity: says what the rows are made of.

    Attributes:
        path: its own.
        done: rows that are finished.

    Raises:
        ImageError: another run is at it.
        OSError: it cannot be made.
    """

    def __init__(self, target: Path, shape: tuple[int, int, int], dtype: np.dtype, identity: str):
        self.path, self.shape, self.dtype = spool_path(target), shape, dtype
        self.row_bytes = shape[1] * shape[2] * dtype.itemsize
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(self._file, target)
            head = json.dumps([identity, *shape, dtype.str]).encode()
            assert len(head) < HEAD_BYTES - _COUNT.size
            known = os.pread(self._file, HEAD_BYTES, 0)
            self.done = 0
            if len(known) == HEAD_BYTES and known.rstrip(b"\0").startswith(head + b"\0"):
                (self.done,) = _COUNT.unpack(known[-_COUNT.size :])
            else:
                os.ftruncate(self._file, 0)
                _write(self._file, head.ljust(HEAD_BYTES, b"\0"), 0)
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._file)

    @property
    def missing_bytes(self) -> int:
        """What it will still take of the disk."""
        return (self.shape[0] - self.done) * self.row_bytes

    def append(self, band: np.ndarray) -> None:
        """Write the next rows; they count once they are on the disk."""
        _write(self._file, np.ascontiguousarray(band).data.cast("B"), self._start(self.done))
        os.fsync(self._file)
        self.done += len(band)
        _write(self._file, _COUNT.pack(self.done), HEAD_BYTES - _COUNT.size)

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Rows that are finished."""
        shape = (stop - start, *self.shape[1:])
        samples = np.fromfile(self.path, self.dtype, math.prod(shape), offset=self._start(start))
        return samples.reshape(shape)

    def tiles(self, side: int) -> Iterator[np.ndarray]:
        """All finished rows in tiles, as tifffile takes them: those at the edges are smaller."""
        for top in range(0, self.shape[0], side):
            band = self.rows(top, min(top + side, self.shape[0]))
            for left in range(0, self.shape[1], side):
                yield band[:, left : left + side]

    def remove(self) -> None:
        """The output is there."""
        with suppress(OSError):
            self.path.unlink()

    def _start(self, row: int) -> int:
        return HEAD_BYTES + row * self.row_bytes


def spool_path(target: Path) -> Path:
    """Where the rows of an output are kept until it is whole."""
    return target.parent / f".{target.name}.rows"


def _write(file: int, data: Any, at: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(file, view, at)
        view, at = view[count:], at + count


def _lock(file: int, target: Path) -> None:
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if isinstance(error, BlockingIOError):  # else a file system without locks
            raise ImageError(f"another run is making {target}; wait for it, or give another -o.") from error
