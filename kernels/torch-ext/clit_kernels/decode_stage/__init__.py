"""One whole stage of CLIT at coordinates: local_attention and coordinate_decode, fused tile by tile."""

from torch import Tensor

from ..backends import choose
from ..queries import Queries
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
    backend: str = "auto",
) -> Tensor:
    """Residual of one stage: ``coordinate_decode(local_attention(q, k), v)`` without the weights in between.

    Args:
        q, k, v: (B, C, h, w) maps of one dtype.
        queries: ``Grid``, ``Points`` or ``Raster`` on those maps; Q queries per image.
        stage: the position bias' projection and the MLP.
        cell: (B, 2) size (y, x) of an output pixel in half feature pixels.
        previous: (B, Q, out) residual of the stage before, added ``gain`` times.
        backend: "auto", "triton", "hoisted" or "reference".

    Returns:
        (B, Q, out) in the maps' dtype.

    Raises:
        ValueError: the backend named cannot serve this call; the message says why.
    """
    chosen = choose("decode_stage", backend, lambda name: why_not(name, v))
    run = decode_stage_reference if chosen == "reference" else decode_stage_hoisted
    return run(q, k, v, queries, stage, cell, previous=previous, gain=gain)


def why_not(backend: str, v: Tensor) -> str | None:
    """Why ``backend`` cannot serve maps like ``v``, or None."""
    if backend == "triton":
        return "this version has no Triton kernel for it"
    return None
