"""Attention-scaled values through the decoder's MLP, at coordinates."""

from collections.abc import Mapping, Sequence

from torch import (
    Tensor,
    are_deterministic_algorithms_enabled,
    is_deterministic_algorithms_warn_only_enabled,
    is_grad_enabled,
)

from ..backends import serve
from ..calls import DecodeCall, fixed
from ..orders import why_not_order
from ..queries import Queries, Raster, tensors
from ..shapes import check_decode
from ..tile_table import Tile
from ..triton_support import MAX_BATCH, why_not_triton
from .reference import coordinate_decode_reference
from .torch import coordinate_decode_torch
from .triton.tiles import MAX_HIDDEN, MAX_OUT, MAX_WIDTH

__all__ = ["coordinate_decode", "coordinate_decode_reference", "coordinate_decode_torch", "why_not"]


def coordinate_decode(
    call: DecodeCall,
    *,
    backend: str = "auto",
    order: str | None = None,
    tiles: Mapping[str, Tile] | None = None,
) -> Tensor:
    """Decode attention-scaled values to residuals (Chen et al., CVPR 2023, equations 3 and 9).

    Positions and cells are constants: no gradient reaches the queries' offsets or ``cell``. Triton
    differentiates once, and so does PyTorch for a raster in the direct order.

    Args:
        call: attention weights, value map, queries, MLP, and residuals to add.
        backend: "auto", "triton", "torch" or "reference".
        order: "hoisted" or "direct" sum of the first layer; None takes the one expected to be faster.
        tiles: entries to take in place of a Triton kernel's own, by its name ("coordinate_decode/direct").

    Returns:
        (B, Q, out) in v's dtype, or ``base``'s where that is wider.

    Raises:
        ValueError: sizes do not fit together, or the backend named cannot serve this call; the message says
            why.
    """
    check_decode(call)
    call = fixed(call)

    def kernels() -> Tensor:
        from .triton.launch import coordinate_decode_triton  # Triton may be absent

        return coordinate_decode_triton(call, order=order, tiles=tiles)

    widths = (w.shape[0] for w in call.mlp_weights)
    sizes = (call.v.shape[1], *call.attention.shape[2:], *widths, str(tiles))
    return serve(
        "coordinate_decode",
        backend,
        call.v,
        sizes,
        why_not=lambda name: why_not(name, call, order),
        reference=lambda: coordinate_decode_reference(call),
        torch=lambda: coordinate_decode_torch(call, order=order),
        triton=kernels,
    )


def why_not(backend: str, call: DecodeCall, order: str | None = None) -> str | None:
    """Why ``backend`` cannot serve this call in this order, or None."""
    reason = why_not_order(order, backend, call.queries)
    if reason is not None or backend != "triton":
        return reason
    beside = (call.attention, *tensors(call.queries), *call.mlp_weights, *call.mlp_biases, call.cell)
    reason = why_not_triton(call.v, beside=beside)
    return reason or why_not_shape(call.v, call.attention.shape[2], call.queries, call.mlp_weights)


def why_not_shape(v: Tensor, heads: int, queries: Queries, mlp_weights: Sequence[Tensor]) -> str | None:
    """Why the Triton kernels cannot take these sizes, or None."""
    if v.shape[1] // heads > MAX_WIDTH:
        return f"a head has {v.shape[1] // heads} channels, and the kernels take up to {MAX_WIDTH}"
    if len(mlp_weights) < 2:
        return "its MLP has no hidden layer"
    widest = max(w.shape[0] for w in mlp_weights[:-1])
    if widest > MAX_HIDDEN:
        return f"a hidden layer has {widest} neurons, and the kernels take up to {MAX_HIDDEN}"
    if mlp_weights[-1].shape[0] > MAX_OUT:
        return f"it puts out {mlp_weights[-1].shape[0]} channels, and the kernels do up to {MAX_OUT}"
    if v.shape[0] > MAX_BATCH:
        return f"the batch is {v.shape[0]}, and the kernels take up to {MAX_BATCH}; split it"
    if v.shape[0] * queries.count >= 1 << 31:
        return f"{v.shape[0] * queries.count} queries are more than 2**31; split them"
    if (
        are_deterministic_algorithms_enabled()
        and not is_deterministic_algorithms_warn_only_enabled()
        and is_grad_enabled()
        and v.requires_grad
        and not isinstance(queries, Raster)
    ):
        return (
            "the gradient of the values of points and grids adds with atomics, "
            "and deterministic algorithms are asked for"
        )
    return None
