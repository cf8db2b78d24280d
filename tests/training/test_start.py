"""What a run starts from."""

import re

import pytest
import torch

import clit_zoo
from clit_zoo.errors import ModelNotFoundError, WeightsNotFoundError
from clit_zoo.training.start import starting_model


def test_from_scratch_by_name_or_folder(tiny):
    (a, words, _), (b, *_) = (starting_model("edsr-light-clit", from_scratch=True, seed=s) for s in (0, 1))
    assert words == "random weights"
    assert a.config == clit_zoo.create_model("edsr-light-clit").config
    assert not torch.equal(a.decoder.conv_ch.weight, b.decoder.conv_ch.weight)
    again, *_ = starting_model("edsr-light-clit", from_scratch=True, seed=0)
    assert torch.equal(a.decoder.conv_ch.weight, again.decoder.conv_ch.weight)
    (loaded, *_), (fresh, *_) = starting_model(tiny), starting_model(tiny, from_scratch=True, seed=7)
    assert loaded.config == fresh.config
    assert not torch.equal(loaded.decoder.conv_ch.weight, fresh.decoder.conv_ch.weight)
    with pytest.raises(ModelNotFoundError, match="Did you mean 'rdn-clit'"):
        starting_model("rdn-clitt", from_scratch=True)
    with pytest.raises(ModelNotFoundError, match=re.escape(str(tiny.parent))):
        starting_model(tiny.parent, from_scratch=True)


def test_a_cascade_of_a_registered_model_takes_its_name(tmp_path):
    def named(source, **options):
        return starting_model(source, **options)[0].config.name

    folder = clit_zoo.create_model("edsr-light-lit").save_pretrained(tmp_path / "x")
    assert named(folder) == "edsr-light-lit-finetuned"
    assert named(folder, from_scratch=True) == "edsr-light-lit"
    assert named(folder, stages=3, from_scratch=True) == "edsr-light-clit"
    model, words, _ = starting_model(folder, stages=3)
    assert model.config.name == "edsr-light-clit-finetuned"
    assert words == "the weights of edsr-light-lit (x), made a cascade of 3 stages (new ones: copy)"
    assert named(folder, stages=2) == "edsr-light-lit-finetuned"
    assert named(folder, stages=2, name="mine") == "mine"
    again = model.save_pretrained(tmp_path / "y" / "model")
    assert named(again) == "edsr-light-clit-finetuned"
    model.config = model.config.with_overrides(name="mine")
    assert named(model.save_pretrained(tmp_path / "z")) == "mine"
    assert starting_model("edsr-light-lit")[1] == "the weights of edsr-light-lit"


def test_a_model_without_weights_says_how_to_train_it(monkeypatch):
    monkeypatch.setattr("clit_zoo.zoo.registry.embedded_folder", lambda name: None)
    monkeypatch.setitem(
        clit_zoo.zoo.registry.REGISTRY,
        "bare",
        clit_zoo.zoo.registry.Entry("bare", clit_zoo.zoo.registry.get("rdn-lit").config, 1, ""),
    )
    with pytest.raises(WeightsNotFoundError, match="--from-scratch"):
        starting_model("bare")
