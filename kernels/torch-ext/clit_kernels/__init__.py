"""Fast local-attention queries and coordinate decoding for implicit super-resolution."""

from .backends import BACKENDS
from .coordinate_decode import coordinate_decode
from .decode_stage import StageWeights, decode_stage
from .local_attention import local_attention
from .queries import Grid, Points, Queries, Raster

__all__ = [
    "BACKENDS",
    "Grid",
    "Points",
    "Queries",
    "Raster",
    "StageWeights",
    "coordinate_decode",
    "decode_stage",
    "local_attention",
]
