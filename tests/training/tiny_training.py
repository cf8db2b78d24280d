"""A model small enough to train in milliseconds."""

import torch

from clit_zoo.model import SuperResolver
from clit_zoo.training.patches import Batch
from clit_zoo.zoo.config import ModelConfig

PATCH = 16


def tiny_model(stages: int = 1, seed: int = 0, decoder: str = "clit") -> SuperResolver:
    """A model with random weights."""
    torch.manual_seed(seed)
    cascade = {"dim": 8, "heads": 2, "radius": 1, "stages": stages} if decoder == "clit" else {}
    settings = {"name": decoder, "hidden_dims": [16, 16], **cascade}
    return SuperResolver(ModelConfig("tiny", {"name": "edsr", "channels": 8, "blocks": 1}, settings))


def tensors(batch: Batch) -> list[torch.Tensor]:
    """All of a batch's."""
    return [t for t in (batch.image, batch.target, *batch.where) if isinstance(t, torch.Tensor)]
