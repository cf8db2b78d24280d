"""Errors a user can cause and mend. Each message names the thing, the reason and the remedy."""

import os
from typing import Any


class ClitZooError(Exception):
    """Base of every error this library raises on purpose; the command line prints it without a traceback."""


class ConfigError(ClitZooError, ValueError):
    """A model configuration holds an unknown key or a value outside its bounds."""


class ModelNotFoundError(ClitZooError, LookupError):
    """No registered model, folder or Hub repository goes by this name."""


class WeightsNotFoundError(ClitZooError, FileNotFoundError):
    """The model is known, but no weights for it have been published or can be reached."""


class WeightsError(ClitZooError, ValueError):
    """A file of weights is damaged, or its tensors are not those that the configuration asks for."""


class HubError(ClitZooError, OSError):
    """The Hugging Face Hub could not be reached, refused, or sent something else than was pinned."""


class ImageError(ClitZooError, ValueError):
    """A picture cannot be read, written or enlarged as asked."""


class ScaleError(ClitZooError, ValueError):
    """The scale or output size asked for is not one a model can produce."""


def said_by_system(error: OSError, place: Any = None) -> str:
    """A sentence of what cannot be used, ``place`` where the error names none, and why."""
    place = error.filename or place
    reason = error.strerror or str(error) or type(error).__name__
    return reason if place is None else f"{os.fsdecode(place)} cannot be used ({reason})."


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out.

    Torch has an error of its own for it on a GPU; on the CPU it is a RuntimeError of the allocator, of mmap
    or of oneDNN, which says only that it could not create a primitive.
    """
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(words in text for words in _NO_MEMORY)


_NO_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "unable to mmap",
    "could not create a primitive",
)
