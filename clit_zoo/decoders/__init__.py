"""Decoders: from an encoder's map to colours at coordinates. One paper, one file."""

from typing import Any

from ..errors import ConfigError
from .clit import CLIT

DECODERS: dict[str, type[CLIT]] = {"clit": CLIT}


def build_decoder(name: str, in_channels: int, **settings: Any) -> CLIT:
    """Build a decoder with random weights for maps of ``in_channels`` channels.

    Raises:
        ConfigError: no decoder has this name.
    """
    if name not in DECODERS:
        raise ConfigError(f"decoder {name!r} is unknown; take one of {', '.join(sorted(DECODERS))}")
    return DECODERS[name](in_channels, **settings)
