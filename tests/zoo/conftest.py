import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hub_server import HubServer
from safetensors.numpy import save

from clit_zoo.zoo import registry

PROXIES = ("http_proxy", "https_proxy", "all_proxy")


class Client:
    """clit_zoo.zoo.hub with the real huggingface_hub, in another process."""

    def __init__(self, endpoint: str, home: Path, **environment: str) -> None:
        inherited = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith("HF_") and key.lower() not in PROXIES
        }
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("hub_client.py"))],
            env={
                **inherited,
                "HF_ENDPOINT": endpoint,
                "HF_HOME": str(home),
                "HF_HUB_DISABLE_XET": "1",
                "HF_HUB_DISABLE_TELEMETRY": "1",
                "HF_HUB_DISABLE_PROGRESS_BARS": "1",
                "HF_HUB_DOWNLOAD_TIMEOUT": "2",
                "GRACE": "3",
                **environment,
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, call: str, *args, row: dict | None = None, **kwargs) -> dict:
        request = {"call": call, "args": args, "kwargs": kwargs, "row": row}
        self.process.stdin.write(json.dumps(request, default=str) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(60)  # a busy machine takes its time to end a process that holds torch


@pytest.fixture(scope="session")
def server():
    server = HubServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def client(server, tmp_path_factory):
    client = Client(server.url, tmp_path_factory.mktemp("home"))
    yield client
    client.close()


@pytest.fixture
def start_client(tmp_path):
    """Clients with another endpoint or environment, each a process."""
    started = []

    def start(endpoint: str, **environment: str) -> Client:
        started.append(Client(endpoint, tmp_path / "home", **environment))
        return started[-1]

    yield start
    for client in started:
        client.close()


@pytest.fixture(scope="session")
def model() -> dict[str, bytes]:
    """The files of a published model; the weights are any tensor, large enough to be cut."""
    weights = save({"weight": np.random.default_rng(0).standard_normal((100, 300), dtype=np.float32)})
    config = registry.get("edsr-lit").config.to_json().encode()
    return {"config.json": config, "model.safetensors": weights, "README.md": b"# edsr-lit\n"}
