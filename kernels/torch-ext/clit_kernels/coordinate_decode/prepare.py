"""What the Triton kernels read, laid out for them: the MLP's layers and the padded value map."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..triton_support import power_of_two, width_block
from .tiles import PRODUCTS

CHAINED = 1 << 13
"""Numbers of a layer's matrix up to which it is read whole: 16 KiB in half precision."""


class Layers(NamedTuple):
    """An MLP in a map's dtype, its layers widened to powers of two by zeros.

    Attributes:
        first: (H*K*K rounded up, c rounded up, D rounded up) one block of the first layer per head and tap.
        constant: (B, D rounded up) float32, the part of the first layer that no query changes: bias and cell.
        weight: the (in, out) matrices of the layers after the first, one after the other.
        bias: float32, likewise.
        widths: the hidden layers and, last, the outputs, as widened; ``out``: output channels.
    """

    first: Tensor
    constant: Tensor
    weight: Tensor
    bias: Tensor
    widths: tuple[int, ...]
    out: int

    def later(self, layer: int) -> tuple[Tensor, Tensor]:
        """``weight`` and ``bias`` from the layer between hidden layers ``layer`` and ``layer`` + 1 on."""
        pairs = zip(self.widths[:layer], self.widths[1 : layer + 1], strict=True)
        return self.weight[sum(a * b for a, b in pairs) :], self.bias[sum(self.widths[1 : layer + 1]) :]


def prepare(
    mlp_weights: Sequence[Tensor],
    mlp_biases: Sequence[Tensor],
    cell: Tensor,
    heads: int,
    area: int,
    dtype: torch.dtype,
) -> Layers:
    """Lay out an MLP for maps of ``dtype``; ``cell`` (B, 2) in half feature pixels."""
    first = mlp_weights[0]
    hidden = first.shape[0]
    widths = tuple(max(16, power_of_two(w.shape[0])) for w in mlp_weights)
    blocks = first[:, :-2].to(dtype).reshape(hidden, area, heads, -1).permute(2, 1, 3, 0)
    blocks = blocks.reshape(heads * area, -1, hidden)
    rows = -(-heads * area // PRODUCTS) * PRODUCTS
    constant = cell.float() @ first[:, -2:].float().T + mlp_biases[0].float()
    later = zip(mlp_weights[1:], widths[:-1], widths[1:], strict=True)
    weights = [_widened(w.to(dtype).T, before, after).flatten() for w, before, after in later]
    biases = [_widened(b.float(), n) for b, n in zip(mlp_biases[1:], widths[1:], strict=True)]
    return Layers(
        _widened(blocks, rows, width_block(blocks.shape[1]), widths[0]),
        _widened(constant, constant.shape[0], widths[0]),
        torch.cat(weights),
        torch.cat(biases),
        widths,
        mlp_weights[-1].shape[0],
    )


def segments(layers: Layers, one_by_one: bool) -> list[tuple[int, int]]:
    """The layers after the first that one launch takes, as (start, stop) indices into ``widths``.

    A layer whose whole matrix fits on chip follows in the launch before it, unless ``one_by_one`` asks for
    every hidden layer to be written.
    """
    pairs = list(zip(layers.widths[:-1], layers.widths[1:], strict=True))
    starts = [i for i, (a, b) in enumerate(pairs) if i == 0 or one_by_one or a * b > CHAINED]
    return list(zip(starts, [*starts[1:], len(pairs)], strict=True))


def padded_map(v: Tensor, heads: int, radius: int, below: int, right: int) -> Tensor:
    """Map (B, C, h, w) as (B, h + 2 radius + below, w + 2 radius + right, H * c rounded up), zeros around it.

    One copy; in exchange the kernel reads windows without asking where the map ends.
    """
    batch, channels, h, w = v.shape
    width = channels // heads
    block = width_block(width)
    size = (batch, h + 2 * radius + below, w + 2 * radius + right, heads, block)
    out = v.new_zeros(size)
    inner = out[:, radius : radius + h, radius : radius + w, :, :width]
    inner.copy_(v.permute(0, 2, 3, 1).unflatten(-1, (heads, width)))
    return out.flatten(3)


def _widened(tensor: Tensor, *sizes: int) -> Tensor:
    """``tensor`` with zeros behind, contiguous, as large as ``sizes``."""
    missing = [n - m for n, m in zip(reversed(sizes), reversed(tensor.shape), strict=True)]
    if not any(missing):
        return tensor.contiguous()
    return F.pad(tensor, [amount for n in missing for amount in (0, n)])
