"""A run's whole state in one file, which is there whole or not at all."""

import contextlib
import os
import pickle
import time
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch

from ..errors import ClitZooError

FORMAT = "clit_zoo run/1"
STALE = 3600
"""Seconds after which a half-written file has no writer any more: writing takes far less."""

# what zipfile and torch raise over files cut short or overwritten
_DAMAGE = (
    OSError, RuntimeError, EOFError, ValueError, LookupError, AttributeError, TypeError,
    pickle.UnpicklingError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors, numbers, strings, lists and dicts of them).

    Until the new file is complete and on the disk the old one stays.

    Raises:
        ClitZooError: it cannot be written; the old file is untouched.
    """
    # of this process alone: two jobs that were given one folder must not write into each other's file
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        _remove_stale(path)
        with open(part, "wb") as file:
            torch.save({"format": FORMAT, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise ClitZooError(f"the checkpoint {path} cannot be written ({error})") from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what ``save_checkpoint`` wrote, onto the CPU; nothing but data is unpickled.

    Raises:
        ClitZooError: it is damaged, or no checkpoint of a run.
    """
    try:
        # torch writes checksums but does not read them; reading costs 20 ms for 61 MB, loading 40 (one core)
        with zipfile.ZipFile(path) as file:
            record = file.testzip()
        if record is not None:
            raise ValueError(f"the checksum of {record} is wrong")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except _DAMAGE as error:
        reason = (str(error) or type(error).__name__).splitlines()[0][:100]
        raise ClitZooError(
            f"the checkpoint {path} is damaged ({reason}): move it away to start anew"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ClitZooError(f"{path} is no checkpoint of this version's training: give another folder")
    return state


def _remove_stale(path: Path) -> None:
    """Remove what processes that were killed while writing have left."""
    for part in path.parent.glob(f".{path.name}.*part"):
        with contextlib.suppress(OSError):
            if time.time() - part.stat().st_mtime > STALE:
                part.unlink()
