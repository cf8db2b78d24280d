"""Attention-scaled values through the decoder's MLP, at coordinates."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..backends import choose, triton_or
from ..queries import Queries, Raster, constant
from ..shapes import check_added, check_heads, check_layers, check_maps, check_weights
from ..triton_support import MAX_BATCH, why_not_triton
from .hoisted import coordinate_decode_hoisted
from .reference import coordinate_decode_reference
from .tiles import MAX_HIDDEN, MAX_OUT, MAX_WIDTH

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
    base: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Decode attention-scaled values to residuals (Chen et al., CVPR 2023, equations 3 and 9).

    Positions and cells are constants: no gradient reaches the queries' offsets or ``cell``. Triton
    differentiates once, and so does "hoisted" for a raster.

    Args:
        weights: (B, Q, H, K*K) attention weights, as ``local_attention`` returns them.
        v: (B, C, h, w) value map, C a multiple of H.
        queries: the ``Grid``, ``Points`` or ``Raster`` that ``weights`` was made for.
        mlp_weights, mlp_biases: Linear layers with exact GELU between; the first is (D, K*K*C + 2), its
            inputs ordered tap, head, channel, then cell (y, x).
        cell: (B, 2) size (y, x) of an output pixel in half feature pixels.
        previous: (B, Q, out) residual of the stage before, added ``gain`` times.
        base: (B, Q, out) added as it is: the bilinear skip, in the last stage.
        backend: "auto", "triton", "hoisted" or "reference".

    Returns:
        (B, Q, out) in v's dtype, or ``base``'s where that is wider.

    Raises:
        ValueError: sizes do not fit together, or the backend named cannot serve this call; the message says
            why.
    """
    check_maps("coordinate_decode", queries, v=v)
    batch, channels = v.shape[:2]
    heads, area = check_weights("coordinate_decode", weights, batch, queries)
    check_heads("coordinate_decode", "v", channels, heads)
    check_layers("coordinate_decode", area * channels + 2, mlp_weights, mlp_biases)
    out = mlp_weights[-1].shape[0]
    check_added("coordinate_decode", batch, queries.count, out, cell, previous, base)
    queries, cell = constant(queries), cell.detach()
    chosen = choose(
        "coordinate_decode",
        backend,
        lambda name: why_not(name, v, weights, queries, mlp_weights, mlp_biases, cell),
    )
    args = (weights, v, queries, mlp_weights, mlp_biases, cell)

    def formulas() -> Tensor:
        run = coordinate_decode_reference if chosen == "reference" else coordinate_decode_hoisted
        out = run(*args, previous=previous, gain=gain)
        return out if base is None else out + base

    def kernels() -> Tensor:
        from .function import coordinate_decode_triton  # Triton may be absent

        return coordinate_decode_triton(*args, previous=previous, gain=gain, base=base)

    if chosen != "triton":
        return formulas()
    sizes = (v.shape[1], *weights.shape[2:], *(w.shape[0] for w in mlp_weights))
    return triton_or(formulas, kernels, "coordinate_decode", backend, v, sizes)


def why_not(
    backend: str,
    v: Tensor,
    weights: Tensor,
    queries: Queries,
    mlp_weights: Sequence[Tensor],
    mlp_biases: Sequence[Tensor],
    cell: Tensor,
) -> str | None:
    """Why ``backend`` cannot serve this call, or None."""
    if backend != "triton":
        return None
    reason = why_not_triton(v, beside=(weights, *queries, *mlp_weights, *mlp_biases, cell))
    return reason or why_not_shape(v, weights.shape[2], queries, mlp_weights)


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
        torch.are_deterministic_algorithms_enabled()
        and not torch.is_deterministic_algorithms_warn_only_enabled()
        and torch.is_grad_enabled()
        and v.requires_grad
        and not isinstance(queries, Raster)
    ):
        return (
            "the gradient of the values of points and grids adds with atomics, "
            "and deterministic algorithms are asked for"
        )
    return None
