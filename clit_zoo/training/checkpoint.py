"""The file that holds a run's state: there whole or not at all, with checksums that are read."""

import pickle
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch

from ..atomic import remove_stale, replacing
from ..errors import ClitZooError

FORMAT = "clit_zoo run/2"

DAMAGE = (
    OSError, RuntimeError, EOFError, ValueError, LookupError, AttributeError, TypeError,
    pickle.UnpicklingError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What zipfile and torch raise over files cut short or overwritten."""


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors, numbers, strings, lists and dicts of them).

    Until the new file is complete and on the disk the old one stays.

    Raises:
        OSError: it cannot be written; the old file is untouched.
    """
    remove_stale(path.parent, path.name)
    try:
        with replacing(path) as part, open(part, "wb") as file:
            torch.save({"format": FORMAT, **state}, file)
    except RuntimeError as error:  # by which torch reports a full disk
        raise OSError(None, str(error).splitlines()[0], str(path)) from error


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
            raise zipfile.BadZipFile(f"the checksum of {record} is wrong")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except DAMAGE as error:
        reason = (str(error) or type(error).__name__).splitlines()[0][:100]
        raise ClitZooError(
            f"the checkpoint {path} is damaged ({reason}): move it away to start anew"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ClitZooError(f"{path} was not written by this version of clit-zoo: give another folder")
    return state
