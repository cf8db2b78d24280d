"""One stage of CLIT at coordinates: local attention, then the decoder; the formulas, one after the other."""

import torch
from torch import Tensor

from ..calls import StageCall
from ..coordinate_decode.reference import coordinate_decode_reference
from ..local_attention.reference import local_attention_reference
from ..queries import as_points

CHUNK = 30_000
"""Queries at a time, as the published evaluation does: K*K*C values of each exist at once."""


def decode_stage_reference(
    call: StageCall, *, upcast: torch.dtype | None = None, chunk: int = CHUNK
) -> Tensor:
    """Residual (B, Q, out) of one stage, in the published order of work."""
    points = as_points(call.queries, call.q.shape[0])
    parts = []
    for start in range(0, max(1, points.count), chunk):
        part = call.part(points, start, start + chunk)
        attention = local_attention_reference(part.attention(), upcast=upcast)
        parts.append(coordinate_decode_reference(part.decoding(attention), upcast=upcast))
    return torch.cat(parts, 1)
