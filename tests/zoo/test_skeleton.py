"""What a configuration asks for, found without memory for it."""

import resource
import time

import pytest
import torch

from clit_zoo.errors import ConfigError
from clit_zoo.model import SuperResolver
from clit_zoo.zoo import registry, skeleton
from clit_zoo.zoo.config import ModelConfig
from clit_zoo.zoo.schema import ENCODERS

SMALL = ModelConfig(
    "x",
    {"name": "edsr", "channels": 7, "blocks": 2},
    {"name": "clit", "dim": 24, "heads": 3, "radius": 0, "hidden_dims": [8]},
)


def test_names_and_shapes_are_a_models():
    built = SuperResolver(SMALL).state_dict()
    assert skeleton.shapes(SMALL) == {name: tuple(tensor.shape) for name, tensor in built.items()}
    assert skeleton.parameters(SMALL) == sum(tensor.numel() for tensor in built.values())
    assert all(tensor.is_meta for tensor in skeleton.skeleton(SMALL).state_dict().values())


@pytest.mark.parametrize("name", registry.REGISTRY)
def test_a_rows_number_is_that_of_the_model(name):
    entry = registry.get(name)
    assert skeleton.parameters(entry.config) == entry.parameters


GIANTS = [
    ({"name": "edsr"}, {"name": "clit", "dim": 1024, "radius": 12, "hidden_dims": [2048]}),
    ({"name": "rdn", "blocks": 64, "layers": 32}, {"name": "clit"}),
    ({"name": "swinir", "channels": 512, "depths": [12] * 12, "heads": [64] * 12}, {"name": "clit"}),
]


@pytest.mark.parametrize(("encoder", "decoder"), GIANTS)
def test_a_giant_is_refused_before_it_takes_memory(encoder, decoder):
    """Each setting within its range, too much together."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ConfigError, match=r"[\d,]{11,} parameters; at most 200,000,000"):
        skeleton.parameters(ModelConfig("x", encoder, decoder))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


@pytest.mark.parametrize("name", ENCODERS)
def test_the_most_modules_are_counted_in_seconds(name):
    """As many and as narrow as the ranges allow: the time is that of making modules."""
    most = {
        key: [setting.high] * setting.entries[1] if hasattr(setting, "entries") else setting.high
        for key, setting in ENCODERS[name].settings.items()
        if key in ("blocks", "layers", "depths", "window")
    }
    narrow = {"channels": 8} | {"swinir": {"heads": [1] * 12}, "rdn": {"growth": 8}}.get(name, {})
    config = ModelConfig("x", {"name": name, **most, **narrow}, {"name": "clit", "dim": 8})
    skeleton.skeleton(SMALL)
    start = time.process_time()
    modules = skeleton.skeleton(config)
    assert time.process_time() - start < 20  # 1.2 s, and timm's import
    # Real buffers are made with the real model: what they take is bounded too.
    assert sum(buffer.nbytes for buffer in modules.buffers()) < 100e6
    assert {tensor.device for tensor in modules.state_dict().values()} == {torch.device("meta")}
