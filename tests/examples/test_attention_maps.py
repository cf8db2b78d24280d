"""The example that draws where a model looks."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import clit_zoo
import clit_zoo.imaging
from clit_zoo.model import SuperResolver
from clit_zoo.zoo.config import ModelConfig

SCRIPT = Path(__file__).parents[1] / "examples" / "attention_maps.py"


@pytest.fixture
def script():
    if not SCRIPT.exists():
        pytest.skip("needs the examples")
    spec = importlib.util.spec_from_file_location("attention_maps", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def words(tmp_path):
    """A two-stage model and a picture with one edge."""
    torch.manual_seed(0)
    decoder = {"name": "clit", "dim": 8, "heads": 2, "radius": 1, "stages": 2, "hidden_dims": [16]}
    model = SuperResolver(ModelConfig("tiny", {"name": "edsr", "channels": 8, "blocks": 1}, decoder))
    pixels = np.zeros((30, 40, 3), np.uint8)
    pixels[:, 21:] = 255
    Image.fromarray(pixels).save(tmp_path / "edge.png")
    folder = model.save_pretrained(tmp_path / "tiny")
    return [str(tmp_path / "edge.png"), "--model", str(folder), "-o", str(tmp_path / "maps.png")]


def test_the_figure(script, words, tmp_path):
    pytest.importorskip("matplotlib")
    script.main([*words, "--point", "3", "29", "--scale", "9"])
    with Image.open(tmp_path / "maps.png") as figure:
        assert figure.width > figure.height > 400


def test_points_are_taken_on_edges(script, words):
    found = script.strongest_edges(clit_zoo.imaging.read(words[0]).color, 2)
    assert len(set(found)) == 2 and all(x in (20, 21) for x, _ in found)


def test_a_window_is_centred_on_its_point(script):
    image = torch.zeros(1, 3, 5, 7)
    image[..., 2, 4] = 1
    shown = script.window(image, 4.5, 2.5, 3.0, 9)
    assert shown.shape == (9, 9, 3)
    assert bool((shown[3:6, 3:6] == 1).all()) and float(shown.sum()) == 27


def test_mistakes(script, words, monkeypatch):
    pytest.importorskip("matplotlib")
    with pytest.raises(clit_zoo.ClitZooError, match="point 40 3 is outside the picture of 40×30"):
        script.main([*words, "--point", "40", "3"])
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(clit_zoo.ClitZooError, match=r"pip install 'clit-zoo\[viz\]'"):
        script.main(words)
