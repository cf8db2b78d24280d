"""A model small enough to train in milliseconds."""

import torch

from clit_zoo.model import SuperResolver
from clit_zoo.zoo.config import ModelConfig

PATCH = 16


def tiny_model(stages: int = 1, seed: int = 0) -> SuperResolver:
    """A model with random weights."""
    torch.manual_seed(seed)
    decoder = {"name": "clit", "dim": 8, "heads": 2, "radius": 1, "stages": stages, "hidden_dims": [16, 16]}
    return SuperResolver(ModelConfig("tiny", {"name": "edsr", "channels": 8, "blocks": 1}, decoder))
