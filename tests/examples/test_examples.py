"""The short examples, run as a person runs them."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import clit_zoo
from clit_zoo.zoo.config import ModelConfig

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Run an example in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(name, *words):
        monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
        return runpy.run_path(str(EXAMPLES / name), run_name="__main__")

    return call


@pytest.fixture
def model(tmp_path):
    """A two-stage model's folder."""
    torch.manual_seed(0)
    decoder = {"name": "clit", "dim": 8, "heads": 2, "radius": 1, "stages": 2, "hidden_dims": [16]}
    config = ModelConfig("tiny-clit", {"name": "edsr", "channels": 8, "blocks": 1}, decoder)
    return clit_zoo.SuperResolver(config).save_pretrained(tmp_path / "tiny")


@pytest.fixture
def edge(tmp_path):
    """A picture with one edge, between columns 20 and 21."""
    pixels = np.zeros((30, 40, 3), np.uint8)
    pixels[:, 21:] = 255
    Image.fromarray(pixels).save(tmp_path / "edge.png")
    return tmp_path / "edge.png"


@pytest.mark.parametrize("points", [["--point", 3, 29, "--point", 39, 0], []])
def test_attention_maps(run, model, edge, points):
    pytest.importorskip("matplotlib")
    found = run("attention_maps.py", edge, "--model", model, "--scale", 9, *points, "-o", "maps.png")
    with Image.open("maps.png") as figure:
        assert figure.width > figure.height > 400
    edges = found["strongest_edges"](Image.open(edge), 2)
    assert len(set(edges)) == 2 and all(x in (20, 21) for x, _ in edges)


def test_a_point_outside_of_the_picture(run, model, edge, capsys):
    pytest.importorskip("matplotlib")
    with pytest.raises(SystemExit):
        run("attention_maps.py", edge, "--model", model, "--point", 40, 3)
    assert "outside of the picture of 40×30 pixels" in capsys.readouterr().err


def test_before_after(run, model, edge):
    run("before_after.py", "--picture", edge, "--model", model, "--scale", 2.5, "-o", "sheet.png")
    sheet = np.asarray(Image.open("sheet.png"))
    large = np.asarray(clit_zoo.from_pretrained(model).upscale(Image.open(edge), 2.5))
    # 20 x 15 pixels from column 9 on, three times, 6 pixels apart; 9 * 2.5 = 22.5 goes to the even pixel
    assert sheet.shape == (38, 3 * 50 + 2 * 6, 3)
    assert np.array_equal(sheet[:, -50:], large[:38, 22:72])
    assert set(np.unique(sheet[:, :50])) == {0, 255}


def test_evaluate(run, model, edge, capsys):
    folder = edge.parent / "originals"
    folder.mkdir()
    Image.new("RGB", (48, 40), "red").save(folder / "red.png")
    run("evaluate.py", model, folder)
    printed = capsys.readouterr().out
    assert "lanczos, PSNR" in printed and "tiny-clit, PSNR" in printed and "×8" in printed
    assert len(Path("scores.jsonl").read_text().splitlines()) == 10


def test_upscale(run):
    run("upscale.py")
    assert Image.open("astronaut_x3.7.png").size == (474, 474)
