"""Decoders: from an encoder's map to colours at coordinates. One paper, one file.

``base.Decoder`` says what one is. A new one is its class, a row in ``DECODERS`` here, and a row in
``zoo/schema.py``, which bounds what a config.json may ask for.

``positions``, ``corners``, ``mlp`` and ``sampling`` are what several papers share; ``bands``, ``banded``,
``blocks`` and ``compiled`` serve CLIT's stages and their kernels.
"""

from typing import Any

from .base import Decoder
from .ciaosr import CiaoSR
from .clit import CLIT
from .ipe import IPE
from .itsrn import ITSRN
from .liif import LIIF
from .lit import LIT
from .lte import LTE
from .metasr import MetaSR
from .msit import MSIT
from .ultrasr import UltraSR

DECODERS: dict[str, Any] = {
    "clit": CLIT,
    "lit": LIT,
    "liif": LIIF,
    "ciaosr": CiaoSR,
    "metasr": MetaSR,
    "itsrn": ITSRN,
    "msit": MSIT,
    "lte": LTE,
    "ultrasr": UltraSR,
    "ipe": IPE,
}


def build_decoder(name: str, in_channels: int, **settings: Any) -> Decoder:
    """The decoder called ``name``, randomly initialised, for maps of ``in_channels`` channels."""
    decoder: Decoder = DECODERS[name](in_channels, **settings)
    return decoder
