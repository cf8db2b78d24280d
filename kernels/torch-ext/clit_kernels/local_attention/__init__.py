"""Attention weights of queries over the K x K feature pixels around each."""

from torch import Tensor

from ..backends import choose, triton_or
from ..queries import Queries, constant
from ..shapes import check_heads, check_maps, check_window
from ..triton_support import MAX_BATCH, why_not_triton
from .hoisted import local_attention_hoisted
from .reference import local_attention_reference
from .tiles import MAX_RADIUS, MAX_WIDTH

__all__ = ["local_attention", "local_attention_hoisted", "local_attention_reference", "why_not"]


def local_attention(
    q: Tensor,
    k: Tensor,
    queries: Queries,
    proj_weight: Tensor,
    proj_bias: Tensor,
    *,
    heads: int,
    radius: int,
    backend: str = "auto",
) -> Tensor:
    """Cross-scale local attention (Chen et al., CVPR 2023, equations 2 to 7, up to the softmax).

    Positions are constants: no gradient reaches the queries' offsets. Triton differentiates once, and so does
    "hoisted" for a raster.

    Args:
        q, k: (B, C, h, w) query and key maps of one dtype; C is a multiple of ``heads``.
        queries: ``Grid``, ``Points`` or ``Raster`` on that map; Q queries per image. A grid's pixels lie on
            the map; points may lie anywhere and meet zero keys outside.
        proj_weight, proj_bias: (heads, 64), (heads,) projection of the position encoding.
        heads, radius: the window has K = 2 * radius + 1 pixels a side.
        backend: "auto", "triton", "hoisted" or "reference".

    Returns:
        (B, Q, heads, K*K) weights that sum to 1 over the last axis, in the maps' dtype.

    Raises:
        ValueError: sizes do not fit together, or the backend named cannot serve this call; the message says
            why.
    """
    check_maps("local_attention", queries, q=q, k=k)
    check_heads("local_attention", "q", q.shape[1], heads)
    check_window("local_attention", heads, radius, proj_weight, proj_bias)
    queries = constant(queries)
    chosen = choose(
        "local_attention",
        backend,
        lambda name: why_not(name, q, k, queries, proj_weight, proj_bias, heads=heads, radius=radius),
    )

    def formula() -> Tensor:
        run = local_attention_reference if chosen == "reference" else local_attention_hoisted
        return run(q, k, queries, proj_weight, proj_bias, heads=heads, radius=radius)

    def kernels() -> Tensor:
        from .launch import local_attention_triton  # Triton may be absent

        return local_attention_triton(q, k, queries, proj_weight, proj_bias, heads=heads, radius=radius)

    if chosen != "triton":
        return formula()
    return triton_or(formula, kernels, "local_attention", backend, q, (q.shape[1], heads, radius))


def why_not(
    backend: str,
    q: Tensor,
    k: Tensor,
    queries: Queries,
    proj_weight: Tensor,
    proj_bias: Tensor,
    *,
    heads: int,
    radius: int,
) -> str | None:
    """Why ``backend`` cannot serve this call, or None."""
    if backend != "triton":
        return None
    reason = why_not_triton(q, k, beside=(*queries, proj_weight, proj_bias))
    if reason is not None:
        return reason
    if q.dtype != k.dtype:
        return f"q is {q.dtype} and k is {k.dtype}; give both one dtype"
    if q.shape[1] // heads > MAX_WIDTH:
        return f"a head has {q.shape[1] // heads} channels, and the kernels take up to {MAX_WIDTH}"
    if radius > MAX_RADIUS:
        return f"the window's radius is {radius}, and the kernels take up to {MAX_RADIUS}"
    if q.shape[0] > MAX_BATCH:
        return f"the batch is {q.shape[0]}, and the kernels take up to {MAX_BATCH}; split it"
    return None
