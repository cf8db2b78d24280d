"""The model a run starts from: loaded or new, as it is or with more stages, under a name of its own."""

import os
from pathlib import Path
from typing import NamedTuple

import torch

from ..model import SuperResolver
from ..pretrained import from_pretrained
from ..zoo import registry
from ..zoo.config import ModelConfig
from ..zoo.folder import CONFIG_FILE
from .cascade import with_stages
from .grow import grow

FINETUNED = "-finetuned"


class Start(NamedTuple):
    """A model in float32 on the CPU, ready to train, and what a card says of it.

    ``new_decoder``: the encoder is a trained one and the decoder has random weights (``begin_decoder``).
    """

    model: SuperResolver
    words: str
    new_decoder: bool = False


def starting_model(
    source: str | os.PathLike[str],
    *,
    from_scratch: bool = False,
    grow_from: str | os.PathLike[str] | None = None,
    stages: int | None = None,
    new_stages: str = "copy",
    name: str | None = None,
    seed: int = 0,
    backend: str = "auto",
) -> Start:
    """The model that a run starts from.

    Args:
        source: a registered name, a folder or a Hub repository; with ``from_scratch`` a registered name or a
            folder with a config.json.
        from_scratch: random weights.
        grow_from: another model, whose encoder the new one grows from (``grow``); its decoder too where
            alike.
        stages: make it a cascade of so many.
        new_stages: "copy" or "random", see ``cascade.with_stages``.
        name: what the result is called; by default the source's name (that of a registered model of its
            settings where the stages are others or the weights random), with "-finetuned" after a registered
            one: its pictures and figures must not pass for those of the model that everybody has.
        seed: of the random weights.
        backend: who computes the decoder.

    Raises:
        ClitZooError: there is no such model, it has no weights, or stages cannot be had.
    """
    torch.manual_seed(seed)
    random, new_decoder = from_scratch and grow_from is None, False
    words = "random weights" if random else f"the weights of {_name_of_source(source)}"
    if grow_from is not None:
        words = f"the weights of {_name_of_source(grow_from)}, grown"
        small = from_pretrained(grow_from, device="cpu", dtype="float32", backend=backend)
        model = grow(small, _config_of(source))
        new_decoder = small.config.decoder != model.config.decoder
    elif random:
        model = SuperResolver(_config_of(source), backend=backend)
    else:
        model = from_pretrained(source, device="cpu", dtype="float32", backend=backend)
    if stages is not None:
        model = with_stages(model, stages, new_stages)
        words += "" if random else f", made a cascade of {stages} stages (new ones: {new_stages})"
    model.config = model.config.with_overrides(
        name=name or _new_name(model.config, random or grow_from is not None)
    )
    return Start(model, words, new_decoder)


def _name_of_source(source: str | os.PathLike[str]) -> str:
    """What a card calls the model at ``source``: no folders of this machine, which readers do not have."""
    text = os.fspath(source)
    if not (Path(text) / CONFIG_FILE).is_file():
        return text
    return f"{ModelConfig.from_json(Path(text) / CONFIG_FILE).name} ({Path(text).resolve().name})"


def _new_name(config: ModelConfig, from_scratch: bool) -> str:
    known = registry.name_of(config)
    if from_scratch:
        return known or config.name
    name = config.name.removesuffix(FINETUNED)
    if name not in registry.REGISTRY:
        return config.name
    return (known or name) + FINETUNED


def _config_of(source: str | os.PathLike[str]) -> ModelConfig:
    name, file = os.fspath(source), Path(source) / CONFIG_FILE
    if name not in registry.REGISTRY and file.is_file():
        return ModelConfig.from_json(file)
    return registry.get(name).config
