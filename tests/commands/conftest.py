from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import clit_zoo
from clit_zoo.commands import cli, threads
from clit_zoo.zoo.config import ModelConfig


class Result:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def run(capfd):
    """Run `clit-zoo` in this process: exit code, standard output and standard error."""

    def call(*arguments):
        code = cli.run([str(argument) for argument in arguments])
        return Result(code, *capfd.readouterr())

    return call


class PixelRepeater:
    """Stands in for a model: every colour stays, and the calls are written down."""

    def __init__(self):
        self.loaded, self.sizes, self.fail_on = [], [], {}

    def load(self, name, **options):
        self.loaded.append((name, options))
        return self

    def check_backend(self):
        pass

    def upscale(self, picture, *, size, box=None, progress=None):
        if (picture.height, picture.width) in self.fail_on:
            raise self.fail_on[picture.height, picture.width]
        self.sizes.append(tuple(size))
        for share in (0.5, 1.0):
            progress(share)
        left, top, right, bottom = (round(edge) for edge in box or (0, 0, picture.width, picture.height))
        part = picture.samples[:, :, top:bottom, left:right].float()
        large = torch.nn.functional.interpolate(part, size=size, mode="nearest")
        return replace(picture, samples=large.to(picture.samples.dtype))


@pytest.fixture
def model(monkeypatch):
    repeater = PixelRepeater()
    monkeypatch.setattr(clit_zoo, "from_pretrained", repeater.load)
    monkeypatch.setattr(threads, "use_free_cores", lambda: 1)
    return repeater


@pytest.fixture
def save(tmp_path, monkeypatch):
    """Write a w×h picture of noise below the current folder; returns its pixels."""
    monkeypatch.chdir(tmp_path)

    def call(name, w=6, h=4, mode="RGB", **options):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(len(name)).integers(0, 256, (h, w, 3), dtype=np.uint8)
        image = Image.fromarray(noise).convert(mode)
        image.save(path, **options)
        return np.asarray(image)

    return call


@pytest.fixture
def tiny_model(tmp_path):
    """A model folder with random weights."""
    torch.manual_seed(0)
    config = ModelConfig(
        "tiny-lit",
        {"name": "edsr", "channels": 8, "blocks": 1},
        {"name": "clit", "dim": 8, "heads": 2, "radius": 1, "stages": 1, "hidden_dims": [8, 8]},
    )
    clit_zoo.SuperResolver(config).save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"
