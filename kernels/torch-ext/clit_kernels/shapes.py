"""Do the sizes of an op's arguments fit together? Asked before a backend is chosen, the same for every one.

PyTorch would say something of its own about some misfits and broadcast others; a Triton kernel reads what
lies beside the tensor. A few integer comparisons; a compiler turns them into guards that it mostly has.
"""

from collections.abc import Sequence

from torch import Tensor

from .position_bias import BANDS
from .queries import Grid, Points, Queries


def check_maps(op: str, queries: Queries, **maps: Tensor) -> None:
    """Maps alike in (B, C, h, w), with ``queries`` of their batch and size.

    Raises:
        ValueError: they do not fit together; the message says what does not, what it is and must be.
    """
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


def check_heads(op: str, name: str, channels: int, heads: int) -> None:
    """Each head takes an equal share of the channels of the map ``name``."""
    if heads < 1 or channels % heads:
        raise ValueError(
            f"{op}: {name} has {channels} channels and must have a multiple of its {heads} heads"
        )


def check_window(op: str, heads: int, radius: int, proj_weight: Tensor, proj_bias: Tensor) -> None:
    """A window's radius, and the position bias' projection to ``heads`` heads."""
    if radius < 0:
        raise ValueError(f"{op}: the radius is {radius} and must be 0 or more")
    _require(op, "proj_weight", proj_weight, (heads, 4 * BANDS), f" for {heads} heads")
    _require(op, "proj_bias", proj_bias, (heads,), f" for {heads} heads")


def check_weights(op: str, weights: Tensor, batch: int, queries: Queries) -> tuple[int, int]:
    """Attention weights (B, Q, H, K*K) of ``queries``: their heads and taps."""
    if weights.dim() != 4:
        shape = _text(weights.shape)
        raise ValueError(f"{op}: weights has the shape {shape} and must have four axes, (B, Q, H, K*K)")
    heads, taps = weights.shape[2:]
    _require(op, "weights", weights, (batch, queries.count, heads, taps), " for these queries")
    side = int(taps**0.5)
    if side * side != taps or side % 2 == 0:
        raise ValueError(f"{op}: weights has {taps} taps and must have K*K of them with an odd K")
    return heads, taps


def check_layers(op: str, inputs: int, mlp_weights: Sequence[Tensor], mlp_biases: Sequence[Tensor]) -> None:
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


def check_added(
    op: str, batch: int, count: int, out: int, cell: Tensor, previous: Tensor | None, base: Tensor | None
) -> None:
    """The images' cells and what is added to the MLP's outputs."""
    _require(op, "cell", cell, (batch, 2), ", one (y, x) for each image")
    for name, added in (("previous", previous), ("base", base)):
        if added is not None:
            _require(op, name, added, (batch, count, out), ", as the result has")


def _require(op: str, name: str, tensor: Tensor, size: Sequence[int | str], why: str = "") -> None:
    """``tensor`` is of ``size``; one with a name in it is for tensors of too few axes, and never fits."""
    if tensor.shape != tuple(size):
        shape, wanted = _text(tensor.shape), _text(size)
        raise ValueError(f"{op}: {name} has the shape {shape} and must have {wanted}{why}")


def _text(size: Sequence[int | str]) -> str:
    return f"({', '.join(map(str, size))}{',' * (len(size) == 1)})"
