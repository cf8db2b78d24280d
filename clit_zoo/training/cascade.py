"""Stages of a CLIT decoder: added, kept, copied, frozen. Nothing else here knows which decoder has them."""

from collections.abc import Iterator
from typing import cast

import torch
from torch import nn

from ..decoders.clit import CLIT, GAIN
from ..decoders.mlp import MLP
from ..errors import ConfigError
from ..model import SuperResolver
from ..zoo.schema import require

NEW_STAGES = ("copy", "random")


def stages_of(model: SuperResolver) -> int:
    """The number of stages; 1 for a decoder that has none, as it trains like one stage."""
    cascade = _cascade(model)
    return 1 if cascade is None else cascade.stages


def cascade_of(model: SuperResolver) -> CLIT:
    """The decoder, if its stages can be added, kept and frozen.

    Raises:
        ConfigError: it has none.
    """
    cascade = _cascade(model)
    if cascade is None:
        raise ConfigError(
            f"{model.config.name} has the decoder {model.config.decoder['name']!r}, which has no stages: "
            "leave out --stages and --freeze-stages."
        )
    return cascade


def _cascade(model: SuperResolver) -> CLIT | None:
    return model.decoder if isinstance(model.decoder, CLIT) else None


def with_stages(model: SuperResolver, stages: int, new_stages: str = "copy") -> SuperResolver:
    """The model as a cascade of more stages.

    Args:
        model: with fewer stages, or as many, which then changes nothing.
        stages: how many it shall have.
        new_stages: "random" initialises the new ones as a new model's, which is what the authors' code does
            when it loads a one-stage checkpoint. "copy" starts them from the last trained stage, so that the
            cascade R <- MLP + 0.75 R starts out near the model it came from: a one-stage model's output layer
            times 1 - 0.75, as it predicts all of R; a later stage's as it is, as it adds what is missing.

    Raises:
        ConfigError: the decoder has no stages, or more of them already.
    """
    require(new_stages in NEW_STAGES, "new_stages", new_stages, f"one of {', '.join(NEW_STAGES)}")
    have = cascade_of(model).stages
    require(stages >= have, "stages", stages, f"{have} or more, which {model.config.name} has already")
    if stages == have:
        return model
    longer = _resized(model, stages)
    longer.load_state_dict({**longer.state_dict(), **model.state_dict()})
    if new_stages == "copy":
        for i in range(have, stages):
            _copy_stage(cascade_of(longer), have - 1, i, output=1 - GAIN if have == 1 else 1.0)
    return longer.to(model.device, model.dtype).train(model.training)


def first_stages(model: SuperResolver, stages: int) -> SuperResolver:
    """A cascade's first stages as a model of their own, with copies of its weights.

    Args:
        model: with at least so many stages; it stays as it is.
        stages: how many to keep, from 1.

    Raises:
        ConfigError: the decoder has no stages, or fewer.
    """
    have = cascade_of(model).stages
    require(1 <= stages <= have, "stages", stages, f"1 to {have}, which {model.config.name} has")
    shorter = _resized(model, stages)
    kept = shorter.state_dict().keys()
    shorter.load_state_dict({name: value for name, value in model.state_dict().items() if name in kept})
    return shorter.to(model.device, model.dtype).train(model.training)


def stage_parameters(model: SuperResolver, first: int) -> Iterator[nn.Parameter]:
    """The parameters of the stages from number ``first`` on, counted from 0, without what all share.

    Raises:
        ConfigError: the decoder has no stages.
    """
    for stages in cascade_of(model).per_stage():
        for module in stages[first:]:
            yield from module.parameters()


def _resized(model: SuperResolver, stages: int) -> SuperResolver:
    config = model.config.with_overrides(decoder={"stages": stages})
    return SuperResolver(config, backend=model.backend)


@torch.no_grad()
def _copy_stage(decoder: CLIT, source: int, target: int, *, output: float) -> None:
    """Overwrite a stage's weights with another's, those of the MLP's last layer times ``output``."""
    for stages in decoder.per_stage():
        stages[target].load_state_dict(stages[source].state_dict())
    for p in cast(MLP, decoder.imnets[target]).linears()[-1].parameters():
        p.mul_(output)
