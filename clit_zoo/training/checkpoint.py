"""A run's whole state in one file, which is there whole or not at all."""

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from ..errors import ClitZooError

FORMAT = "clit_zoo run/1"


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors, numbers, strings, lists and dicts of them).

    Until the new file is complete and on the disk the old one stays.

    Raises:
        ClitZooError: it cannot be written; the old file is untouched.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        with open(part, "wb") as file:
            torch.save({"format": FORMAT, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        part.unlink(missing_ok=True)
        raise ClitZooError(f"the checkpoint {path} cannot be written ({error})") from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what ``save_checkpoint`` wrote, onto the CPU; nothing but data is unpickled.

    Raises:
        ClitZooError: it is damaged, or no checkpoint of a run.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0][:100]
        raise ClitZooError(
            f"the checkpoint {path} is damaged ({reason}): move it away to start anew"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ClitZooError(f"{path} is no checkpoint of this version's training: give another folder")
    return state
