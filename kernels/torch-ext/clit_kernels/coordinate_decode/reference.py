"""Decode attention-scaled values at coordinates: the formula, literally.

    R(q) = MLP( [a(q, h, k) v(p0 + k)_h  for all k, h, c], cell ) + gain * R_previous(q) + base(q)

Chen et al., CVPR 2023, equations 3, 4 and 9: the attention scales the K*K values, which are not summed.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..calls import DecodeCall
from ..no_autocast import no_autocast
from ..queries import as_points, gather_pixels, tap_offsets


@no_autocast
def coordinate_decode_reference(call: DecodeCall, *, upcast: torch.dtype | None = None) -> Tensor:
    """Values (B, Q, out), computed in ``upcast`` or in v's dtype."""
    dtype = upcast or call.v.dtype
    attention, v, cell = call.attention.to(dtype), call.v.to(dtype), call.cell.to(dtype)
    batch, count, heads, area = attention.shape
    points = as_points(call.queries, batch)
    taps = tap_offsets((int(area**0.5) - 1) // 2, v.device)

    values = gather_pixels(v, points.index.unsqueeze(2) + taps).unflatten(-1, (heads, -1))
    scaled = values * attention.transpose(2, 3).unsqueeze(-1)  # (B, N, K*K, H, c)
    x = torch.cat((scaled.flatten(2), cell.unsqueeze(1).expand(-1, count, -1)), -1)
    last = len(call.mlp_weights) - 1
    for i, (weight, bias) in enumerate(zip(call.mlp_weights, call.mlp_biases, strict=True)):
        x = F.linear(x, weight.to(dtype), bias.to(dtype))
        x = x if i == last else F.gelu(x)
    if call.previous is not None:
        x = x + call.gain * call.previous.to(dtype)
    return x if call.base is None else x + call.base
