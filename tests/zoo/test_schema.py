"""The tables of settings against the classes they describe: names, defaults, rules."""

import inspect

import pytest

from clit_zoo import decoders, encoders
from clit_zoo.zoo import schema

PARTS = [
    *((name, part, encoders.ENCODERS[name]) for name, part in schema.ENCODERS.items()),
    *((name, part, decoders.DECODERS[name]) for name, part in schema.DECODERS.items()),
]


def test_every_part_has_a_row():
    assert schema.ENCODERS.keys() == encoders.ENCODERS.keys()
    assert schema.DECODERS.keys() == decoders.DECODERS.keys()


@pytest.mark.parametrize(("name", "part", "built"), PARTS, ids=[name for name, *_ in PARTS])
def test_settings_and_defaults_agree(name, part, built):
    """The class alone and the configuration start from the same values."""
    known = dict(inspect.signature(built).parameters)
    known.pop("in_channels", None)
    assert part.settings.keys() == known.keys()
    for key, setting in part.settings.items():
        default = known[key].default
        assert setting.default == (tuple(default) if isinstance(default, list) else default), key
        setting.check(setting.default, key)
