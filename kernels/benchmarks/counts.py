"""How many floating-point operations the work takes, in the cheaper order: what TFLOP/s are reckoned by.

One multiplication and one addition are two operations. For one stage with F feature pixels and Q queries
nearest to them, C channels, H heads, K x K taps and an MLP of widths D, D_2, ..., out:

    attention    Q (8 C + 2 K*K*C)                     bilinear query, products with the keys
    U            F 2 K*K*C*D                           once per feature pixel
    contraction  Q 2 K*K*H*D                           weights x U
    MLP          Q 2 (D*D_2 + ... + D_n*out)           the layers after the first

Where U per feature pixel costs more than the first layer per query (Q 2 K*K*C*D), the direct order is
counted. Softmax, bias tables and GELU are not counted: they take no matrix products. Whatever order a backend
works in, its TFLOP/s are this count over its time, so they compare.
"""

from itertools import pairwise

from clit_kernels.self_check import Shape

OUT = 3
"""Colours."""


def attention(shape: Shape, queries: int) -> float:
    """Operations of local_attention."""
    return queries * (8 + 2 * _area(shape)) * shape.channels


def first_layer(shape: Shape, pixels: int, queries: int) -> float:
    """Operations of the decoder's first layer, in the cheaper order."""
    direct = queries * shape.channels
    hoisted = pixels * shape.channels + queries * shape.heads
    return 2 * _area(shape) * shape.hidden[0] * min(direct, hoisted)


def operations(op: str, shape: Shape, pixels: int, queries: int) -> float:
    """Operations of an op's forward pass."""
    if op == "local_attention":
        return attention(shape, queries)
    later = sum(a * b for a, b in pairwise((*shape.hidden, OUT)))
    decode = first_layer(shape, pixels, queries) + 2 * later * queries
    return decode + (attention(shape, queries) if op == "decode_stage" else 0)


def _area(shape: Shape) -> int:
    return (2 * shape.radius + 1) ** 2
