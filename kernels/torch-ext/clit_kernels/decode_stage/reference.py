"""One stage of CLIT at coordinates: local attention, then the decoder; the formulas, one after the other."""

import torch
from torch import Tensor

from ..coordinate_decode.reference import coordinate_decode_reference
from ..local_attention.reference import local_attention_reference
from ..own_precision import own_precision
from ..queries import Points, Queries, as_points
from .weights import StageWeights

CHUNK = 30_000
"""Queries at a time, as the published evaluation does: K*K*C values of each exist at once."""


@own_precision
def decode_stage_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    queries: Queries,
    stage: StageWeights,
    cell: Tensor,
    *,
    previous: Tensor | None = None,
    gain: float = 0.75,
    upcast: torch.dtype | None = None,
    chunk: int = CHUNK,
) -> Tensor:
    """Residual (B, Q, out) of one stage, in the published order of work."""
    points = as_points(queries, q.shape[0])
    parts = []
    for start in range(0, points.count, chunk):
        part = Points(points.index[:, start : start + chunk], points.offset[:, start : start + chunk])
        before = None if previous is None else previous[:, start : start + chunk]
        weights = local_attention_reference(
            q, k, part, stage.proj_weight, stage.proj_bias,
            heads=stage.heads, radius=stage.radius, upcast=upcast,
        )  # fmt: skip
        out = coordinate_decode_reference(
            weights, v, part, stage.mlp_weights, stage.mlp_biases, cell,
            previous=before, gain=gain, upcast=upcast,
        )  # fmt: skip
        parts.append(out)
    return torch.cat(parts, 1) if parts else v.new_zeros(v.shape[0], 0, stage.mlp_weights[-1].shape[0])
