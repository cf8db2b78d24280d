"""Pictures made up for the tiny model, and the command."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_training import PATCH, tiny_model

from clit_zoo.commands import cli
from clit_zoo.training.photographs import Photographs


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    """Four smooth pictures of different sizes, one in a folder of its own."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "more").mkdir()
    rng = np.random.default_rng(0)
    for i, name in enumerate(("a.png", "b.png", "c.webp", "more/d.png")):
        noise = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        noise.resize((160 + 10 * i, 120), Image.Resampling.BICUBIC).save(folder / name)
    return folder


@pytest.fixture(scope="session")
def photographs(pictures) -> Photographs:
    return Photographs(pictures, 2 * PATCH, progress=False)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """A folder with a one-stage model."""
    return tiny_model().save_pretrained(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def arguments(pictures, tiny, tmp_path) -> list[str]:
    """The words of a run of 12 steps of the tiny model."""
    where = f"--model {tiny} --data {pictures} --out {tmp_path / 'run'} --device cpu --no-tensorboard"
    how = f"--patch {PATCH} --batch 4 --steps 12 --log-every 2 --save-every 4 --workers 1"
    return [*where.split(), *how.split()]


@pytest.fixture
def train(capfd) -> Callable[..., str]:
    """Run ``clit-zoo train`` in this process; returns what it printed."""

    def call(*words: str, code: int = 0) -> str:
        found = cli.run(["train", *words])
        printed = capfd.readouterr()
        assert found == code, printed.err
        return printed.out + printed.err

    return call
