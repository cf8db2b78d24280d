import http.client
import io
import json
import threading
import time
from types import SimpleNamespace
from urllib.parse import quote

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

import clit_zoo
from clit_zoo.zoo.config import ModelConfig

pytest.importorskip("starlette")
uvicorn = pytest.importorskip("uvicorn")

from clit_zoo.page import app as page_app  # noqa: E402
from clit_zoo.page.pictures import Models, Pictures  # noqa: E402

TINY = ModelConfig(
    "tiny-clit",
    {"name": "edsr", "channels": 8, "blocks": 1},
    {"name": "clit", "dim": 16, "heads": 2, "radius": 1, "stages": 2, "hidden_dims": [24, 16]},
)


@pytest.fixture(scope="session")
def tiny():
    torch.manual_seed(0)
    return clit_zoo.SuperResolver(TINY).eval()


class Client:
    """A program that talks to a server on this machine."""

    def __init__(self, port):
        self.port = port

    def __call__(self, method, path, body=None, headers=(), raw=False):
        """Status, headers and body: parsed where it is JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, dict(headers))
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        if not raw and (answer.getheader("Content-Type") or "").startswith("application/json"):
            data = json.loads(data)
        return SimpleNamespace(status=answer.status, headers=answer.headers, body=data)

    def get(self, path, **headers):
        return self("GET", path, headers=headers)

    def upload(self, data, name="picture.png"):
        return self("POST", f"/api/pictures?name={quote(name)}", data)

    def opened(self, array, name="picture.tif", **options):
        """The identifier of an array sent as a TIFF."""
        file = io.BytesIO()
        options.setdefault("photometric", "rgb" if array.shape[-1] > 2 else "minisblack")
        tifffile.imwrite(file, array, **options)
        answer = self.upload(file.getvalue(), name)
        assert answer.status == 201, answer.body
        return answer.body["id"]

    def wait(self, path, ready, seconds=30):
        end = time.monotonic() + seconds
        while not ready(found := self.get(path).body):
            assert time.monotonic() < end, found
            time.sleep(0.02)
        return found


class Served:
    """A page on a free port of this machine, in a thread."""

    def __init__(self, tiny, **options):
        self.pictures = Pictures("tiny-clit")
        models = Models(lambda name: tiny, "tiny-clit")
        options = {"hosts": ["127.0.0.1"], **options}
        self.app = page_app.create_app(self.pictures, models, **options)
        config = uvicorn.Config(
            self.app, port=0, log_level="critical", lifespan="on", timeout_graceful_shutdown=0, http="h11"
        )
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        while not self.server.started:
            assert self.thread.is_alive()
            time.sleep(0.01)
        self.client = Client(self.server.servers[0].sockets[0].getsockname()[1])

    @property
    def page(self):
        return self.app.state.page

    def stop(self):
        self.server.should_exit = True
        self.thread.join(10)
        assert not self.thread.is_alive()


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
