"""Attention weights of queries over the K x K feature pixels around each."""

from collections.abc import Mapping

from torch import Tensor

from ..backends import serve
from ..calls import AttentionCall
from ..queries import constant, tensors
from ..shapes import check_attention
from ..tile_table import Tile
from ..triton_support import MAX_BATCH, why_not_triton
from .reference import local_attention_reference
from .torch import local_attention_torch
from .triton.tiles import MAX_RADIUS, MAX_WIDTH

__all__ = ["local_attention", "local_attention_reference", "local_attention_torch", "why_not"]


def local_attention(
    call: AttentionCall, *, backend: str = "auto", tiles: Mapping[str, Tile] | None = None
) -> Tensor:
    """Cross-scale local attention (Chen et al., CVPR 2023, equations 2 to 7, up to the softmax).

    Positions are constants: no gradient reaches the queries' offsets. Triton differentiates once, and so does
    PyTorch for a raster.

    Args:
        call: maps, queries and the position bias.
        backend: "auto", "triton", "torch" or "reference".
        tiles: entries to take in place of a Triton kernel's own, by its name ("local_attention/forward_any").

    Returns:
        (B, Q, heads, K*K) weights that sum to 1 over the last axis, in the maps' dtype.

    Raises:
        ValueError: sizes do not fit together, or the backend named cannot serve this call; the message says
            why.
    """
    check_attention(call)
    call = call._replace(queries=constant(call.queries))

    def kernels() -> Tensor:
        from .triton.launch import local_attention_triton  # Triton may be absent

        return local_attention_triton(call, tiles=tiles)

    sizes = (call.q.shape[1], call.heads, call.radius, str(tiles))
    return serve(
        "local_attention",
        backend,
        call.q,
        sizes,
        why_not=lambda name: why_not(name, call),
        reference=lambda: local_attention_reference(call),
        torch=lambda: local_attention_torch(call),
        triton=kernels,
    )


def why_not(backend: str, call: AttentionCall) -> str | None:
    """Why ``backend`` cannot serve this call, or None."""
    if backend != "triton":
        return None
    q, k = call.q, call.k
    if call.nearest:
        return "the kernels read queries bilinearly"
    reason = why_not_triton(q, k, beside=(*tensors(call.queries), call.proj_weight, call.proj_bias))
    if reason is not None:
        return reason
    if q.dtype != k.dtype:
        return f"q is {q.dtype} and k is {k.dtype}; give both one dtype"
    if q.shape[1] // call.heads > MAX_WIDTH:
        return f"a head has {q.shape[1] // call.heads} channels, and the kernels take up to {MAX_WIDTH}"
    if call.radius > MAX_RADIUS:
        return f"the window's radius is {call.radius}, and the kernels take up to {MAX_RADIUS}"
    if q.shape[0] > MAX_BATCH:
        return f"the batch is {q.shape[0]}, and the kernels take up to {MAX_BATCH}; split it"
    return None
