"""Encoders: networks that turn a picture into a feature map of its own size. One paper, one file.

``base.Encoder`` says what one is. A new one is its class, a row in ``ENCODERS`` here, and a row in
``zoo/schema.py``, which bounds what a config.json may ask for.
"""

from typing import Any

from .base import Encoder
from .edsr import EDSR
from .rdn import RDN
from .swinir import SwinIR

ENCODERS: dict[str, Any] = {"edsr": EDSR, "rdn": RDN, "swinir": SwinIR}


def build_encoder(name: str, **settings: Any) -> Encoder:
    """The encoder called ``name``, randomly initialised; ``settings`` left out keep the paper's values."""
    encoder: Encoder = ENCODERS[name](**settings)
    return encoder
