"""Do the sizes of an op's arguments fit together? Asked before a backend is chosen, the same for every one.

PyTorch would report some misfits in its own words and broadcast others; a Triton kernel would read beside the
tensor. The checks are integer comparisons; torch.compile turns them into guards, most of which it has anyway.
"""

from collections.abc import Sequence

from torch import Tensor

from .calls import AttentionCall, DecodeCall, StageCall
from .position_bias import BANDS
from .queries import Grid, Points, Queries


def check_attention(call: AttentionCall, op: str = "local_attention") -> None:
    """Do the arguments of ``local_attention`` fit together?

    Raises:
        ValueError: they do not; the message says what does not, what it is and must be.
    """
    _check_maps(op, call.queries, q=call.q, k=call.k)
    _check_heads(op, "q", call.q.shape[1], call.heads)
    if call.radius < 0:
        raise ValueError(f"{op}: the radius is {call.radius} and must be 0 or more")
    _require(op, "proj_weight", call.proj_weight, (call.heads, 4 * BANDS), f" for {call.heads} heads")
    _require(op, "proj_bias", call.proj_bias, (call.heads,), f" for {call.heads} heads")


def check_decode(call: DecodeCall, op: str = "coordinate_decode") -> None:
    """Do the arguments of ``coordinate_decode`` fit together?

    Raises:
        ValueError: as ``check_attention`` does.
    """
    _check_maps(op, call.queries, v=call.v)
    batch, channels = call.v.shape[:2]
    if call.attention.dim() != 4:
        shape = _text(call.attention.shape)
        raise ValueError(f"{op}: attention has the shape {shape} and must have four axes, (B, Q, H, K*K)")
    heads, taps = call.attention.shape[2:]
    _require(op, "attention", call.attention, (batch, call.queries.count, heads, taps), " for these queries")
    side = int(taps**0.5)
    if side * side != taps or side % 2 == 0:
        raise ValueError(f"{op}: attention has {taps} taps and must have K*K of them with an odd K")
    _check_heads(op, "v", channels, heads)
    _check_layers(op, taps * channels + 2, call.mlp_weights, call.mlp_biases)
    _check_added(op, call)


def check_stage(call: StageCall) -> None:
    """Do the arguments of ``decode_stage`` fit together?

    Raises:
        ValueError: as ``check_attention`` does.
    """
    op, weights = "decode_stage", call.weights
    _check_maps(op, call.queries, q=call.q, k=call.k, v=call.v)
    check_attention(call.attention(), op)
    inputs = weights.area * call.v.shape[1] + 2
    _check_layers(op, inputs, weights.mlp_weights, weights.mlp_biases)
    _check_added(op, call)


def _check_maps(op: str, queries: Queries, **maps: Tensor) -> None:
    """Maps alike in (B, C, h, w), with ``queries`` of their batch and size."""
    first, like = next(iter(maps.items()))
    if like.dim() != 4:
        raise ValueError(
            f"{op}: {first} has the shape {_text(like.shape)} and must have four axes, (B, C, h, w)"
        )
    for name, other in maps.items():
        _require(op, name, other, like.shape, f", as {first} has")
    batch, _, h, w = like.shape
    if isinstance(queries, Grid):
        for name in ("row", "col"):
            index, offset = getattr(queries, name), getattr(queries, f"{name}_offset")
            _require(op, f"the grid's {name}", index, index.shape[:1] or ("N",))
            _require(op, f"the grid's {name}_offset", offset, index.shape, f", as {name} has")
    elif isinstance(queries, Points):
        count = queries.index.shape[1] if queries.index.dim() > 1 else "N"
        for name, part in (("index", queries.index), ("offset", queries.offset)):
            _require(op, f"the points' {name}", part, (batch, count, 2), " for these maps")
    else:
        count = queries.offset.shape[1] if queries.offset.dim() > 1 else "M"
        size = (batch, count, h, w, 2)
        _require(op, "the raster's offset", queries.offset, size, " for these maps")


def _check_heads(op: str, name: str, channels: int, heads: int) -> None:
    """Each head takes an equal share of the channels of the map ``name``."""
    if heads < 1 or channels % heads:
        raise ValueError(
            f"{op}: {name} has {channels} channels and must have a multiple of its {heads} heads"
        )


def _check_layers(op: str, inputs: int, mlp_weights: Sequence[Tensor], mlp_biases: Sequence[Tensor]) -> None:
    """Linear layers that follow each other, the first of ``inputs`` inputs."""
    if not mlp_weights or len(mlp_weights) != len(mlp_biases):
        counts = f"{len(mlp_weights)} weights and {len(mlp_biases)} biases"
        raise ValueError(f"{op}: the MLP has {counts} and must have one of each for each of its layers")
    width, why = inputs, "K*K*C + 2 inputs"
    for i, (weight, bias) in enumerate(zip(mlp_weights, mlp_biases, strict=True)):
        neurons = weight.shape[0] if weight.dim() else "D"
        _require(op, f"mlp_weights[{i}]", weight, (neurons, width), f": {why}")
        _require(op, f"mlp_biases[{i}]", bias, (neurons,), f", as mlp_weights[{i}] puts out")
        width, why = weight.shape[0], "as many inputs as the layer before has outputs"


def _check_added(op: str, call: DecodeCall | StageCall) -> None:
    """The images' cells and what is added to the MLP's outputs."""
    batch = call.v.shape[0]
    layers = call.mlp_weights if isinstance(call, DecodeCall) else call.weights.mlp_weights
    _require(op, "cell", call.cell, (batch, 2), ", one (y, x) for each image")
    for name, added in (("previous", call.previous), ("base", call.base)):
        if added is not None:
            size = (batch, call.queries.count, layers[-1].shape[0])
            _require(op, name, added, size, ", as the result has")


def _require(op: str, name: str, tensor: Tensor, size: Sequence[int | str], why: str = "") -> None:
    """Raise unless tensor.shape == size. A string in ``size`` marks an unknown axis and never matches."""
    if tensor.shape != tuple(size):
        shape, wanted = _text(tensor.shape), _text(size)
        raise ValueError(f"{op}: {name} has the shape {shape} and must have {wanted}{why}")


def _text(size: Sequence[int | str]) -> str:
    return f"({', '.join(map(str, size))}{',' * (len(size) == 1)})"
