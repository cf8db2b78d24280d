"""The model a run starts from: loaded or new, as it is or with more stages."""

import os
from pathlib import Path

import torch

from ..decoders.clit import GAIN
from ..errors import ConfigError, ModelNotFoundError, WeightsNotFoundError
from ..model import SuperResolver
from ..pretrained import from_pretrained
from ..zoo import registry
from ..zoo.config import ModelConfig
from ..zoo.folder import CONFIG_FILE
from .cascade import copy_stage, stages_of

NEW_STAGES = ("copy", "random")
FINETUNED = "-finetuned"


def starting_model(
    source: str | os.PathLike[str],
    *,
    from_scratch: bool = False,
    stages: int | None = None,
    new_stages: str = "copy",
    name: str | None = None,
    seed: int = 0,
) -> SuperResolver:
    """A model in float32 on the CPU, ready to train.

    Args:
        source: a registered name, a folder or a Hub repository; with ``from_scratch`` a registered name or a
            folder with a config.json.
        from_scratch: random weights.
        stages: make it a cascade of so many, see ``with_stages``.
        new_stages: "copy" or "random".
        name: what the result is called; by default the source's name (that of a registered model of its
            settings where the stages are others or the weights random), with "-finetuned" after a registered
            one: its pictures and figures must not pass for those of the model that everybody has.
        seed: of the random weights.

    Raises:
        ClitZooError: there is no such model, it has no weights, or stages cannot be had.
    """
    torch.manual_seed(seed)
    if from_scratch:
        model = SuperResolver(_config_of(source))
    else:
        try:
            model = from_pretrained(source, device="cpu", dtype="float32")
        except WeightsNotFoundError as error:
            raise WeightsNotFoundError(f"{error} To train it from random weights: --from-scratch.") from error
    if stages is not None:
        model = with_stages(model, stages, new_stages)
    model.config = model.config.with_overrides(name=name or _new_name(model.config, from_scratch))
    return model


def name_of_source(source: str | os.PathLike[str]) -> str:
    """What a card calls the model at ``source``: no folders of this machine, which readers do not have."""
    text = os.fspath(source)
    if not (Path(text) / CONFIG_FILE).is_file():
        return text
    return f"{ModelConfig.from_json(Path(text) / CONFIG_FILE).name} ({Path(text).resolve().name})"


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
        ConfigError: the model has more stages already.
    """
    if new_stages not in NEW_STAGES:
        raise ConfigError(f"new stages {new_stages!r} is none of {', '.join(NEW_STAGES)}.")
    have = stages_of(model.decoder)
    if stages < have:
        raise ConfigError(f"{model.config.name} has {have} stages already; {stages} would drop trained ones.")
    if stages == have:
        return model
    longer = SuperResolver(model.config.with_overrides(decoder={"stages": stages}), backend=model.backend)
    longer.load_state_dict({**longer.state_dict(), **model.state_dict()})
    if new_stages == "copy":
        for i in range(have, stages):
            copy_stage(longer.decoder, have - 1, i, output=1 - GAIN if have == 1 else 1.0)
    return longer.to(model.device, model.dtype).train(model.training)


def first_stages(model: SuperResolver, stages: int) -> SuperResolver:
    """A cascade's first stages as a model of their own, with copies of its weights.

    Args:
        model: with at least so many stages; it stays as it is.
        stages: how many to keep, from 1.

    Raises:
        ConfigError: the model has fewer.
    """
    have = stages_of(model.decoder)
    if not 1 <= stages <= have:
        raise ConfigError(f"{model.config.name} has {have} stages, and {stages} of them cannot be kept.")
    shorter = SuperResolver(model.config.with_overrides(decoder={"stages": stages}), backend=model.backend)
    kept = shorter.state_dict().keys()
    shorter.load_state_dict({name: value for name, value in model.state_dict().items() if name in kept})
    return shorter.to(model.device, model.dtype).train(model.training)


def _new_name(config: ModelConfig, from_scratch: bool) -> str:
    known = registry.name_of(config)
    if from_scratch:
        return known or config.name
    name = config.name.removesuffix(FINETUNED)
    if name not in registry.REGISTRY:
        return config.name
    return (known or name) + FINETUNED


def _config_of(source: str | os.PathLike[str]) -> ModelConfig:
    text = os.fspath(source)
    if text in registry.REGISTRY:
        return registry.get(text).config
    if (Path(text) / CONFIG_FILE).is_file():
        return ModelConfig.from_json(Path(text) / CONFIG_FILE)
    if os.path.exists(text):
        raise ModelNotFoundError(f"{text} holds no {CONFIG_FILE}: name a registered model.")
    return registry.get(text).config  # raises, with the names that are close
