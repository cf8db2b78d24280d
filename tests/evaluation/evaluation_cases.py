"""Small originals to score, and a small model."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from clit_zoo.evaluation.resize import imresize
from clit_zoo.model import SuperResolver
from clit_zoo.zoo.config import ModelConfig


def picture(seed: int, height: int = 40, width: int = 44, channels: int = 3) -> np.ndarray:
    """A smooth random picture."""
    coarse = np.random.default_rng(seed).uniform(0, 255, (5, 6, channels))
    return np.clip(imresize(coarse, size=(height, width)), 0, 255).astype(np.uint8)


def originals(folder: Path) -> Path:
    """Three originals in …/Set5/HR: an even one, an odd one and a gray one."""
    hr = folder / "Set5" / "HR"
    hr.mkdir(parents=True)
    Image.fromarray(picture(0)).save(hr / "a.png")
    Image.fromarray(picture(1, 41, 47)).save(hr / "b.png")
    Image.fromarray(picture(2)[..., 0]).save(hr / "c.png")
    return hr


def tiny_model(**settings) -> SuperResolver:
    """The same random weights at every call."""
    torch.manual_seed(0)
    decoder = {"name": "clit", "dim": 8, "heads": 2, "radius": 1, "stages": 1, "hidden_dims": [8]}
    config = ModelConfig("tiny-lit", {"name": "edsr", "channels": 8, "blocks": 1}, decoder)
    return SuperResolver(config, **settings).eval()
