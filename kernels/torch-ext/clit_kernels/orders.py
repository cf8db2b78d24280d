"""The two orders in which the decoder's first layer can be summed, and the rule that takes one.

    hidden(q) = sum_{h,k} a(q, h, k) v(p0 + k)_h W_1[k, h] + cell W_c + b

* ``direct``   scales the values and multiplies by W_1, for each query: K*K*C*D multiplications.
* ``hoisted``  multiplies by W_1 once per feature pixel, K*K*C*D, and weighs the results for each query,
  K*K*H*D. The s**2 queries nearest to one feature pixel share the first product.
"""

from .queries import Grid, Points, Queries

ORDERS = ("hoisted", "direct")

COST = {"torch": 2, "triton": 4}
"""What a multiplication of the hoisted order's many small products costs, in those of the direct order's one
large product.

torch, measured on a CPU: with 1 to 6 queries per feature pixel, in two sizes, the op alone and within a
stage, a factor of 2 takes an order that is slower by more than a tenth in 1 of 24 cases (1.23 times), a
factor of 1 in 3 (up to 1.68 times).

triton, an estimate: ``hoisted`` reads W_1 from L2 for every 32 feature pixels and passes the first product
through shared memory.
"""


def takes_hoisted(
    order: str | None,
    backend: str,
    *,
    pixels: int,
    slots: int,
    count: float,
    channels: int,
    heads: int,
    walks: int = 1,
) -> bool:
    """Whether the hoisted order is taken: as ``order`` says, else where it is expected to be faster.

    Args:
        order: one of ``ORDERS``, or None to count multiplications.
        backend: "torch" or "triton".
        pixels, slots: feature pixels, and slots for queries at each, spare ones included.
        count: queries that they serve.
        channels, heads: of the value map.
        walks: how often a feature pixel's first product is computed: once for all of its slots in PyTorch.
    """
    if order is not None:
        return order == "hoisted"
    return COST[backend] * pixels * (walks * channels + slots * heads) < count * channels


def why_not_order(order: str | None, backend: str, queries: Queries) -> str | None:
    """Why ``backend`` cannot sum ``queries`` in that order, or None.

    Raises:
        ValueError: there is no such order.
    """
    if order is not None and order not in ORDERS:
        raise ValueError(f"order {order!r} is unknown; take one of {', '.join(ORDERS)}, or None")
    if order != "hoisted":
        return None
    if backend == "reference":
        return "the formula is summed in the direct order"
    if isinstance(queries, Points):
        return "a list of points is summed in the direct order"
    if backend == "triton" and not isinstance(queries, Grid):
        return "the kernels sum a raster in the direct order"
    return None
