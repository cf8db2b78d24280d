"""Encoders: networks that turn an image into a feature map of its own size. One paper, one file.

To add one, write its class (see `edsr.py`: keyword settings, `out_channels`, a `forward` that keeps the size)
and give it a row in `ENCODERS` here and one in `settings.py`, which bounds what a config.json may ask for.
"""

from collections.abc import Callable
from typing import Any

from torch import nn

from .edsr import EDSR
from .rdn import RDN
from .swinir import SwinIR

ENCODERS: dict[str, Callable[..., nn.Module]] = {
    "edsr": EDSR,
    "rdn": RDN,
    "swinir": SwinIR,
}

__all__ = ["ENCODERS", "build_encoder"]


def build_encoder(name: str, **settings: Any) -> nn.Module:
    """The encoder called `name`, randomly initialised.

    It maps a (B, 3, h, w) image in [-1, 1] to (B, out_channels, h, w), for any h, w >= 1.

    Args:
        name: a key of `ENCODERS`.
        settings: arguments of that encoder; those left out keep the paper's value. `ModelConfig` checks both.
    """
    return ENCODERS[name](**settings)
