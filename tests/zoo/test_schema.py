"""The tables of settings against the modules they describe: names, defaults, and the size that is bounded."""

import inspect

import pytest
import torch

from clit_zoo import decoders, encoders
from clit_zoo.zoo import schema as settings
from clit_zoo.zoo.config import ModelConfig

CASES = [
    ({"name": "edsr"}, {"name": "clit", "stages": 3}),
    ({"name": "edsr", "channels": 7, "blocks": 2}, {"name": "clit", "dim": 24, "heads": 3, "radius": 0}),
    ({"name": "rdn"}, {"name": "clit", "hidden_dims": [16]}),
    ({"name": "rdn", "channels": 5, "blocks": 3, "layers": 2, "growth": 9}, {"name": "clit", "radius": 2}),
    ({"name": "swinir"}, {"name": "clit"}),
    (
        {
            "name": "swinir",
            "channels": 24,
            "depths": [2, 1],
            "heads": [2, 4],
            "window": 5,
            "mlp_ratio": 1.5,
            "out_channels": 9,
        },
        {"name": "clit", "dim": 16, "heads": 2, "stages": 2, "hidden_dims": [8, 24]},
    ),
]


@pytest.mark.parametrize("encoder, decoder", CASES)
def test_parameters_are_counted_exactly(encoder, decoder):
    config = ModelConfig("x", encoder, decoder)
    with torch.device("meta"):
        first = encoders.build_encoder(**config.encoder)
        second = decoders.build_decoder(
            config.decoder["name"],
            first.out_channels,
            **{key: value for key, value in config.decoder.items() if key != "name"},
        )
    built = [*first.parameters(), *second.parameters()]
    assert config.parameters == sum(parameter.numel() for parameter in built)


def test_every_part_has_a_row():
    assert settings.ENCODERS.keys() == encoders.ENCODERS.keys()
    assert settings.DECODERS.keys() == decoders.DECODERS.keys()


@pytest.mark.parametrize("name", settings.ENCODERS)
def test_encoder_defaults_agree(name):
    """The class alone (build_encoder) and the configuration start from the same values."""
    known = inspect.signature(encoders.ENCODERS[name]).parameters
    rows = settings.ENCODERS[name].settings
    assert rows.keys() == known.keys()
    for key, setting in rows.items():
        default = known[key].default
        assert setting.default == (tuple(default) if isinstance(default, list) else default), key
