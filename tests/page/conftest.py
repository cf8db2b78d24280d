import io

import numpy as np
import pytest
import torch
from PIL import Image

import clit_zoo

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from page_server import TINY, Served


@pytest.fixture(scope="session")
def tiny():
    torch.manual_seed(0)
    return clit_zoo.SuperResolver(TINY).eval()


@pytest.fixture(scope="module")
def served(tiny):
    served = Served(tiny)
    yield served
    served.stop()


@pytest.fixture
def client(served):
    return served.client


@pytest.fixture
def start(tiny):
    """A server of its own, by keyword as ``create_app``."""
    running = []

    def call(**options):
        running.append(Served(tiny, **options))
        return running[-1]

    yield call
    for one in running:
        one.stop()


@pytest.fixture
def noise():
    def call(h=20, w=30, channels=3, dtype=np.float32, seed=0):
        values = np.random.default_rng(seed).random((h, w, channels), dtype=np.float32)
        return values if dtype == np.float32 else (values * np.iinfo(dtype).max).round().astype(dtype)

    return call


@pytest.fixture
def png():
    def call(h=20, w=30, mode="RGB", seed=0, form="PNG", **options):
        pixels = np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).convert(mode).save(file, form, **options)
        return file.getvalue()

    return call
