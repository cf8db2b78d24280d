"""Reading a model card, README.md: its text, and what its head tells programs. Nothing here imports torch."""

import logging
from pathlib import Path
from typing import Any

import huggingface_hub

log = logging.getLogger(__name__)

CARD_FILE = "README.md"

MAX_CARD_BYTES = 2**20


def read_card(folder: Path) -> str | None:
    """The text of the model card; None where there is none or it cannot be read: a card is an ornament."""
    path = folder / CARD_FILE
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            data = file.read(MAX_CARD_BYTES + 1)
    except OSError as error:
        log.warning("The model card %s cannot be read (%s).", path, error.strerror or error)
        return None
    if len(data) > MAX_CARD_BYTES:
        log.warning("The model card %s is not read: it has more than %d bytes.", path, MAX_CARD_BYTES)
        return None
    return data.decode("utf-8", errors="replace")


def front_matter(folder: Path) -> dict[str, Any]:
    """The YAML at the card's head; empty where there is none or it cannot be read."""
    try:
        return huggingface_hub.metadata_load(folder / CARD_FILE) or {}
    except Exception:  # of whatever YAML library the client uses
        return {}


def trained(folder: Path | None) -> str | None:
    """For how many steps and hours the model was trained, in the card's words; None where it does not say."""
    words = front_matter(folder).get("trained") if folder else None
    return words if isinstance(words, str) else None
