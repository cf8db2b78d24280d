"""How many floating-point operations the work takes, in the hoisted order: what TFLOP/s are reckoned by.

One multiplication and one addition are two operations. For one stage with F feature pixels and Q queries
nearest to them, C channels, H heads, K x K taps and an MLP of widths D, D_2, ..., out:

    attention    Q (8 C + 2 K*K*C)                     bilinear query, products with the keys
    U            F 2 K*K*C*D                           once per feature pixel
    contraction  Q 2 K*K*H*D                           weights x U
    MLP          Q 2 (D*D_2 + ... + D_n*out)           the layers after the first

Where U per feature pixel costs more than the first layer per query (Q 2 K*K*C*D), the direct order is
counted. Softmax, bias tables, GELU and resampling are not counted: they take no matrix products. Whatever
order a backend works in, its TFLOP/s are this count over its time, so they compare.
"""

from functools import cache
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from clit_zoo import geometry
from clit_zoo.encoders import build_encoder
from clit_zoo.zoo import registry
from clit_zoo.zoo.config import ModelConfig

Size = tuple[int, int]

ENCODED = 64
"""Channels that every encoder of the paper puts out."""


class Shape(NamedTuple):
    """A stage: channels, heads, window radius, and the MLP's widths, hidden ones first, outputs last."""

    channels: int
    heads: int
    radius: int
    widths: tuple[int, ...]

    @classmethod
    def of(cls, config: ModelConfig) -> "Shape":
        """That of a model's stages."""
        d = config.decoder
        return cls(d["dim"], d["heads"], d["radius"], (*d["hidden_dims"], 3))

    @property
    def area(self) -> int:
        """K*K."""
        return (2 * self.radius + 1) ** 2


def attention(shape: Shape, queries: int) -> float:
    """Operations of local_attention."""
    return queries * (8 + 2 * shape.area) * shape.channels


def first_layer(shape: Shape, pixels: int, queries: int) -> float:
    """Operations of the decoder's first layer, in the cheaper order."""
    direct = queries * shape.channels
    hoisted = pixels * shape.channels + queries * shape.heads
    return 2 * shape.area * shape.widths[0] * min(direct, hoisted)


def decode(shape: Shape, pixels: int, queries: int) -> float:
    """Operations of coordinate_decode."""
    later = sum(a * b for a, b in zip(shape.widths, shape.widths[1:], strict=False))
    return first_layer(shape, pixels, queries) + 2 * later * queries


def stage(shape: Shape, pixels: int, queries: int) -> float:
    """Operations of decode_stage."""
    return attention(shape, queries) + decode(shape, pixels, queries)


def model(name: str, size: Size, output: Size, batch: int = 1) -> float:
    """Operations of enlarging pictures of ``size`` to ``output`` with a registered model."""
    config = registry.get(name).config
    shape, queries = Shape.of(config), output[0] * output[1]
    parts = [encoder(name, size), convolution(ENCODED, shape.channels, size)]
    for rows, cols in geometry.plan(*size, output, config.decoder["stages"]):
        parts.append(convolution(shape.channels, 3 * shape.channels, (rows, cols)))
        parts.append(stage(shape, rows * cols, queries))
    return batch * sum(parts)


def training_step(name: str, size: Size, batch: int) -> float:
    """Operations of one forward and backward pass of a one-stage model, one query per feature pixel.

    Every matrix product of the forward pass has two of its size in the backward pass: the gradients of its
    two factors. So the count is three times the forward pass'.
    """
    return 3 * model(name, size, size, batch)


def convolution(channels_in: int, channels_out: int, size: Size) -> float:
    """Operations of a 3 x 3 convolution."""
    return 2 * 9 * channels_in * channels_out * size[0] * size[1]


@cache
def encoder(name: str, size: Size) -> float:
    """Operations of a model's encoder, counted by torch on tensors without memory."""
    settings = dict(registry.get(name).config.encoder)
    with torch.device("meta"), torch.no_grad():
        network = build_encoder(settings.pop("name"), **settings).eval()
        with FlopCounterMode(display=False) as counter:
            network(torch.empty(1, 3, *size))
    return counter.get_total_flops()
