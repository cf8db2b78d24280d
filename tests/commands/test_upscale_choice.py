"""Which model `clit-zoo upscale` takes for each picture, and how it says so."""

import json
import os

import pytest
import torch
from PIL import Image

import clit_zoo
from clit_zoo.choice import CLEAN, PHOTO

LOAD = clit_zoo.from_pretrained


@pytest.fixture
def loaded(monkeypatch, tiny_model):
    """The names loaded; behind every one is the tiny model."""
    names: list[str] = []

    def load(name, **options):
        names.append(name)
        return LOAD(tiny_model, **options)

    monkeypatch.setattr(clit_zoo, "from_pretrained", load)
    monkeypatch.setattr("clit_zoo.choice.from_pretrained", load)
    return names


@pytest.fixture
def pictures(save):
    save("a.png")
    save("b.jpg", quality=60)
    save("c.jpg", quality=97)


def test_each_picture_gets_the_model_that_suits_it(run, loaded, pictures):
    result = run("upscale", "a.png", "b.jpg", "c.jpg", "-o", "out", "-s", "2", "--explain")
    assert result.code == 0 and sorted(loaded) == [CLEAN, PHOTO]
    assert sorted(os.listdir("out")) == [f"a_x2_{CLEAN}.png", f"b_x2_{PHOTO}.jpg", f"c_x2_{CLEAN}.jpg"]
    lines = result.out.splitlines()
    assert f"12×8, {PHOTO} (" in lines[2]
    assert lines[3] == f"  {PHOTO}: JPEG of quality 60, below 88"
    assert lines[5] == f"  {CLEAN}: JPEG of quality 97, noise of 0.0 levels"


def test_a_model_that_is_named_serves_all(run, loaded, pictures):
    result = run("upscale", "a.png", "b.jpg", "-m", CLEAN, "--explain")
    assert result.code == 0 and loaded == [CLEAN] and "quality" not in result.out
    assert os.path.exists(f"a_x4_{CLEAN}.png") and os.path.exists(f"b_x4_{CLEAN}.jpg")


def test_json_says_which_and_why(run, loaded, pictures):
    report = json.loads(run("upscale", "a.png", "b.jpg", "--dry-run", "--json").out)
    assert [picture["model"] for picture in report["pictures"]] == [CLEAN, PHOTO]
    assert report["pictures"][1]["why"] == "JPEG of quality 60, below 88"
    assert all(picture["memory_bytes"] > 0 for picture in report["pictures"]) and not loaded


def test_strength_mixes_the_two(run, loaded, pictures):
    result = run("upscale", "a.png", "b.jpg", "--strength", "0.5")
    assert result.code == 0 and loaded == [CLEAN, PHOTO]
    assert os.path.exists(f"a_x4_{PHOTO}-0.5.png") and os.path.exists(f"b_x4_{PHOTO}-0.5.jpg")
    for options in (["--strength", "1.5"], ["--strength", "0.5", "-m", CLEAN]):
        assert run("upscale", "a.png", *options).code == 2


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
def test_between_is_a_mean_of_weights(monkeypatch, tmp_path, tiny_model, strength):
    clean, photo = LOAD(tiny_model), LOAD(tiny_model)
    with torch.no_grad():
        for parameter in photo.parameters():
            parameter.add_(torch.randn_like(parameter))
    for name, model in ((CLEAN, clean), (PHOTO, photo)):
        model.save_pretrained(tmp_path / name)
    monkeypatch.setattr("clit_zoo.choice.from_pretrained", lambda name, **kw: LOAD(tmp_path / name, **kw))
    from clit_zoo.choice import between

    found = between(strength, dtype="float32").state_dict()
    for (name, a), b in zip(clean.state_dict().items(), photo.state_dict().values()):
        torch.testing.assert_close(found[name], (1 - strength) * a + strength * b)
    with pytest.raises(clit_zoo.ClitZooError, match="not from 0 to 1"):
        between(1.5)


def test_a_picture_that_cannot_be_read_stops_no_other(run, loaded, pictures):
    with open("d.png", "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + bytes(30))
    with Image.open("a.png") as image:
        image.save("e.png")
    with open("e.png", "r+b") as file:
        file.truncate(60)  # the header is whole, so that only choosing finds the damage
    result = run("upscale", "d.png", "e.png", "b.jpg", "-s", "2")
    assert result.code == 1 and "d.png" in result.err and "e.png" in result.err
    assert os.path.exists(f"b_x2_{PHOTO}.jpg")
