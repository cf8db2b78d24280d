"""Stages of a cascade, taken apart for training: which parameters are one stage's, and copies of stages."""

from collections.abc import Iterator
from typing import cast

import torch
from torch import nn

from ..decoders.base import Decoder
from ..decoders.clit import CLIT
from ..decoders.mlp import MLP
from ..errors import ConfigError


def stages_of(decoder: Decoder) -> int:
    """How many stages a decoder has: 1 but for a cascade."""
    return decoder.stages if isinstance(decoder, CLIT) else 1


def stage_parameters(decoder: Decoder, first: int) -> Iterator[nn.Parameter]:
    """The parameters of the stages from number ``first`` on, counted from 0, without what all share."""
    for stages in _cascade(decoder).per_stage():
        for module in stages[first:]:
            yield from module.parameters()


@torch.no_grad()
def copy_stage(decoder: Decoder, source: int, target: int, *, output: float = 1.0) -> None:
    """Overwrite a stage's weights with another's, those of the MLP's last layer times ``output``."""
    decoder = _cascade(decoder)
    for stages in decoder.per_stage():
        stages[target].load_state_dict(stages[source].state_dict())
    for p in cast(MLP, decoder.imnets[target]).linears()[-1].parameters():
        p.mul_(output)


def _cascade(decoder: Decoder) -> CLIT:
    if not isinstance(decoder, CLIT):
        raise ConfigError(
            f"{type(decoder).__name__} has no stages to freeze or to copy: leave those options out"
        )
    return decoder
