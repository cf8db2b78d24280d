"""Decoders: from an encoder's map to colours at coordinates. One paper, one file."""

from typing import Any

from .clit import CLIT

DECODERS: dict[str, type[CLIT]] = {"clit": CLIT}


def build_decoder(name: str, in_channels: int, **settings: Any) -> CLIT:
    """The decoder called ``name``, randomly initialised, for maps of ``in_channels`` channels.

    ``settings`` are arguments of its class; ``ModelConfig`` checks the name and them.
    """
    return DECODERS[name](in_channels, **settings)
