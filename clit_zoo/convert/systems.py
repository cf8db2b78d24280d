"""One row for each system: arguments of its authors' class -> settings of our decoder."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..zoo.schema import require
from .checkpoint import only, spec
from .rim import msit_weights


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
    only(args, "args", conv_num=args["imnet_num"])  # every stage has one MLP and one set of convolutions
    return {"name": "clit", **_stage(args), "stages": args["imnet_num"]}


def _stage(args: dict[str, Any]) -> dict[str, Any]:
    """The settings of CLIT's stage."""
    only(args, "args", is_cell=True, local_attn=True)
    _, mlp = spec(args["imnet_spec"], "args.imnet_spec", {"mlp": {**_MLP, "act": "relu"}})
    only(mlp, "args.imnet_spec.args", out_dim=3, act="gelu")
    _sinusoid(args, "pb_spec", complex_transform=False, enc_dims=64)
    names = {"dim": args["base_dim"], "heads": args["head"], "radius": args["r"]}
    return {**names, "hidden_dims": mlp["hidden_list"]}


def _sinusoid(args: dict[str, Any], name: str, **wanted: Any) -> dict[str, Any]:
    """The arguments of a position encoding as CLIT's, whose other arguments are those wanted."""
    where = f"args.{name}"
    _, position = spec(args[name], where, {"posenc": _POSITION})
    # hidden_dims, gamma and gauss_scale belong to other encodings; head is replaced by the model's.
    only(position, f"{where}.args", posenc_type="sinusoid", posenc_scale=10, in_dims=2, **wanted)
    return position


def _lit(args: dict[str, Any]) -> dict[str, Any]:
    _, mlp = spec(args["imnet_spec"], "args.imnet_spec", {"mlp": {**_MLP, "act": "relu"}})
    only(mlp, "args.imnet_spec.args", out_dim=3, act="gelu")
    require(args["local_attn"] in (True, False), "args.local_attn", args["local_attn"], "true or false")
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
    only(mlp, "args.imnet_spec.args", out_dim=3)
    switches = {key: args[key] for key in ("feat_unfold", "local_ensemble", "cell_decode")}
    return {"name": "liif", "hidden_dims": mlp["hidden_list"], **switches}


def _itsrn(args: dict[str, Any]) -> dict[str, Any]:
    whole = {"embedding_coord": None, "embedding_scale": None, "local_ensemble": True}
    only(args, "args", **whole, feat_unfold=True, scale_token=True)
    _, mlp = spec(args["imnet_spec"], "args.imnet_spec", {"mlp": {**_MLP, "act": "sine"}})
    only(mlp, "args.imnet_spec.args", act="gelu")
    return {"name": "itsrn", "hidden_dims": mlp["hidden_list"]}


def _metasr(args: dict[str, Any]) -> dict[str, Any]:
    return {"name": "metasr", "hidden_dims": [256]}


def _msit(args: dict[str, Any]) -> dict[str, Any]:
    only(args, "args", imnet_num=1, conv_num=1)
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
    only(mlp, "args.imnet_spec.args", out_dim=3)
    return {"name": "lte", "dim": args["hidden_dim"], "hidden_dims": mlp["hidden_list"]}


def _lte_plus(args: dict[str, Any]) -> dict[str, Any]:
    only(args, "args", out_dim=3)
    layers, dim = args["num_layer"], args["hidden_dim"]
    require(type(layers) is int and layers in range(1, 9), "args.num_layer", layers, "1 to 8")
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

META_RDN = System(
    "https://github.com/XuecaiHu/Meta-SR-Pytorch", "", {}, dict, changed="Names are others, values unchanged."
)

CIAOSR = System("https://github.com/caojiezhang/CiaoSR", "CC-BY-NC-4.0", {}, dict)


def system_of(name: Any) -> System:
    """The row of what a checkpoint calls its model.

    Raises:
        ConfigError: there is none.
    """
    known = f"one of {', '.join(SYSTEMS)}, or a file of CiaoSR's or Meta-SR's own code"
    require(isinstance(name, str) and name in SYSTEMS, "model.name", name, known)
    return SYSTEMS[name]
