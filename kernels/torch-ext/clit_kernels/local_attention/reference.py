"""Local attention of a query over the K x K feature pixels around it: the formula, literally.

    a(q, h, k) = softmax_k( <q(x)_h, k(p0 + k)_h> / sqrt(C / H) + B_h(delta) )

Chen et al., CVPR 2023, equations 2 to 7. Keys outside the map are zero and stay in the softmax.
"""

import math

import torch
from torch import Tensor

from ..calls import AttentionCall
from ..no_autocast import no_autocast
from ..position_bias import encode
from ..queries import as_points, gather_pixels, sample_bilinear, tap_offsets


@no_autocast
def local_attention_reference(call: AttentionCall, *, upcast: torch.dtype | None = None) -> Tensor:
    """Attention weights (B, Q, heads, K*K), computed in ``upcast`` or in the maps' dtype."""
    dtype = upcast or call.q.dtype
    q, k, proj_weight, proj_bias = (t.to(dtype) for t in (call.q, call.k, call.proj_weight, call.proj_bias))
    batch, channels = q.shape[:2]
    points = as_points(call.queries, batch)
    taps = tap_offsets(call.radius, q.device)

    query = gather_pixels(q, points.index) if call.nearest else sample_bilinear(q, points)
    query = query.unflatten(-1, (call.heads, -1))  # (B, N, H, c)
    keys = gather_pixels(k, points.index.unsqueeze(2) + taps)
    keys = keys.unflatten(-1, (call.heads, -1))  # (B, N, K*K, H, c)
    logits = torch.einsum("bnhc,bnkhc->bnhk", query, keys) / math.sqrt(channels // call.heads)

    # the encoding's arguments reach 7,000 rad: never below float32
    wide = torch.promote_types(dtype, torch.float32)
    relative = 2 * (points.offset.to(wide).unsqueeze(2) - taps.to(wide))
    bias = encode(relative) @ proj_weight.to(wide).T + proj_bias.to(wide)  # (B, N, K*K, H)
    return torch.softmax(logits.to(wide) + bias.transpose(2, 3), -1).to(dtype)
