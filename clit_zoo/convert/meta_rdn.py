"""The original Meta-SR's checkpoint: a bare state dict of RDN, its means and the layers that make weights."""

import re
from typing import Any

from torch import Tensor

from .encoders import RDN_CONFIGS

_NAMES = {
    r"(sub|add)_mean\.": r"normalisation.\1_mean.",
    r"P2W\.meta_block\.": "imnet.layers.",
    r"(SFENet|RDBs|GFF)": r"encoder.\1",
}


def model_of(content: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Settings of encoder and decoder, and the tensors, of Meta-SR's own file: that is the state dict."""
    first, config = content.get("SFENet1.weight"), "A" if "RDBs.19.LFF.weight" in content else "B"
    channels = first.shape[0] if isinstance(first, Tensor) and first.dim() == 4 else 64
    given = {}
    for name, tensor in content.items():
        named = str(name)
        for there, here in _NAMES.items():
            named = re.sub(f"^{there}", here, named)
        given[named] = tensor
    encoder = {"name": "rdn", "channels": channels, **RDN_CONFIGS[config]}
    return encoder, {"name": "metasr", "hidden_dims": [256], "original": True}, given
