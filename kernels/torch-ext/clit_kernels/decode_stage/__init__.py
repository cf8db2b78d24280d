"""One whole stage of CLIT at coordinates: local_attention and coordinate_decode, fused tile by tile."""

from collections.abc import Mapping

from torch import Tensor

from ..backends import serve
from ..calls import StageCall, fixed
from ..coordinate_decode import why_not_shape
from ..local_attention import why_not as why_not_attention
from ..orders import why_not_order
from ..queries import tensors
from ..shapes import check_stage
from ..tile_table import Tile
from ..triton_support import why_not_triton
from .reference import decode_stage_reference
from .torch import decode_stage_torch

__all__ = ["decode_stage", "decode_stage_reference", "decode_stage_torch", "why_not"]


def decode_stage(
    call: StageCall,
    *,
    backend: str = "auto",
    order: str | None = None,
    tiles: Mapping[str, Tile] | None = None,
) -> Tensor:
    """Residual of one stage: ``coordinate_decode(local_attention(q, k), v)`` without the weights in between.

    Positions and cells are constants: no gradient reaches the queries' offsets or ``cell``. Triton
    differentiates once, and so does PyTorch for a raster in the direct order.

    Args:
        call: maps, queries, the stage's weights, and residuals to add.
        backend, order: as ``coordinate_decode`` takes them.
        tiles: entries to take in place of the Triton kernels' own, by name; those of both ops count.

    Returns:
        (B, Q, out) in the maps' dtype, or ``base``'s where that is wider.

    Raises:
        ValueError: sizes do not fit together, or the backend named cannot serve this call; the message says
            why.
    """
    check_stage(call)
    call = fixed(call)

    def kernels() -> Tensor:
        from .triton.launch import decode_stage_triton  # Triton may be absent

        return decode_stage_triton(call, order=order, tiles=tiles)

    weights = call.weights
    widths = (w.shape[0] for w in weights.mlp_weights)
    sizes = (call.v.shape[1], weights.heads, weights.radius, *widths, str(tiles))
    return serve(
        "decode_stage",
        backend,
        call.v,
        sizes,
        why_not=lambda name: why_not(name, call, order),
        reference=lambda: decode_stage_reference(call),
        torch=lambda: decode_stage_torch(call, order=order),
        triton=kernels,
    )


def why_not(backend: str, call: StageCall, order: str | None = None) -> str | None:
    """Why ``backend`` cannot serve this call in this order, or None."""
    reason = why_not_order(order, backend, call.queries)
    if reason is not None or backend != "triton":
        return reason
    if call.v.dtype != call.q.dtype:
        return f"q is {call.q.dtype} and v is {call.v.dtype}; give all maps one dtype"
    reason = why_not_attention(backend, call.attention())
    reason = reason or why_not_triton(
        call.v, beside=(*tensors(call.queries), *call.weights.tensors(), call.cell)
    )
    return reason or why_not_shape(call.v, call.weights.heads, call.queries, call.weights.mlp_weights)
