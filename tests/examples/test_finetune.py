"""The example of training, for one step."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import clit_zoo.training

SCRIPT = Path(__file__).parents[2] / "examples" / "finetune.py"


@pytest.mark.skipif(not SCRIPT.exists(), reason="needs the examples")
def test_one_step(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (100, 110, 3), dtype=np.uint8)
    (tmp_path / "photographs").mkdir()
    Image.fromarray(noise).save(tmp_path / "photographs" / "a.png")
    recipe = clit_zoo.training.Recipe
    one_step = {"steps": 1, "batch": 1}
    monkeypatch.setattr(clit_zoo.training, "Recipe", lambda **settings: recipe(**{**settings, **one_step}))
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "photographs", "run"])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    with Image.open(tmp_path / "run" / "astronaut_x3.7.png") as large:
        assert large.size == (474, 474)
