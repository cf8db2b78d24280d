"""Errors a user can cause and mend. Each message names the thing, the reason and the remedy."""


class ClitZooError(Exception):
    """Base of every error this library raises on purpose; the command line prints it without a traceback."""


class ConfigError(ClitZooError, ValueError):
    """A model configuration holds an unknown key or a value outside its bounds."""


class ModelNotFoundError(ClitZooError, LookupError):
    """No registered model, folder or Hub repository goes by this name."""


class WeightsNotFoundError(ClitZooError, FileNotFoundError):
    """The model is known, but no weights for it have been published or can be reached."""


class WeightsError(ClitZooError, ValueError):
    """A weights file is damaged, or its tensors are not those the configuration asks for."""


class HubError(ClitZooError, OSError):
    """The Hugging Face Hub could not be reached, refused, or sent something else than was pinned."""


class ImageError(ClitZooError, ValueError):
    """A picture cannot be read, written or enlarged as asked."""


class ScaleError(ClitZooError, ValueError):
    """The scale or output size asked for is not one a model can produce."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: torch says so with an error of its own on a GPU, a RuntimeError on the CPU."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text
