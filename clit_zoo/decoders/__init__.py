"""Decoders: from an encoder's map to colours at coordinates. One paper, one file."""

from torch import nn

from ..errors import ConfigError
from .clit import CLIT

DECODERS: dict[str, type[nn.Module]] = {"clit": CLIT}


def build_decoder(name: str, in_channels: int, **settings) -> nn.Module:
    """Build a decoder with random weights for maps of ``in_channels`` channels.

    Raises:
        ConfigError: no decoder has this name.
    """
    if name not in DECODERS:
        raise ConfigError(f"decoder {name!r} is unknown; take one of {', '.join(sorted(DECODERS))}")
    return DECODERS[name](in_channels, **settings)
