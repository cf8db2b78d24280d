"""Checkpoints of CiaoSR's code, which is built on mmedit: a model's settings, told from its tensors.

Such a file is {"meta", "state_dict"[, "optimizer"]} and holds no arguments. The encoder's tensors lie beside
the decoder's, under mmedit's names.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..zoo.config import fields
from ..zoo.schema import require

PREFIXES = ("generator_ema.", "generator.", "")
"""Where the weights may lie, the averaged ones first."""

ESCAPE_NAN = "cs_attn.escape_NaN"
"""A constant of 1e-4 that is stored; here it is ``cross_scale.LEAST_NORM``."""

# An encoder is told by a tensor; its other names there and here.
_RDN = {
    r"sfe([12])": r"SFENet\1",
    r"rdbs\.(\d+)\.layers\.(\d+)\.conv": r"RDBs.\1.convs.\2.conv.0",
    r"rdbs\.(\d+)\.lff": r"RDBs.\1.LFF",
    r"gff\.([01])": r"GFF.\1",
}
_EDSR = {
    r"conv_first": "head.0",
    r"body\.(\d+)\.conv1": r"body.\1.body.0",
    r"body\.(\d+)\.conv2": r"body.\1.body.2",
    r"conv_after_body": "body.{blocks}",
}
_SWINIR = {r"(conv_first|conv_after_body|patch_embed\.norm|norm|layers\.\d+\..+)": r"\1"}


def model_of(content: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Settings of the encoder, those of the decoder, and the tensors as ``checkpoint.tensors`` takes them.

    Raises:
        ConfigError: something else is in the checkpoint, its constant is another, or tensors that tell the
            settings are missing, or are none.
    """
    fields(content, "the checkpoint", ("state_dict",), ("meta", "optimizer"))
    given = _without_prefix(content["state_dict"])
    constant = given.pop(ESCAPE_NAN, None)
    usual = constant is None or (
        isinstance(constant, Tensor)
        and constant.is_floating_point()
        and constant.numel() == 1
        and math.isclose(constant, 1e-4, rel_tol=1e-5)
    )
    require(usual, ESCAPE_NAN, constant, "1e-4 in this library")
    encoder, names = _encoder(given)
    decoder = {"name": "ciaosr", "hidden_dims": [], "tile": 192}
    depth = _count(given, r"imnet_k\.layers\.(\d+)\.weight")
    decoder["hidden_dims"] = [_shape(given, f"imnet_k.layers.{2 * i}.weight", 2)[0] for i in range(depth - 1)]
    return encoder, decoder, {_renamed(name, names): tensor for name, tensor in given.items()}


def _without_prefix(given: Any) -> dict[str, Any]:
    named = isinstance(given, Mapping) and all(isinstance(name, str) for name in given)
    require(named, "state_dict", given, "a dict of named tensors")
    prefix = next(p for p in PREFIXES if not p or any(name.startswith(p) for name in given))
    others = tuple(p for p in PREFIXES if p and p != prefix) if prefix else ()
    return {name.removeprefix(prefix): t for name, t in given.items() if not name.startswith(others)}


def _encoder(given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Settings, and its names there and here."""
    if "sfe1.weight" in given:
        settings: dict[str, Any] = {
            "channels": _shape(given, "sfe1.weight", 4)[0],
            "blocks": _count(given, r"rdbs\.(\d+)\.lff\.weight"),
            "layers": _count(given, r"rdbs\.0\.layers\.(\d+)\.conv\.weight"),
            "growth": _shape(given, "rdbs.0.layers.0.conv.weight", 4)[0],
        }
        return {"name": "rdn", **settings}, _RDN
    if "patch_embed.norm.weight" in given:
        groups = min(_count(given, r"layers\.(\d+)\.conv\.weight"), 13)  # more than are allowed
        channels, block = _shape(given, "conv_first.weight", 4)[0], "residual_group.blocks"
        tables = [
            _shape(given, f"layers.{i}.{block}.0.attn.relative_position_bias_table", 2) for i in range(groups)
        ]
        hidden = _shape(given, f"layers.0.{block}.0.mlp.fc1.weight", 2)[0]
        settings = {
            "channels": channels,
            "depths": [_count(given, rf"layers\.{i}\.{block}\.(\d+)\.norm1\.weight") for i in range(groups)],
            "heads": [heads for _, heads in tables],
            "window": (math.isqrt(tables[0][0]) + 1) // 2,
            "mlp_ratio": hidden / max(channels, 1),
            "out_channels": 0,
        }
        return {"name": "swinir", **settings}, _SWINIR
    channels = _shape(given, "conv_first.weight", 4)[0]
    blocks = _count(given, r"body\.(\d+)\.conv1\.weight")
    names = {there: here.format(blocks=blocks) for there, here in _EDSR.items()}
    return {"name": "edsr", "channels": channels, "blocks": blocks}, names


def _renamed(name: str, names: dict[str, str]) -> str:
    for there, here in names.items():
        if found := re.fullmatch(rf"(?:{there})(?P<kind>\.(?:weight|bias))?", name):
            return f"encoder.{found.expand(here)}{found['kind'] or ''}"
    return name


def _count(given: dict[str, Any], pattern: str) -> int:
    """How many tensors have such a name; ConfigError where none has."""
    found = sum(bool(re.fullmatch(pattern, name)) for name in given)
    require(found, f"the number of tensors named {pattern}", found, "1 or more, as in CiaoSR's files")
    return found


def _shape(given: dict[str, Any], name: str, dims: int) -> tuple[int, ...]:
    tensor = given.get(name)
    fits = isinstance(tensor, Tensor) and tensor.dim() == dims
    require(fits, name, tensor, f"a tensor of {dims} dimensions")
    return tuple(given[name].shape)
