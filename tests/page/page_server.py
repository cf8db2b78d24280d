"""A page on a free port of this machine, and a program that talks to it."""

import http.client
import io
import json
import threading
import time
from types import SimpleNamespace
from urllib.parse import quote

import tifffile
import uvicorn

from clit_zoo.page.app import create_app
from clit_zoo.page.pictures import Models, Pictures
from clit_zoo.page.server import configured
from clit_zoo.zoo.config import ModelConfig

TINY = ModelConfig(
    "tiny-clit",
    {"name": "edsr", "channels": 8, "blocks": 1},
    {"name": "clit", "dim": 16, "heads": 2, "radius": 1, "stages": 2, "hidden_dims": [24, 16]},
)


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
        self.app = create_app(self.pictures, models, **options)
        config = configured(self.app)
        config.port = 0
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
        for worker in self.page.workers:  # torch does not like to be left in a computation
            worker.join(30)
