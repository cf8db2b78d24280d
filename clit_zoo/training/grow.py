"""A larger model that starts as a trained smaller one: blocks are added to its encoder as identities."""

import re

import torch
from torch import Tensor

from ..errors import ConfigError
from ..model import SuperResolver
from ..zoo.config import ModelConfig


@torch.no_grad()
def grow(small: SuperResolver, config: ModelConfig) -> SuperResolver:
    """A model of ``config`` whose encoder computes what ``small``'s does.

    An EDSR gets residual blocks whose last convolution is zero, an RDN dense blocks whose fusion is zero,
    with zero columns in the global fusion: both add nothing until they are trained. The decoder is taken over
    where its settings are the same, and then the whole model computes the same; else it is a new one, which
    ``freeze_encoder`` lets settle for some hundred steps.

    Args:
        small: a trained model; it stays as it is.
        config: of the larger one: the same encoder with as many blocks or more.

    Raises:
        ConfigError: the encoders differ in more than their blocks, or this kind cannot be grown.
    """
    old, new = small.config.encoder, config.encoder
    if {**old, "blocks": 0} != {**new, "blocks": 0} or "blocks" not in old or old["blocks"] > new["blocks"]:
        raise ConfigError(
            f"{config.name} cannot be grown from {small.config.name}: an EDSR or RDN encoder grows from one "
            "that has fewer blocks and is otherwise the same"
        )
    large = SuperResolver(config, backend=small.backend)
    weights = large.state_dict()
    blocks = old["blocks"]
    for name, value in small.state_dict().items():
        if name.startswith("encoder."):
            name = re.sub(rf"^encoder\.body\.{blocks}\.", f"encoder.body.{new['blocks']}.", name)
            _take(weights[name], value)
        elif small.config.decoder == config.decoder:
            weights[name].copy_(value)
    for i in range(blocks, new["blocks"]):
        for name in (f"encoder.body.{i}.body.2", f"encoder.RDBs.{i}.LFF"):
            for part in ("weight", "bias"):
                if f"{name}.{part}" in weights:
                    weights[f"{name}.{part}"].zero_()
    large.load_state_dict(weights)
    return large.to(small.device, small.dtype)


@torch.no_grad()
def begin_decoder(model: SuperResolver, image: Tensor) -> None:
    """Let a new decoder on a trained encoder start near an interpolation of the picture.

    Decoders that add to the picture start there. LIIF and others give whole colours, which an encoder trained
    behind one that adds hardly tells: a linear map of such features finds the picture to 31 dB. An
    ``edsr-light-liif`` on ``edsr-light-lit``'s encoder had the loss after 60 steps so that it had after 450
    from random weights.

    Args:
        model: as ``grow`` makes it.
        image: (B, 3, h, w) patches in [0, 1].
    """
    seen = model.decoder.normalise(image.to(model.device, model.dtype))
    model.decoder.begin(model.encoder(seen), seen)


def _take(target: Tensor, value: Tensor) -> None:
    """Copy ``value`` into the first input channels of ``target``; the others, of new blocks, are zero."""
    if target.shape != value.shape:
        target.zero_()
    target[:, : value.shape[1]].copy_(value) if value.dim() > 1 else target.copy_(value)
