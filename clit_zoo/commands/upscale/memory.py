"""How much memory an enlargement takes, before it is tried. Needs the configuration only, not torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...zoo.config import ModelConfig
from ...zoo.skeleton import parameters

# A process with the library loaded and warmed up, measured on Linux with a CPU build of torch (0.59–0.66 GB).
PROCESS_BYTES = 620_000_000

# What the decoder's bands take beside the maps: they are cut to a budget, whatever the picture's size.
DECODER_BYTES = 100_000_000

# Input and output pixels exist as float32 colour three times over (the picture, normalised, the result of the
# last sum), and the encoded picture comes on top.
PICTURE_BYTES = 3 * 12 + 4


def estimate_bytes(config: ModelConfig, h: int, w: int, size: tuple[int, int], width: int = 4) -> int:
    """Peak memory in bytes of enlarging one h×w picture to `size` (H, W) with `width` bytes per value.

    From 7 % below to 15 % above the peaks measured on a CPU: EDSR, RDN and SwinIR, inputs of 128² to 512².
    On a GPU it is the sum of both sides' memory.
    """
    maps = _live_channels(config.encoder) + config.decoder.get("dim", 0)
    return (
        PROCESS_BYTES
        + DECODER_BYTES
        + parameters(config) * width
        + h * w * (maps * width + PICTURE_BYTES)
        + size[0] * size[1] * PICTURE_BYTES
    )


def _live_channels(encoder: Mapping[str, Any]) -> int:
    """Channels of all full-size maps that exist at once at the encoder's fullest moment."""
    channels = int(encoder.get("channels", 64))
    if encoder["name"] == "rdn":  # every block's output is kept, and a dense block and its concatenation
        dense = channels + encoder["layers"] * encoder["growth"]
        return encoder["blocks"] * channels + 2 * dense
    if encoder["name"] == "swinir":  # q, k, v, attention and the MLP's hidden layer of one block, as measured
        return 13 * channels
    return 5 * channels
