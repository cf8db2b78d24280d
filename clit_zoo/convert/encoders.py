"""The encoders, which the authors' codes share: their arguments -> settings of ours."""

import re
from typing import Any

from ..zoo.schema import require
from .checkpoint import only, spec

_EDSR = {"res_scale": 1, "scale": 2, "no_upsampling": False, "rgb_range": 1}
_ENCODERS: dict[str, dict[str, Any]] = {
    "edsr-baseline": {"n_resblocks": 16, "n_feats": 64, **_EDSR},
    "edsr": {"n_resblocks": 32, "n_feats": 256, **_EDSR, "res_scale": 0.1},
    "rdn": {"G0": 64, "RDNkSize": 3, "RDNconfig": "B", "scale": 2, "no_upsampling": False},
    "swinir": {"no_upsampling": True},
}
RDN_CONFIGS = {
    "A": {"blocks": 20, "layers": 6, "growth": 32},
    "B": {"blocks": 16, "layers": 8, "growth": 64},
}

# Tensors that nothing needs: EDSR's mean shifts are never applied, SwinIR's buffers follow from its window.
UNUSED = {
    "edsr": re.compile(r"encoder\.(sub|add)_mean\.(weight|bias)"),
    "rdn": re.compile(r"(?!)"),
    "swinir": re.compile(
        r"encoder\.layers\.\d+\.residual_group\.blocks\.\d+\.(attn\.relative_position_index|attn_mask)"
    ),
}


def encoder_settings(given: Any) -> dict[str, Any]:
    """Settings of our encoder from the "encoder_spec" of a checkpoint's arguments.

    Raises:
        ConfigError: it is unknown, or has settings that this library does not have.
    """
    where = "args.encoder_spec"
    name, args = spec(given, where, _ENCODERS)
    if name == "swinir":
        return {"name": "swinir"}
    # `scale` and `rgb_range` only matter to an upsampler and to the mean shift, which is never applied.
    only(args, f"{where}.args", no_upsampling=True)
    if name == "rdn":
        only(args, f"{where}.args", RDNkSize=3)
        config = args["RDNconfig"]
        require(config in list(RDN_CONFIGS), f"{where}.args.RDNconfig", config, "'A' or 'B'")
        return {"name": "rdn", "channels": args["G0"], **RDN_CONFIGS[config]}
    only(args, f"{where}.args", res_scale=1)
    return {"name": "edsr", "channels": args["n_feats"], "blocks": args["n_resblocks"]}
