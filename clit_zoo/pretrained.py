"""From a name to a ready model."""

import os
from pathlib import Path
from typing import Any

import torch

from .errors import ClitZooError, ConfigError, is_out_of_memory
from .model import SuperResolver
from .zoo import hub, registry
from .zoo.skeleton import skeleton

DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


def create_model(name: str, /, *, backend: str = "auto", **overrides: Any) -> SuperResolver:
    """A registered model with random weights, for training.

    Args:
        name: a registered name, see ``list_models``.
        backend: who computes the decoder: "auto", "triton", "torch" or "reference".
        overrides: settings to change, such as ``decoder={"radius": 1}`` or ``name="mine"``.

    Raises:
        ModelNotFoundError: no model has this name; the message gives close ones.
        ConfigError: a setting is unknown or out of bounds, there is no such backend, or the model would have
            more than ``zoo.skeleton.MAX_PARAMETERS``.
    """
    config = registry.get(name).config
    if overrides:
        config = config.with_overrides(**overrides)
        skeleton(config)  # refuses a giant before it takes memory
    return SuperResolver(config, backend=backend)


def from_pretrained(
    name_or_path: str | os.PathLike[str],
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    backend: str = "auto",
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> SuperResolver:
    """A model with its weights, in eval mode.

    Args:
        name_or_path: a folder holding config.json and model.safetensors; a registered name (weights that came
            with the package or the checkout, else its Hub repository at a pinned revision and checksum), in
            any letter case; or any "org/repo".
        device: "auto" takes CUDA, else MPS, else the CPU.
        dtype: "auto" is bfloat16 on CUDA devices that compute in it, float32 elsewhere; or "float32",
            "float16", "bfloat16", or a torch dtype.
        backend: who computes the decoder: "auto", "triton", "torch" or "reference".
        revision: branch, tag or commit of a Hub repository.
        cache_dir: where downloads are kept; the Hub client's own cache where left out.
        token: for private repositories; that of ``hf auth login`` where left out.
        local_files_only: use no network.

    Raises:
        ModelNotFoundError: nothing goes by this name; the message gives close ones and the list.
        WeightsNotFoundError: the model is known, but its weights have not been published.
        WeightsError, ConfigError: its files are damaged or do not belong together.
        HubError: the Hub cannot be reached, refuses, or sends something else than was pinned.
        ClitZooError: there is not enough memory.
    """
    where = pick_device(device)
    kind = pick_dtype(dtype, where)
    try:
        found = hub.load(
            name_or_path,
            revision=revision,
            cache_dir=cache_dir,
            token=token,
            local_files_only=local_files_only,
        )
        model = SuperResolver(found.config, backend=backend)
        model.load_state_dict(found.state_dict, strict=True)
        model.card = found.card
        return model.to(where, kind).eval()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise ClitZooError(
            f"{name_or_path} does not fit into the memory of {where}: close other programs, take another "
            "device, or a smaller model (`clit-zoo list`)."
        ) from error


def pick_device(device: str | torch.device) -> torch.device:
    """The device asked for, or for "auto" the fastest there is.

    Raises:
        ConfigError: torch does not know the device, or this machine does not have it.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        where = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"device {device!r} is unknown: take auto, cpu, cuda, cuda:0 or mps") from error
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not present.get(where.type, False):
        why = "not available on this machine" if where.type in present else "none that this library knows"
        raise ConfigError(f"device {str(device)!r} is {why}: take auto or cpu")
    if where.type == "cuda" and where.index is not None and where.index >= torch.cuda.device_count():
        raise ConfigError(f"device {device!r} does not exist: this machine has {torch.cuda.device_count()}")
    return where


def pick_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    """The dtype asked for, or for "auto" the fastest that keeps the picture.

    Raises:
        ConfigError: it is none of float32, float16 and bfloat16.
    """
    if dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" and has_bfloat16() else torch.float32
    found = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if found not in DTYPES.values():
        raise ConfigError(f"dtype {dtype!r} is not one of auto, {', '.join(DTYPES)}")
    assert isinstance(found, torch.dtype)
    return found


def has_bfloat16() -> bool:
    """Whether the GPU computes in bfloat16 itself; emulating it, as older ones do, is slower than float32."""
    return torch.cuda.is_bf16_supported(including_emulation=False)
