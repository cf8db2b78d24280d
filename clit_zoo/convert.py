"""Checkpoints of the CLIT authors' code -> model folders.

Their training script pickles {"model": {"name", "args", "sd"}, "optimizer", "epoch", "state"}: "args" are the
arguments of their classes, "sd" the tensors under the names that this library uses too. A checkpoint may come
from a stranger, so nothing in it is run; and what is not understood is refused, since it could mean a model
that computes something else.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import ClitZooError, ConfigError, WeightsError, is_out_of_memory
from .model import SuperResolver
from .zoo import registry
from .zoo.config import ModelConfig
from .zoo.folder import model_card, write_model_folder
from .zoo.schema import show

# Weights in float32 at config.MAX_PARAMETERS, and Adam's two moments of them, make 2.4 GB.
MAX_CHECKPOINT_BYTES = 4 * 2**30

# Tensors of the authors' encoders that nothing needs: EDSR's mean shifts are never applied, SwinIR's buffers
# follow from its window.
_UNUSED = {
    "edsr": re.compile(r"encoder\.(sub|add)_mean\.(weight|bias)"),
    "rdn": re.compile(r"(?!)"),
    "swinir": re.compile(
        r"encoder\.layers\.\d+\.residual_group\.blocks\.\d+\.(attn\.relative_position_index|attn_mask)"
    ),
}


def convert_checkpoint(
    path: str | Path, out_folder: str | Path, *, name: str | None = None, overwrite: bool = False
) -> Path:
    """Writes the model of a checkpoint as a folder that `from_pretrained` loads, and returns the folder.

    Args:
        path: a .pth file written by the authors' training script (github.com/jaroslaw1007/CLIT).
        out_folder: where config.json, model.safetensors and README.md go; made if need be.
        name: what the model is called; by default as the registered model with the same settings, else as
            the folder.
        overwrite: allow a folder that already holds something; its other files stay.

    Raises:
        ConfigError: the checkpoint holds a model, an argument or a value that this library does not have, or
            is the state of a run of this library's own training.
        WeightsError: it is damaged, holds objects other than tensors and plain values, or its tensors are not
            exactly those of its arguments.
        ClitZooError: the folder is not empty, or cannot be written.
    """
    path, out_folder = Path(path), Path(out_folder)
    try:
        used = not overwrite and os.path.isdir(out_folder) and os.listdir(out_folder)
    except OSError as error:
        raise ClitZooError(
            f"{out_folder} cannot be read ({error.strerror or error}), so it may hold something; choose "
            "another folder or ask to overwrite."
        ) from error
    if used:
        raise ClitZooError(f"{out_folder} is not empty; choose another folder or ask to overwrite.")
    checkpoint = _read(path)
    form = checkpoint.get("format")
    if isinstance(form, str) and form.startswith("clit_zoo run/"):
        raise ConfigError(
            f"{path} cannot be converted: it is the state of a training run of this library. Its model is in "
            f"{path.parent / 'model'}; if that is not there yet, the command that trained it goes on and "
            "writes it at the end."
        )
    try:
        model = _fields(checkpoint, "the checkpoint", ["model"], ["optimizer", "epoch", "state"])["model"]
        model = _fields(model, "model", ["name", "args", "sd"])
        if not isinstance(model["name"], str) or model["name"] != "clit":
            raise ConfigError(
                f"it holds a {_show(model['name'])}; only 'clit' can be converted (the paper's LIT is "
                "'clit' with imnet_num 1; the name 'lit' stands for a variant with a frequency branch)."
            )
        encoder, decoder = _settings(model["args"])
        config = ModelConfig(name or _name(encoder, decoder, out_folder), encoder, decoder)
        weights = _weights(model["sd"], config)
    except (ConfigError, WeightsError) as error:
        raise type(error)(f"{path} cannot be converted: {error}") from error
    card = model_card(
        config,
        repo_id=out_folder.resolve().name,
        summary=f"Converted from `{path.name}`, a checkpoint of the CLIT authors' code.",
        body=_provenance(path, checkpoint.get("epoch")),
    )
    return write_model_folder(out_folder, config, weights, card, overwrite=overwrite)


def _read(path: Path) -> dict[str, Any]:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror or error}).") from error
    if not path.is_file() or not size:
        raise WeightsError(
            f"{path} is {'empty' if path.is_file() else 'not a file'}; name a .pth checkpoint."
        )
    if size > MAX_CHECKPOINT_BYTES:
        raise WeightsError(f"{path} has {size:,} bytes; at most {MAX_CHECKPOINT_BYTES:,} are read.")
    try:
        # weights_only: an unpickler that makes tensors, containers and numbers, and calls nothing else.
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror or error}).") from error
    except Exception as error:  # a made-up pickle can fail in any way
        raise WeightsError(f"{path} {_reason(error)}.") from error
    if not isinstance(checkpoint, dict):
        raise WeightsError(
            f"{path} holds {_show(checkpoint)} instead of the dict that the authors' training script saves."
        )
    return checkpoint


def _reason(error: Exception) -> str:
    message = str(error).strip()
    if is_out_of_memory(error):
        return "does not fit into memory; convert it where there is more"
    if found := re.search(r"GLOBAL (\S{1,100})", message):
        return (
            "holds more than tensors and plain values, which could run code and is never loaded (it asks for "
            f"{found[1]})"
        )
    # torch goes on to advise loading it without this protection: a stranger's file must not get that far.
    if not message or "weights_only" in message or "Weights only" in message:
        return "is no PyTorch checkpoint, or a damaged one; copy or download it again"
    return f"is damaged or no PyTorch checkpoint ({message.splitlines()[0][:200]})"


# ---------------------------------------------------------------------------------------------------------
# Arguments of the authors' classes -> settings. Each table gives an argument's default there.

_CLIT = {
    "encoder_spec": None,
    "imnet_spec": None,
    "pb_spec": None,
    "base_dim": 192,
    "head": 8,
    "r": 3,
    "imnet_num": 1,
    "conv_num": 1,
    "is_cell": True,
    "local_attn": True,
    "verbose": False,
}
_EDSR = {"res_scale": 1, "scale": 2, "no_upsampling": False, "rgb_range": 1}
_ENCODERS: dict[str, dict[str, Any]] = {
    "edsr-baseline": {"n_resblocks": 16, "n_feats": 64, **_EDSR},
    "edsr": {"n_resblocks": 32, "n_feats": 256, **_EDSR, "res_scale": 0.1},
    "rdn": {"G0": 64, "RDNkSize": 3, "RDNconfig": "B", "scale": 2, "no_upsampling": False},
    "swinir": {"no_upsampling": True},
}
_RDN_CONFIGS = {
    "A": {"blocks": 20, "layers": 6, "growth": 32},
    "B": {"blocks": 16, "layers": 8, "growth": 64},
}
_MLP = {"in_dim": None, "out_dim": None, "hidden_list": None, "act": "relu"}
_POSITION = {
    "posenc_type": None,
    "complex_transform": False,
    "posenc_scale": 6,
    "gauss_scale": 1,
    "in_dims": 2,
    "enc_dims": 256,
    "hidden_dims": 32,
    "head": 1,
    "gamma": 1,
}


def _settings(args: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of the encoder and of the decoder."""
    args = _arguments(args, "args", _CLIT)
    _require(args, "args", is_cell=True, local_attn=True)
    if args["imnet_num"] != args["conv_num"]:
        raise ConfigError(
            f"args.imnet_num is {_show(args['imnet_num'])} and args.conv_num {_show(args['conv_num'])}; "
            "every stage has one MLP and one set of convolutions."
        )
    _, mlp = _spec(args["imnet_spec"], "args.imnet_spec", {"mlp": _MLP})
    _require(mlp, "args.imnet_spec.args", out_dim=3, act="gelu")
    _, position = _spec(args["pb_spec"], "args.pb_spec", {"posenc": _POSITION})
    # hidden_dims, gamma and gauss_scale belong to other encodings; head is replaced by the model's.
    _require(
        position,
        "args.pb_spec.args",
        posenc_type="sinusoid",
        complex_transform=False,
        posenc_scale=10,
        in_dims=2,
        enc_dims=64,
    )
    decoder = {
        "name": "clit",
        "dim": args["base_dim"],
        "heads": args["head"],
        "radius": args["r"],
        "stages": args["imnet_num"],
        "hidden_dims": mlp["hidden_list"],
    }
    return _encoder(args["encoder_spec"]), decoder


def _encoder(spec: Any) -> dict[str, Any]:
    where = "args.encoder_spec"
    name, args = _spec(spec, where, _ENCODERS)
    if name == "swinir":
        return {"name": "swinir"}
    # `scale` and `rgb_range` only matter to an upsampler and to the mean shift, which is never applied.
    _require(args, f"{where}.args", no_upsampling=True)
    if name == "rdn":
        _require(args, f"{where}.args", RDNkSize=3)
        if args["RDNconfig"] not in list(_RDN_CONFIGS):
            raise ConfigError(f"{where}.args.RDNconfig is {_show(args['RDNconfig'])}; it must be 'A' or 'B'.")
        return {"name": "rdn", "channels": args["G0"], **_RDN_CONFIGS[args["RDNconfig"]]}
    _require(args, f"{where}.args", res_scale=1)
    return {"name": "edsr", "channels": args["n_feats"], "blocks": args["n_resblocks"]}


def _spec(spec: Any, where: str, known: Mapping[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Name and complete arguments of a {"name": …, "args": {…}}."""
    spec = _fields(spec, where, ["name", "args"])
    if not isinstance(spec["name"], str) or spec["name"] not in known:
        raise ConfigError(f"{where}.name is {_show(spec['name'])}; known: {', '.join(known)}.")
    return spec["name"], _arguments(spec["args"], f"{where}.args", known[spec["name"]])


def _arguments(given: Any, where: str, defaults: dict[str, Any]) -> dict[str, Any]:
    given = _fields(given, where, [], list(defaults))
    for key, value in given.items():
        plain = value is None or isinstance(value, bool | int | float | str | dict)
        if not plain and not (
            isinstance(value, list | tuple) and all(isinstance(item, int) for item in value)
        ):
            raise ConfigError(f"{where}.{key} is {_show(value)}; it must be a plain value.")
    return {**defaults, **given}


def _require(args: dict[str, Any], where: str, **wanted: Any) -> None:
    for key, value in wanted.items():
        if args[key] != value:
            raise ConfigError(f"{where}.{key} is {_show(args[key])}; this library only has {_show(value)}.")


def _fields(given: Any, where: str, needed: list[str], allowed: list[str] | None = None) -> dict[str, Any]:
    """`given`, if it is a dict with all the `needed` keys and otherwise only `allowed` ones."""
    if not isinstance(given, dict):
        raise ConfigError(f"{where} must be a dict, not {_show(given)}.")
    known = needed + (allowed or [])
    for key in given:
        if key not in known:
            raise ConfigError(f"{where} holds {_show(key)}, which is unknown; known: {', '.join(known)}.")
    for key in needed:
        if key not in given:
            raise ConfigError(f"{where} holds no {key!r}.")
    return given


def _show(value: Any) -> str:
    return f"a tensor of shape {_shape(value)}" if isinstance(value, Tensor) else show(value)


# ---------------------------------------------------------------------------------------------------------
# Tensors.


def _weights(given: Any, config: ModelConfig) -> dict[str, Tensor]:
    """The tensors under this library's names, exactly those that a model of `config` has."""
    if not isinstance(given, Mapping):
        raise WeightsError(f"model.sd must be a dict of tensors, not {_show(given)}.")
    with torch.device("meta"):
        expected = {_their_name(key): (key, t.shape) for key, t in SuperResolver(config).state_dict().items()}
    unused = _UNUSED[config.encoder["name"]]
    unknown, wrong, weights = [], [], {}
    for name, tensor in given.items():
        if name not in expected:
            if not (isinstance(name, str) and unused.fullmatch(name)):
                unknown.append(_show(name))
            continue
        key, shape = expected[name]
        if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or tensor.device.type != "cpu":
            wrong.append(f"{name}: no plain tensor")
        elif tensor.shape != shape:
            wrong.append(f"{name}: shape {_shape(tensor)}, expected {'×'.join(map(str, shape))}")
        elif tensor.dtype not in (torch.float32, torch.float16, torch.bfloat16):
            wrong.append(f"{name}: {tensor.dtype}")
        else:
            weights[key] = tensor
    missing = [name for name in expected if name not in given]
    complaints = [
        f"{len(names)} {what} ({'; '.join(names[:4])}{'; …' if len(names) > 4 else ''})"
        for what, names in (("missing", missing), ("unknown", unknown), ("misfits", wrong))
        if names
    ]
    if complaints:
        raise WeightsError(f"its tensors are not those of its arguments: {', '.join(complaints)}.")
    return weights


def _their_name(key: str) -> str:
    return key.removeprefix("decoder.")


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape[:8])) or "scalar"


# ---------------------------------------------------------------------------------------------------------
# What the folder says about itself.


def _name(encoder: dict[str, Any], decoder: dict[str, Any], folder: Path) -> str:
    known = registry.name_of(ModelConfig("unnamed", encoder, decoder))
    # a name starts with a letter or digit
    return known or re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("-._")[:96] or "converted"


def _provenance(path: Path, epoch: Any) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    trained = f", saved after epoch {epoch}" if type(epoch) is int and abs(epoch) < 10**9 else ""
    return (
        f"## Source\n\n`{path.name}`{trained}; SHA-256 `{digest}`. The values are unchanged. The licence of "
        "the weights is that of the checkpoint."
    )
