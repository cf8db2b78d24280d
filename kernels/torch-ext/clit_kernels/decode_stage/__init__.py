"""One whole stage of CLIT at coordinates: local_attention and coordinate_decode, fused tile by tile."""

from torch import Tensor

from ..backends import choose, triton_or
from ..coordinate_decode import why_not_shape
from ..local_attention import why_not as why_not_attention
from ..queries import Queries, constant
from ..shapes import check_added, check_heads, check_layers, check_maps, check_window
from ..triton_support import why_not_triton
from .hoisted import decode_stage_hoisted
from .reference import decode_stage_reference
from .weights import StageWeights

__all__ = ["StageWeights", "decode_stage", "decode_stage_hoisted", "decode_stage_reference", "why_not"]


def decode_stage(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    queries: Queries,
    stage: StageWeights,
    cell: Tensor,
    *,
    previous: Tensor | None = None,
    gain: float = 0.75,
    base: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Residual of one stage: ``coordinate_decode(local_attention(q, k), v)`` without the weights in between.

    Positions and cells are constants: no gradient reaches the queries' offsets or ``cell``. Triton
    differentiates once, and so does "hoisted" for a raster.

    Args:
        q, k, v: (B, C, h, w) maps of one dtype.
        queries: ``Grid``, ``Points`` or ``Raster`` on those maps; Q queries per image.
        stage: the position bias' projection and the MLP.
        cell: (B, 2) size (y, x) of an output pixel in half feature pixels.
        previous: (B, Q, out) residual of the stage before, added ``gain`` times.
        base: (B, Q, out) added as it is: the bilinear skip, in the last stage.
        backend: "auto", "triton", "hoisted" or "reference".

    Returns:
        (B, Q, out) in the maps' dtype, or ``base``'s where that is wider.

    Raises:
        ValueError: sizes do not fit together, or the backend named cannot serve this call; the message says
            why.
    """
    check_maps("decode_stage", queries, q=q, k=k, v=v)
    check_heads("decode_stage", "q", q.shape[1], stage.heads)
    check_window("decode_stage", stage.heads, stage.radius, stage.proj_weight, stage.proj_bias)
    check_layers("decode_stage", stage.area * v.shape[1] + 2, stage.mlp_weights, stage.mlp_biases)
    out = stage.mlp_weights[-1].shape[0]
    check_added("decode_stage", v.shape[0], queries.count, out, cell, previous, base)
    queries, cell = constant(queries), cell.detach()
    chosen = choose("decode_stage", backend, lambda name: why_not(name, v, q, k, queries, stage, cell))
    args = (q, k, v, queries, stage, cell)

    def formulas() -> Tensor:
        run = decode_stage_reference if chosen == "reference" else decode_stage_hoisted
        out = run(*args, previous=previous, gain=gain)
        return out if base is None else out + base

    def kernels() -> Tensor:
        from .launch import decode_stage_triton  # Triton may be absent

        return decode_stage_triton(*args, previous=previous, gain=gain, base=base)

    if chosen != "triton":
        return formulas()
    sizes = (v.shape[1], stage.heads, stage.radius, *(w.shape[0] for w in stage.mlp_weights))
    return triton_or(formulas, kernels, "decode_stage", backend, v, sizes)


def why_not(
    backend: str,
    v: Tensor,
    q: Tensor | None = None,
    k: Tensor | None = None,
    queries: Queries | None = None,
    stage: StageWeights | None = None,
    cell: Tensor | None = None,
) -> str | None:
    """Why ``backend`` cannot serve this call, or None; from ``v`` alone, why it cannot serve maps like it."""
    if backend != "triton":
        return None
    if q is None or k is None or queries is None or stage is None or cell is None:
        return why_not_triton(v)
    if v.dtype != q.dtype:
        return f"q is {q.dtype} and v is {v.dtype}; give all maps one dtype"
    reason = why_not_attention(
        backend, q, k, queries, stage.proj_weight, stage.proj_bias, heads=stage.heads, radius=stage.radius
    )
    reason = reason or why_not_triton(v, beside=(*queries, *stage.tensors(), cell))
    return reason or why_not_shape(v, stage.heads, queries, stage.mlp_weights)
