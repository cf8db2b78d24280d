"""Atomic writes: a whole file or none."""

import os
import re
import stat
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

STALE = 3600
"""Seconds without a change after which a part has no writer any more."""


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """An empty file beside ``path`` to write to, which takes its place when the block ends.

    The old file stays until the new one is complete and on the disk. After any exception it is as it was, and
    nothing is left beside it. The new file has the permissions of the old one, else those the umask gives,
    whatever the writer made them. Writers of one path do not see each other's parts; the last one stays.

    Args:
        path: in a folder that exists.

    Raises:
        OSError: there is no such folder, no permission, or the disk is full.
        ValueError: there can be no such path.
    """
    path = Path(path)
    part = _beside(path)
    try:
        handle = os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        try:
            mode = _mode(os.fstat(handle))
        finally:
            os.close(handle)
        with suppress(FileNotFoundError):
            old = os.lstat(path)
            if stat.S_ISREG(old.st_mode):
                mode = _mode(old)
        _change_mode(part, mode | 0o600)  # before the content, which others may not be meant to read
        yield part
        _sync(part)
        _change_mode(part, mode)
        os.replace(part, path)
    except OSError as error:
        if error.errno and error.filename in (None, str(part)):  # a full disk does not name the file
            error.filename = str(path)
        raise
    finally:
        with suppress(OSError, ValueError):  # the reason is on its way already
            part.unlink(missing_ok=True)


def remove_stale(folder: Path, name: str = "") -> None:
    """Remove what killed processes have left in a folder.

    Args:
        folder: may be missing.
        name: of parts of files whose names begin so.
    """
    with suppress(OSError):
        for part in folder.iterdir():
            found = re.fullmatch(r"\.(.*)\.[0-9a-f]+\.part", part.name, re.DOTALL)
            with suppress(OSError):
                if found and found[1].startswith(name) and time.time() - part.lstat().st_mtime > STALE:
                    part.unlink()


def _beside(path: Path) -> Path:
    """Where ``path`` is written until it is whole.

    Hidden, so that nobody takes it for a picture or a model; in the same folder, so that replacing is atomic;
    named after it, so that what a power cut leaves behind can be recognised; and no two writers' alike.
    """
    name = path.name.encode(errors="ignore")[:200].decode(errors="ignore")  # names end at 255 bytes
    return path.parent / f".{name}.{uuid.uuid4().hex[:12]}.part"


def _mode(status: os.stat_result) -> int:
    return status.st_mode & 0o777


def _change_mode(path: Path, mode: int) -> None:
    # where all files have one mode (FAT, some network drives), changing it is an error
    if _mode(os.stat(path)) != mode:
        os.chmod(path, mode)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
