"""Fast local-attention queries and coordinate decoding for implicit super-resolution."""

from .backends import BACKENDS
from .calls import AttentionCall, DecodeCall, StageCall, StageWeights
from .coordinate_decode import coordinate_decode
from .decode_stage import decode_stage
from .local_attention import local_attention
from .orders import ORDERS
from .queries import Grid, Points, Queries, Raster

__all__ = [
    "BACKENDS",
    "ORDERS",
    "AttentionCall",
    "DecodeCall",
    "Grid",
    "Points",
    "Queries",
    "Raster",
    "StageCall",
    "StageWeights",
    "coordinate_decode",
    "decode_stage",
    "local_attention",
]
