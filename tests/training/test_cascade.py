"""Stages of a cascade: added, kept, frozen."""

import re

import pytest
import torch
from tiny_training import PATCH, tiny_model

from clit_zoo.decoders.clit import GAIN
from clit_zoo.errors import ConfigError
from clit_zoo.training.cascade import first_stages, stages_of, with_stages
from clit_zoo.training.recipe import Recipe
from clit_zoo.training.run import Run


def new_stage(state: dict, name: str) -> bool:
    return any(f"{part}.{i}." in name for part in ("convs", "qs", "ks", "vs", "imnets") for i in (1, 2))


@pytest.mark.parametrize("how", ["copy", "random"])
def test_old_stages_keep_their_weights(how):
    short = tiny_model()
    long = with_stages(short, 3, how)
    assert long.config.decoder["stages"] == 3 and long.config.name == "tiny"
    old, new = short.state_dict(), long.state_dict()
    assert all(torch.equal(new[name], old[name]) for name in old)
    added = sorted(set(new) - set(old))
    assert len(added) == 2 * (3 * 2 + 3 * 2) and all(new_stage(new, name) for name in added)
    for name in added:
        source = old[re.sub(r"(imnets|conv_.s)\.\d", r"\1.0", name)]
        share = 1 - GAIN if "imnets" in name and "layers.4." in name else 1
        assert torch.equal(new[name], source * share) == (how == "copy")


def test_a_copied_cascade_starts_near_the_model_it_came_from():
    """At ×1, where all maps are the same, it is that model exactly."""
    short = tiny_model()
    image, coords = torch.rand(1, 3, 16, 16), torch.rand(1, 50, 2) * 2 - 1
    cell = torch.full((1, 2), 2 / 16)
    expected = short.query(image, coords, cell, maps=[(16, 16)])
    for stages in (2, 3):
        long = with_stages(short, stages, "copy")
        torch.testing.assert_close(long.query(image, coords, cell, maps=[(16, 16)] * stages), expected)
    stepwise = with_stages(with_stages(short, 2, "copy"), 3, "copy")
    torch.testing.assert_close(stepwise.query(image, coords, cell, maps=[(16, 16)] * 3), expected)
    long = with_stages(short, 3, "random")
    assert not torch.allclose(long.query(image, coords, cell, maps=[(16, 16)] * 3), expected, atol=1e-3)


def test_stages_are_not_dropped():
    with pytest.raises(ConfigError, match=r"stages is 1; allowed is 3 or more, which tiny has already"):
        with_stages(tiny_model(3), 1)
    model = tiny_model(2)
    assert with_stages(model, 2) is model


def test_a_cascade_stays_as_the_model_was():
    for how in ("copy", "random"):
        model = with_stages(tiny_model().half().eval(), 2, how)
        assert model.dtype == torch.float16 and not model.training


def test_first_stages_are_the_model_itself_up_to_their_factors():
    """A cascade takes as many stages as its factor needs: up to ×4 the first alone."""
    long = tiny_model(3)
    image = torch.rand(1, 3, 8, 9)
    for stages, size in ((1, (32, 20)), (2, (100, 144))):
        short = first_stages(long, stages)
        assert short.config.decoder["stages"] == stages and short.training == long.training
        torch.testing.assert_close(short(image, size), long(image, size), rtol=0, atol=0)
    with pytest.raises(ConfigError, match=r"stages is 4; allowed is 1 to 3"):
        first_stages(long, 4)


@pytest.mark.parametrize(
    ("settings", "trained"),
    [
        ({}, {"encoder", "conv_ch", "pb_encoder", "0", "1", "2"}),
        ({"freeze_encoder": True}, {"conv_ch", "pb_encoder", "0", "1", "2"}),
        ({"freeze_stages": 1}, {"1", "2"}),
        ({"freeze_stages": 2, "freeze_encoder": True}, {"2"}),
    ],
)
def test_what_is_frozen(settings, trained):
    model = tiny_model(3)
    Recipe(steps=1, **settings).freeze(model)
    found = set()
    for name, p in model.named_parameters():
        stage = re.search(r"(?:imnets|conv_.s)\.(\d)", name)
        if p.requires_grad:
            found.add(stage[1] if stage else name.removeprefix("decoder.").split(".")[0])
    assert found == trained


def test_frozen_stages_leave_small_factors_as_they_were(photographs, tmp_path):
    model = with_stages(tiny_model(), 3)
    image = torch.rand(1, 3, 12, 13)
    with torch.inference_mode():
        small, large = model(image, (40, 50)), model(image, (90, 100))
    recipe = Recipe(steps=4, batch=2, patch=PATCH, freeze_stages=1, lr=1e-3)
    Run(model, recipe, photographs, tmp_path, tensorboard=False, progress=False).train()
    with torch.inference_mode():
        assert torch.equal(model(image, (40, 50)), small)
        assert not torch.allclose(model(image, (90, 100)), large, atol=1e-4)


def test_other_decoders_have_no_stages(photographs, tmp_path):
    model = tiny_model(decoder="liif")
    assert stages_of(model) == 1
    for refused in (
        lambda: with_stages(model, 2),
        lambda: first_stages(model, 1),
        lambda: Run(model, Recipe(steps=1, freeze_stages=1), photographs, tmp_path),
    ):
        with pytest.raises(ConfigError, match=r"^tiny has the decoder 'liif', which has no stages: leave"):
            refused()
