"""A configuration's tensors without memory for them: names, shapes, number; and what a file has instead."""

from collections.abc import Mapping
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


FLOATS = ("float32", "float16", "bfloat16")
"""Types that weights are stored in. safetensors writes F32, F16, BF16."""


def misfit(found: Mapping[str, tuple[str, tuple[int, ...]]], expected: Mapping[str, tuple[int, ...]]) -> str:
    """What is wrong with the tensors of a file, in words; "" where they are those expected.

    Args:
        found: name -> type and shape, as in the file.
        expected: name -> shape.
    """
    known = {name: found[name] for name in expected if name in found}
    shapes_off = [
        f"{name}: shape {_text(shape)}, expected {_text(expected[name])}"
        for name, (_, shape) in known.items()
        if tuple(shape) != expected[name]
    ]
    types_off = [f"{name}: {kind}" for name, (kind, _) in known.items() if kind not in FLOATS]
    complaints = [
        listed("missing", [name for name in expected if name not in found]),
        listed("unknown", [name for name in found if name not in expected]),
        listed("misshaped", shapes_off),
        listed(f"of a type other than {', '.join(FLOATS)}", types_off),
    ]
    return " ".join(filter(None, complaints))


def listed(what: str, names: list[str]) -> str:
    """A sentence about tensors; the first few are named."""
    if not names:
        return ""
    # A hostile file may hold long names, and many.
    shown = "; ".join(name[:120] for name in names[:4])
    more = f"; and {len(names) - 4} more" if len(names) > 4 else ""
    return f"{len(names)} tensor{'s' * (len(names) > 1)} {what} ({shown}{more})."


def _text(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape[:8])) or "scalar"
