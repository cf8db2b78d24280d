"""Attention-scaled values through the decoder's MLP, at coordinates."""

from collections.abc import Sequence

from torch import Tensor

from ..backends import choose
from ..queries import Queries
from .hoisted import coordinate_decode_hoisted
from .reference import coordinate_decode_reference

__all__ = ["coordinate_decode", "coordinate_decode_hoisted", "coordinate_decode_reference", "why_not"]


def coordinate_decode(
    weights: Tensor,
    v: Tensor,
    queries: Queries,
    mlp_weights: Sequence[Tensor],
    mlp_biases: Sequence[Tensor],
    cell: Tensor,
    *,
    previous: Tensor | None = None,
    gain: float = 0.75,
    backend: str = "auto",
) -> Tensor:
    """Decode attention-scaled values to residuals (Chen et al., CVPR 2023, equations 3 and 9).

    Args:
        weights: (B, Q, H, K*K) attention weights, as ``local_attention`` returns them.
        v: (B, C, h, w) value map, C a multiple of H.
        queries: the ``Grid``, ``Points`` or ``Raster`` that ``weights`` was made for.
        mlp_weights, mlp_biases: Linear layers with exact GELU between; the first is (D, K*K*C + 2), its
            inputs ordered tap, head, channel, then cell (y, x).
        cell: (B, 2) size (y, x) of an output pixel in half feature pixels.
        previous: (B, Q, out) residual of the stage before, added ``gain`` times.
        backend: "auto", "triton", "hoisted" or "reference".

    Returns:
        (B, Q, out) in v's dtype.

    Raises:
        ValueError: the backend named cannot serve this call; the message says why.
    """
    chosen = choose("coordinate_decode", backend, lambda name: why_not(name, v))
    run = coordinate_decode_reference if chosen == "reference" else coordinate_decode_hoisted
    return run(weights, v, queries, mlp_weights, mlp_biases, cell, previous=previous, gain=gain)


def why_not(backend: str, v: Tensor) -> str | None:
    """Why ``backend`` cannot serve maps like ``v``, or None."""
    if backend == "triton":
        return "this version has no Triton kernel for it"
    return None
