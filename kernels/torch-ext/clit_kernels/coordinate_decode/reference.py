"""Decode attention-scaled values at coordinates: the formula, literally.

    R(q) = MLP( [a(q, h, k) v(p0 + k)_h  for all k, h, c], cell ) + gain * R_previous(q)

Chen et al., CVPR 2023, equations 3, 4 and 9: the attention scales the K*K values, which are not summed.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..own_precision import own_precision
from ..queries import Queries, as_points, gather_pixels, tap_offsets


@own_precision
def coordinate_decode_reference(
    weights: Tensor,
    v: Tensor,
    queries: Queries,
    mlp_weights: Sequence[Tensor],
    mlp_biases: Sequence[Tensor],
    cell: Tensor,
    *,
    previous: Tensor | None = None,
    gain: float = 0.75,
    upcast: torch.dtype | None = None,
) -> Tensor:
    """Values (B, Q, out) from attention weights (B, Q, H, K*K) and v (B, C, h, w), computed in ``upcast``.

    ``cell`` (B, 2) is the size of an output pixel in half feature pixels; ``mlp_weights[0]`` is
    (D, K*K*C + 2) with its inputs ordered tap, head, channel, then cell (y, x).
    """
    dtype = upcast or v.dtype
    weights, v, cell = weights.to(dtype), v.to(dtype), cell.to(dtype)
    batch, count, heads, area = weights.shape
    points = as_points(queries, batch)
    taps = tap_offsets((int(area**0.5) - 1) // 2, v.device)

    values = gather_pixels(v, points.index.unsqueeze(2) + taps).unflatten(-1, (heads, -1))
    scaled = values * weights.transpose(2, 3).unsqueeze(-1)  # (B, N, K*K, H, c)
    x = torch.cat((scaled.flatten(2), cell.unsqueeze(1).expand(-1, count, -1)), -1)
    last = len(mlp_weights) - 1
    for i, (weight, bias) in enumerate(zip(mlp_weights, mlp_biases, strict=True)):
        x = F.linear(x, weight.to(dtype), bias.to(dtype))
        x = x if i == last else F.gelu(x)
    return x if previous is None else x + gain * previous.to(dtype)
