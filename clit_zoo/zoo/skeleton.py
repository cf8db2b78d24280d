"""A configuration's tensors without memory for them: names, shapes and the number of parameters."""

from typing import cast

import torch
from torch import nn

from ..decoders import build_decoder
from ..encoders import build_encoder
from ..errors import ConfigError
from .config import ModelConfig

MAX_PARAMETERS = 200_000_000
"""0.8 GB in float32. The largest model of the papers, RDN-CLIT, has a fifth of it."""


def skeleton(config: ModelConfig) -> nn.ModuleDict:
    """The encoder and the decoder on the meta device; their parameters are named as a model's are.

    Raises:
        ConfigError: there are more than ``MAX_PARAMETERS``.
    """
    encoder, decoder = dict(config.encoder), dict(config.decoder)
    with torch.device("meta"):
        first = build_encoder(encoder.pop("name"), **encoder)
        second = build_decoder(decoder.pop("name"), first.out_channels, **decoder)
    modules = nn.ModuleDict({"encoder": cast(nn.Module, first), "decoder": cast(nn.Module, second)})
    count = sum(parameter.numel() for parameter in modules.parameters())
    if count > MAX_PARAMETERS:
        raise ConfigError(
            f"this configuration asks for {count:,} parameters; at most {MAX_PARAMETERS:,} are allowed. "
            "Lower the sizes in 'encoder' and 'decoder'."
        )
    return modules


def shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of each tensor in a model's state dict. Raises as ``skeleton``."""
    return {name: tuple(tensor.shape) for name, tensor in skeleton(config).state_dict().items()}


def parameters(config: ModelConfig) -> int:
    """How many parameters a model has. Raises as ``skeleton``."""
    return sum(parameter.numel() for parameter in skeleton(config).parameters())
