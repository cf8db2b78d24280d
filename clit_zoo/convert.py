"""Checkpoints of other people's code -> model folders.

The training scripts of CLIT, LIIF and their relatives pickle {"model": {"name", "args", "sd"}, "optimizer",
"epoch"}: "args" are the arguments of their classes, "sd" the tensors under the names that this library uses
too. ``SYSTEMS`` has a row for each of them; CiaoSR's are of another form (``zoo.mmedit``), and the first
Meta-SR's are bare tensors. A checkpoint may come from a stranger, so nothing in it is run, and what is not
understood is refused: it could mean a model that computes something else.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from .errors import ClitZooError, ConfigError, WeightsError
from .zoo import mmedit, registry
from .zoo.checkpoint import arguments, read, require, spec, tensors
from .zoo.config import ModelConfig, fields
from .zoo.folder import model_card, write_model_folder
from .zoo.rim import msit_weights
from .zoo.schema import show


def convert_checkpoint(
    path: str | Path, out_folder: str | Path, *, name: str | None = None, overwrite: bool = False
) -> Path:
    """Write the model of a checkpoint as a folder that ``from_pretrained`` loads.

    Args:
        path: a .pth file written by the training script of one of ``SYSTEMS``, of CiaoSR or of Meta-SR.
        out_folder: where config.json, model.safetensors and README.md go; made if need be.
        name: what the model is called; by default as the registered model with the same settings, else as
            the folder.
        overwrite: allow a folder that already holds something; its other files stay.

    Returns:
        The folder.

    Raises:
        ConfigError: the checkpoint holds a model, an argument or a value that this library does not have, or
            is the state of a run of this library's own training.
        WeightsError: it is damaged, holds objects other than tensors and plain values, or its tensors are not
            exactly those of its arguments.
        ClitZooError: the folder is not empty, or cannot be written.
    """
    path, out_folder = Path(path), Path(out_folder)
    if not overwrite and out_folder.is_dir() and any(out_folder.iterdir()):
        raise ClitZooError(f"{out_folder} is not empty; choose another folder or ask to overwrite.")
    content = read(path)
    form = content.get("format")
    if isinstance(form, str) and form.startswith("clit_zoo run/"):
        raise ConfigError(
            f"{path} cannot be converted: it is the state of a training run of this library. Its model is in "
            f"{path.parent / 'model'}; if that is not there yet, the command that trained it goes on and "
            "writes it at the end."
        )
    try:
        if "state_dict" in content:
            system, (encoder, decoder, given) = CIAOSR, mmedit.model_of(content)
        elif "P2W.meta_block.0.weight" in content:
            system, (encoder, decoder, given) = META_RDN, _meta_rdn(content)
        else:
            fields(content, "the checkpoint", ("model",), ("optimizer", "epoch", "state"))
            model = fields(content["model"], "model", ("name", "args", "sd"))
            system, given = _system(model["name"]), model["sd"]
            args = arguments(model["args"], "args", system.arguments)
            encoder, decoder = _encoder(args["encoder_spec"]), system.decoder(args)
        config = ModelConfig(name or _name(encoder, decoder, out_folder), encoder, decoder)
        weights = tensors(system.weights(given), config, _UNUSED[encoder["name"]])
        card = model_card(
            config,
            repo_id=out_folder.resolve().name,
            summary=f"Converted from `{path.name}`, a checkpoint of the code at <{system.origin}>.",
            body=_provenance(path, content.get("epoch"), system),
        )
        return write_model_folder(out_folder, config, weights, card, overwrite=overwrite)
    except (ConfigError, WeightsError) as error:
        raise type(error)(f"{path} cannot be converted: {error}") from error


# ---------------------------------------------------------------------------------------------------------
# One row for each system: arguments of its authors' class -> settings of our decoder.


def _unchanged(given: Any) -> Any:
    """The checkpoint's tensors."""
    return given


@dataclass(frozen=True)
class System:
    """A system whose checkpoints are understood.

    Attributes:
        origin: where its authors' code is.
        license: of that code.
        arguments: of their class, with their defaults there; "encoder_spec" is one of them.
        decoder: complete arguments -> settings of our decoder, its name included. Raises ConfigError for
            values that this library does not have.
        weights: the checkpoint's tensors -> those of our decoder, which ``changed`` then describes.
    """

    origin: str
    license: str
    arguments: dict[str, Any]
    decoder: Callable[[dict[str, Any]], dict[str, Any]]
    weights: Callable[[Any], Any] = _unchanged
    changed: str = "The values are unchanged."


def _clit(args: dict[str, Any]) -> dict[str, Any]:
    if args["imnet_num"] != args["conv_num"]:
        raise ConfigError(
            f"args.imnet_num is {show(args['imnet_num'])} and args.conv_num {show(args['conv_num'])}; "
            "every stage has one MLP and one set of convolutions."
        )
    return {"name": "clit", **_stage(args), "stages": args["imnet_num"]}


def _stage(args: dict[str, Any]) -> dict[str, Any]:
    """The settings of CLIT's stage."""
    require(args, "args", is_cell=True, local_attn=True)
    _, mlp = spec(args["imnet_spec"], "args.imnet_spec", {"mlp": {**_MLP, "act": "relu"}})
    require(mlp, "args.imnet_spec.args", out_dim=3, act="gelu")
    _sinusoid(args, "pb_spec", complex_transform=False, enc_dims=64)
    names = {"dim": args["base_dim"], "heads": args["head"], "radius": args["r"]}
    return {**names, "hidden_dims": mlp["hidden_list"]}


def _sinusoid(args: dict[str, Any], name: str, **wanted: Any) -> dict[str, Any]:
    """The arguments of a position encoding as CLIT's, whose other arguments are those wanted."""
    where = f"args.{name}"
    _, position = spec(args[name], where, {"posenc": _POSITION})
    # hidden_dims, gamma and gauss_scale belong to other encodings; head is replaced by the model's.
    require(position, f"{where}.args", posenc_type="sinusoid", posenc_scale=10, in_dims=2, **wanted)
    return position


def _lit(args: dict[str, Any]) -> dict[str, Any]:
    _, mlp = spec(args["imnet_spec"], "args.imnet_spec", {"mlp": {**_MLP, "act": "relu"}})
    require(mlp, "args.imnet_spec.args", out_dim=3, act="gelu")
    if args["local_attn"] not in (True, False):
        raise ConfigError(f"args.local_attn must be true or false, not {show(args['local_attn'])}.")
    if args["local_attn"]:
        _sinusoid(args, "pb_spec", complex_transform=False, enc_dims=64)
    return {
        "name": "lit",
        "dim": args["base_dim"],
        "heads": args["head"],
        "radius": 3 if args["local_attn"] else 0,
        "freq_dims": _sinusoid(args, "pe_spec", complex_transform=True)["enc_dims"],
        "local_ensemble": args["local_ensemble"],
        "cell_decode": args["is_cell"],
        "hidden_dims": mlp["hidden_list"],
    }


def _liif(args: dict[str, Any]) -> dict[str, Any]:
    _, mlp = spec(args["imnet_spec"], "args.imnet_spec", {"mlp": _MLP})
    require(mlp, "args.imnet_spec.args", out_dim=3)
    switches = {key: args[key] for key in ("feat_unfold", "local_ensemble", "cell_decode")}
    return {"name": "liif", "hidden_dims": mlp["hidden_list"], **switches}


def _itsrn(args: dict[str, Any]) -> dict[str, Any]:
    whole = {"embedding_coord": None, "embedding_scale": None, "local_ensemble": True}
    require(args, "args", **whole, feat_unfold=True, scale_token=True)
    _, mlp = spec(args["imnet_spec"], "args.imnet_spec", {"mlp": {**_MLP, "act": "sine"}})
    require(mlp, "args.imnet_spec.args", act="gelu")
    return {"name": "itsrn", "hidden_dims": mlp["hidden_list"]}


def _metasr(args: dict[str, Any]) -> dict[str, Any]:
    return {"name": "metasr", "hidden_dims": [256]}


def _msit(args: dict[str, Any]) -> dict[str, Any]:
    require(args, "args", imnet_num=1, conv_num=1)
    own = {"kernels": args["MsC_heads"], "query_kernels": args["MsSA_q"], "fem": args["use_lem"]}
    return {"name": "msit", **_stage(args), **own}


def _without(*names: str) -> Callable[[Any], Any]:
    """Leaves out tensors that the authors' code stores and does not use."""

    def weights(given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        return {name: tensor for name, tensor in given.items() if name not in names}

    return weights


def _lte(args: dict[str, Any]) -> dict[str, Any]:
    _, mlp = spec(args["imnet_spec"], "args.imnet_spec", {"mlp": _MLP})
    require(mlp, "args.imnet_spec.args", out_dim=3)
    return {"name": "lte", "dim": args["hidden_dim"], "hidden_dims": mlp["hidden_list"]}


def _lte_plus(args: dict[str, Any]) -> dict[str, Any]:
    require(args, "args", out_dim=3)
    layers, dim = args["num_layer"], args["hidden_dim"]
    if type(layers) is not int or layers not in range(1, 9):
        raise ConfigError(f"args.num_layer is {show(layers)}; allowed is 1 to 8.")
    return {"name": "lte", "dim": dim, "hidden_dims": [dim] * layers, "plus": True}


_MLP = {"in_dim": None, "out_dim": None, "hidden_list": None}
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

SYSTEMS = {
    "clit": System(
        "https://github.com/jaroslaw1007/CLIT",
        "BSD-3-Clause",
        {
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
        },
        _clit,
    ),
    "lit": System(
        "https://github.com/jaroslaw1007/CLIT",
        "BSD-3-Clause",
        {
            "encoder_spec": None,
            "imnet_spec": None,
            "is_cell": True,
            "local_ensemble": False,
            "local_attn": True,
            "base_dim": 192,
            "head": 8,
            "pe_spec": None,
            "pb_spec": None,
        },
        _lit,
        _without("pe_encoder.proj.weight", "pe_encoder.proj.bias"),
    ),
    "liif": System(
        "https://github.com/yinboc/liif",
        "BSD-3-Clause",
        {
            "encoder_spec": None,
            "imnet_spec": None,
            "local_ensemble": True,
            "feat_unfold": True,
            "cell_decode": True,
        },
        _liif,
    ),
    "ITNSR": System(  # as their code spells it
        "https://github.com/codyshen0000/ITSRN",
        "",
        {
            "encoder_spec": None,
            "imnet_spec": None,
            "embedding_coord": None,
            "embedding_scale": None,
            "local_ensemble": True,
            "feat_unfold": True,
            "scale_token": True,
        },
        _itsrn,
    ),
    "metasr": System("https://github.com/yinboc/liif", "BSD-3-Clause", {"encoder_spec": None}, _metasr),
    "amsit": System(
        "https://github.com/Jinchen2028/MSIT",
        "MIT",
        {
            "encoder_spec": None,
            "imnet_spec": None,
            "pb_spec": None,
            "pe_spec": None,
            "base_dim": 192,
            "head": 8,
            "r": 3,
            "imnet_num": 1,
            "conv_num": 1,
            "is_cell": True,
            "local_attn": True,
            "verbose": False,
            "use_lem": True,
            "MsC_heads": 16,
            "MsSA_q": 4,
        },
        _msit,
        msit_weights,
        "Re-parameterised kernels (RIM) are folded into plain ones; the other values are unchanged.",
    ),
    "lte": System(
        "https://github.com/jaewon-lee-b/lte",
        "BSD-3-Clause",
        {"encoder_spec": None, "imnet_spec": None, "hidden_dim": 256},
        _lte,
    ),
    "lte-fast": System(
        "https://github.com/jaewon-lee-b/lte",
        "BSD-3-Clause",
        {"encoder_spec": None, "num_layer": 3, "hidden_dim": 256, "out_dim": 3},
        _lte_plus,
    ),
}

CIAOSR = System("https://github.com/caojiezhang/CiaoSR", "CC-BY-NC-4.0", {}, dict)


META_RDN = System(
    "https://github.com/XuecaiHu/Meta-SR-Pytorch", "", {}, dict, changed="Names are others, values unchanged."
)
_META_RDN_NAMES = {
    r"(sub|add)_mean\.": r"normalisation.\1_mean.",
    r"P2W\.meta_block\.": "imnet.layers.",
    r"(SFENet|RDBs|GFF)": r"encoder.\1",
}


def _meta_rdn(content: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Settings of encoder and decoder, and the tensors, of Meta-SR's own file: that is the state dict."""
    first, config = content.get("SFENet1.weight"), "A" if "RDBs.19.LFF.weight" in content else "B"
    channels = first.shape[0] if isinstance(first, Tensor) and first.dim() == 4 else 64
    given = {}
    for name, tensor in content.items():
        named = str(name)
        for there, here in _META_RDN_NAMES.items():
            named = re.sub(f"^{there}", here, named)
        given[named] = tensor
    if len(given) != len(content):
        raise WeightsError("two of its tensors have the same name here.")
    encoder = {"name": "rdn", "channels": channels, **_RDN_CONFIGS[config]}
    return encoder, {"name": "metasr", "hidden_dims": [256], "original": True}, given


def _system(name: Any) -> System:
    if not isinstance(name, str) or name not in SYSTEMS:
        raise ConfigError(
            f"it holds {show(name)}; what can be converted is {', '.join(SYSTEMS)}, ciaosr and Meta-SR's own "
            "files (the paper's LIT is 'clit' with imnet_num 1; 'lit' is a variant with a frequency branch)."
        )
    return SYSTEMS[name]


# ---------------------------------------------------------------------------------------------------------
# The encoders, which all of them share.

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

# Tensors that nothing needs: EDSR's mean shifts are never applied, SwinIR's buffers follow from its window.
_UNUSED = {
    "edsr": re.compile(r"encoder\.(sub|add)_mean\.(weight|bias)"),
    "rdn": re.compile(r"(?!)"),
    "swinir": re.compile(
        r"encoder\.layers\.\d+\.residual_group\.blocks\.\d+\.(attn\.relative_position_index|attn_mask)"
    ),
}


def _encoder(given: Any) -> dict[str, Any]:
    where = "args.encoder_spec"
    name, args = spec(given, where, _ENCODERS)
    if name == "swinir":
        return {"name": "swinir"}
    # `scale` and `rgb_range` only matter to an upsampler and to the mean shift, which is never applied.
    require(args, f"{where}.args", no_upsampling=True)
    if name == "rdn":
        require(args, f"{where}.args", RDNkSize=3)
        if args["RDNconfig"] not in list(_RDN_CONFIGS):
            raise ConfigError(f"{where}.args.RDNconfig is {show(args['RDNconfig'])}; it must be 'A' or 'B'.")
        return {"name": "rdn", "channels": args["G0"], **_RDN_CONFIGS[args["RDNconfig"]]}
    require(args, f"{where}.args", res_scale=1)
    return {"name": "edsr", "channels": args["n_feats"], "blocks": args["n_resblocks"]}


# ---------------------------------------------------------------------------------------------------------
# What the folder says about itself.


def _name(encoder: dict[str, Any], decoder: dict[str, Any], folder: Path) -> str:
    known = registry.name_of(ModelConfig("unnamed", encoder, decoder))
    # a name starts with a letter or digit
    return known or re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("-._")[:96] or "converted"


def _provenance(path: Path, epoch: Any, system: System) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    trained = f", saved after epoch {epoch}" if type(epoch) is int and abs(epoch) < 10**9 else ""
    terms = "has no licence: ask its authors before you pass on those published with it"
    if system.license:
        terms = f"is under the {system.license} licence, and so are those published with it"
    return (
        f"## Source\n\n`{path.name}`{trained}; SHA-256 `{digest}`. {system.changed}\n\nThe code "
        f"that writes such checkpoints {terms}; one that you trained yourself is yours."
    )
