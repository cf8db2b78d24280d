"""Calls of the ops whose sizes do not fit together, and what is said about each."""

from collections.abc import Callable
from typing import Any

import torch
from op_cases import cells, enlargement, previous_residual, random_map, random_points, stage_weights

from clit_kernels import (
    AttentionCall,
    DecodeCall,
    Grid,
    Points,
    Raster,
    StageCall,
    StageWeights,
    coordinate_decode,
    decode_stage,
    local_attention,
)
from clit_kernels.queries import Queries, tensors

OPS = ("local_attention", "coordinate_decode", "decode_stage")


def arguments(kind: str) -> dict[str, Any]:
    """Arguments that fit: two images of 5 x 7 feature pixels of 8 channels, two heads, 3 x 3 windows."""
    queries: Queries = {
        "points": random_points(2, 40, 5, 7),
        "grid": enlargement((5, 7), (8, 11)),
        "raster": Raster(torch.zeros(2, 1, 5, 7, 2)),
    }[kind]
    stage = stage_weights(8, 2, 1)
    maps = {name: random_map(8, (5, 7), seed) for seed, name in enumerate("qkv")}
    attention = torch.full((2, queries.count, 2, 9), 1 / 9)
    added = dict.fromkeys(("previous", "base"), previous_residual(queries))
    return {
        **maps, **stage._asdict(), **added, "queries": queries, "cell": cells(queries),
        "attention": attention, "gain": 0.75,
    }  # fmt: skip


def call(op: str, a: dict[str, Any], backend: str, **how: Any) -> torch.Tensor:
    """One of the ops with these arguments."""
    if op == "local_attention":
        return local_attention(_taken(AttentionCall, a), backend=backend, **how)
    if op == "coordinate_decode":
        return coordinate_decode(_taken(DecodeCall, a), backend=backend, **how)
    stage = _taken(StageCall, a | {"weights": _taken(StageWeights, a)})
    return decode_stage(stage, backend=backend, **how)


def _taken(kind: Any, a: dict[str, Any]) -> Any:
    """Such a call, made of the arguments that it takes."""
    return kind(**{name: a[name] for name in kind._fields if name in a})


def ones(*size: int) -> torch.Tensor:
    return torch.ones(size)


Change = Callable[[dict[str, Any]], dict[str, Any]]

ATTENTION, DECODER, STAGE = {"local_attention"}, {"coordinate_decode"}, {"decode_stage"}
BOTH, LATER, ALL = ATTENTION | STAGE, DECODER | STAGE, set(OPS)

MISFITS: dict[str, tuple[set[str], str, Change, str]] = {
    "heads": (
        BOTH, "points", lambda a: {"heads": 4, **{m: ones(2, 10, 5, 7) for m in "qkv"}},
        "q has 10 channels and must have a multiple of its 4 heads",
    ),
    "no heads": (BOTH, "points", lambda a: {"heads": 0}, "q has 8 channels and must"),
    "heads of the weights": (
        DECODER, "points", lambda a: {"attention": ones(2, 40, 3, 9)},
        "v has 8 channels and must have a multiple of its 3 heads",
    ),
    "channels of k": (
        BOTH, "points", lambda a: {"k": ones(2, 16, 5, 7)},
        "k has the shape (2, 16, 5, 7) and must have (2, 8, 5, 7), as q has",
    ),
    "size of k": (
        BOTH, "grid", lambda a: {"k": ones(2, 8, 3, 7)},
        "k has the shape (2, 8, 3, 7) and must have (2, 8, 5, 7), as q has",
    ),
    "size of v": (
        STAGE, "raster", lambda a: {"v": ones(2, 8, 5, 6)},
        "v has the shape (2, 8, 5, 6) and must have (2, 8, 5, 7), as q has",
    ),
    "axes of q": (
        BOTH, "grid", lambda a: {"q": ones(8, 5, 7)},
        "q has the shape (8, 5, 7) and must have four axes, (B, C, h, w)",
    ),
    "axes of v": (
        DECODER, "grid", lambda a: {"v": ones(7)},
        "v has the shape (7,) and must have four axes, (B, C, h, w)",
    ),
    "radius": (BOTH, "points", lambda a: {"radius": -1}, "the radius is -1 and must be 0 or more"),
    "one head in proj": (
        BOTH, "points", lambda a: {"proj_weight": ones(1, 64)},
        "proj_weight has the shape (1, 64) and must have (2, 64) for 2 heads",
    ),
    "four heads in proj": (
        BOTH, "points", lambda a: {"proj_weight": ones(4, 64), "proj_bias": ones(4)},
        "proj_weight has the shape (4, 64) and must have (2, 64) for 2 heads",
    ),
    "bias of proj": (
        BOTH, "points", lambda a: {"proj_bias": ones(1)},
        "proj_bias has the shape (1,) and must have (2,) for 2 heads",
    ),
    "batch of the points": (
        ALL, "points", lambda a: {"queries": Points(*(t[:1] for t in a["queries"]))},
        "the points' index has the shape (1, 40, 2) and must have (2, 40, 2) for these maps",
    ),
    "offsets of the points": (
        ALL, "points", lambda a: {"queries": a["queries"]._replace(offset=ones(2, 39, 2))},
        "the points' offset has the shape (2, 39, 2) and must have (2, 40, 2) for these maps",
    ),
    "axes of the points": (
        ALL, "points", lambda a: {"queries": Points(torch.zeros(2, dtype=torch.int64), ones(2))},
        "the points' index has the shape (2,) and must have (2, N, 2) for these maps",
    ),
    "map of the raster": (
        ALL, "raster", lambda a: {"queries": Raster(torch.zeros(2, 1, 5, 6, 2))},
        "the raster's offset has the shape (2, 1, 5, 6, 2) and must have (2, 1, 5, 7, 2) for these maps",
    ),
    "batch of the raster": (
        ALL, "raster", lambda a: {"queries": Raster(torch.zeros(1, 1, 5, 7, 2))},
        "the raster's offset has the shape (1, 1, 5, 7, 2) and must have (2, 1, 5, 7, 2) for these maps",
    ),
    "rows of the grid": (
        ALL, "grid", lambda a: {"queries": a["queries"]._replace(row_offset=ones(7))},
        "the grid's row_offset has the shape (7,) and must have (8,), as row has",
    ),
    "axes of the grid": (
        ALL, "grid", lambda a: {"queries": Grid(*(t[None] for t in a["queries"][:4]))},
        "the grid's row has the shape (1, 8) and must have (1,)",
    ),
    "number of weights": (
        DECODER, "points", lambda a: {"attention": ones(2, 39, 2, 9)},
        "attention has the shape (2, 39, 2, 9) and must have (2, 40, 2, 9) for these queries",
    ),
    "axes of the weights": (
        DECODER, "points", lambda a: {"attention": ones(2, 40, 18)},
        "attention has the shape (2, 40, 18) and must have four axes, (B, Q, H, K*K)",
    ),
    "taps": (
        DECODER, "points", lambda a: {"attention": ones(2, 40, 2, 8)},
        "attention has 8 taps and must have K*K of them with an odd K",
    ),
    "first layer": (
        LATER, "points", lambda a: {"mlp_weights": [ones(24, 200), *a["mlp_weights"][1:]]},
        "mlp_weights[0] has the shape (24, 200) and must have (24, 74): K*K*C + 2 inputs",
    ),
    "later layer": (
        LATER, "grid", lambda a: {"mlp_weights": [*a["mlp_weights"][:2], ones(3, 17)]},
        "mlp_weights[2] has the shape (3, 17) and must have (3, 16): "
        "as many inputs as the layer before has outputs",
    ),
    "bias of a layer": (
        LATER, "raster", lambda a: {"mlp_biases": [*a["mlp_biases"][:2], ones(1)]},
        "mlp_biases[2] has the shape (1,) and must have (3,), as mlp_weights[2] puts out",
    ),
    "biases": (
        LATER, "raster", lambda a: {"mlp_biases": a["mlp_biases"][:2]},
        "the MLP has 3 weights and 2 biases and must have one of each for each of its layers",
    ),
    "no layers": (
        LATER, "raster", lambda a: {"mlp_weights": [], "mlp_biases": []},
        "the MLP has 0 weights and 0 biases and must have one of each for each of its layers",
    ),
    "cells of three images": (
        LATER, "points", lambda a: {"cell": ones(3, 2)},
        "cell has the shape (3, 2) and must have (2, 2), one (y, x) for each image",
    ),
    "one cell": (
        LATER, "grid", lambda a: {"cell": ones(1, 2)},
        "cell has the shape (1, 2) and must have (2, 2), one (y, x) for each image",
    ),
    "previous": (
        LATER, "points", lambda a: {"previous": ones(2, 1, 3)},
        "previous has the shape (2, 1, 3) and must have (2, 40, 3), as the result has",
    ),
    "base": (
        LATER, "grid", lambda a: {"base": ones(1, 88, 3)},
        "base has the shape (1, 88, 3) and must have (2, 88, 3), as the result has",
    ),
}  # fmt: skip
"""Name -> ops, kind of queries, the arguments that are changed, the sentence."""

CASES = [(op, name) for name, (ops, *_) in MISFITS.items() for op in OPS if op in ops]


def message(op: str, name: str, backend: str, raises: Any, device: torch.device) -> str:
    """What the op says about a misfit."""
    _, kind, change, _ = MISFITS[name]
    fitting = arguments(kind)
    with raises(ValueError) as error:
        call(op, moved(fitting | change(fitting), device), backend)
    return str(error.value)


def moved(value: Any, device: torch.device) -> Any:
    """Arguments on ``device``."""
    if torch.is_tensor(value):
        return value.to(device)
    if isinstance(value, dict):
        return {name: moved(part, device) for name, part in value.items()}
    if isinstance(value, Grid | Points | Raster):
        return type(value)(*(t.to(device) for t in tensors(value)))
    return [moved(part, device) for part in value] if isinstance(value, list) else value
