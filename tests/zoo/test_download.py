"""Loading from a Hub: what is asked of the server, what lands in the cache, and every way it can fail."""

import hashlib
import socket
from pathlib import Path

import pytest


def cached_weights(cache_dir: Path) -> list[Path]:
    return [path for path in cache_dir.rglob("*") if path.is_file() and path.stat().st_size > 10_000]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_repository_by_name_then_from_the_cache(server, client, model, tmp_path):
    commit = server.add("org/plain", model)
    first = client("resolve", "org/plain", cache_dir=tmp_path)
    assert Path(first["result"]["weights_path"]).read_bytes() == model["model.safetensors"]
    assert Path(first["result"]["config_path"]).read_bytes() == model["config.json"]
    assert first["result"]["origin"] == f"hub org/plain@{commit}"
    assert server.bodies("org/plain", "model.safetensors") == 1

    assert client("resolve", "org/plain", cache_dir=tmp_path)["result"] == first["result"]
    assert server.bodies("org/plain", "model.safetensors") == 1

    asked = len(server.requests)
    offline = client("resolve", "org/plain", cache_dir=tmp_path, local_files_only=True)
    assert offline["result"] == first["result"]
    assert len(server.requests) == asked


def test_registered_model_at_its_pinned_revision(server, client, model, tmp_path):
    commit = server.add("org/registered", model)
    server.add("org/registered", {**model, "model.safetensors": b"moved on" * 5000})
    row = {
        "name": "edsr-lit",
        "repo_id": "org/registered",
        "revision": commit,
        "sha256": sha256(model["model.safetensors"]),
    }
    found = client("resolve", "edsr-lit", cache_dir=tmp_path, row=row)
    assert Path(found["result"]["weights_path"]).read_bytes() == model["model.safetensors"]
    assert found["result"]["origin"] == f"hub org/registered@{commit}"

    asked = len(server.requests)
    again = client("resolve", "edsr-lit", cache_dir=tmp_path, row=row)
    assert again["result"] == found["result"]
    assert len(server.requests) == asked, "a pinned commit in the cache needs no network at all"

    wanted = client("resolve", "edsr-lit", cache_dir=tmp_path, row=row, revision="main")
    assert Path(wanted["result"]["weights_path"]).read_bytes() == b"moved on" * 5000


def test_revision(server, client, model, tmp_path):
    old = server.add("org/revised", model)
    server.add("org/revised", {**model, "model.safetensors": b"second" * 5000})
    server.add("org/revised", {**model, "model.safetensors": b"third." * 5000}, branch="v3")
    for revision, content in (
        (old, model["model.safetensors"]),
        (None, b"second" * 5000),
        ("v3", b"third." * 5000),
    ):
        found = client("resolve", "org/revised", cache_dir=tmp_path, revision=revision)
        assert Path(found["result"]["weights_path"]).read_bytes() == content
    missing = client("resolve", "org/revised", cache_dir=tmp_path, revision="v4")
    assert missing["error"] == "HubError"
    assert "no revision 'v4'" in missing["message"]
    # The cache makes a path of the revision: it must not lead out of it.
    assert client("resolve", "org/revised", revision="../../v3")["error"] == "HubError"


def test_damaged_once_is_fetched_again(server, client, model, tmp_path):
    server.add("org/flipped", model, mode="corrupt once")
    found = client("resolve", "org/flipped", cache_dir=tmp_path)
    assert Path(found["result"]["weights_path"]).read_bytes() == model["model.safetensors"]
    assert server.bodies("org/flipped", "model.safetensors") == 2


def test_damaged_always_is_an_error_and_leaves_nothing(server, client, model, tmp_path):
    commit = server.add("org/damaged", model, mode="corrupt always")
    expected = sha256(model["model.safetensors"])
    row = {"name": "rdn-lit", "repo_id": "org/damaged", "revision": commit, "sha256": expected}
    found = client("resolve", "rdn-lit", cache_dir=tmp_path, row=row)
    assert found["error"] == "HubError"
    assert "damaged twice" in found["message"] and expected in found["message"]
    assert server.bodies("org/damaged", "model.safetensors") == 2
    assert not cached_weights(tmp_path)


def test_another_file_than_the_pinned_one(server, client, model, tmp_path):
    """The server is consistent with itself, but does not hold what was pinned."""
    commit = server.add("org/swapped", model)
    row = {
        "name": "rdn-lit",
        "repo_id": "org/swapped",
        "revision": commit,
        "sha256": sha256(b"the true file"),
    }
    found = client("resolve", "rdn-lit", cache_dir=tmp_path, row=row)
    assert found["error"] == "HubError"
    assert "damaged twice" in found["message"]


def test_damaged_in_the_cache(server, client, model, tmp_path):
    commit = server.add("org/rotten", model)
    row = {
        "name": "rdn-lit",
        "repo_id": "org/rotten",
        "revision": commit,
        "sha256": sha256(model["model.safetensors"]),
    }
    found = Path(client("resolve", "rdn-lit", cache_dir=tmp_path, row=row)["result"]["weights_path"])
    found.write_bytes(model["model.safetensors"][:-1] + b"!")
    offline = client("resolve", "rdn-lit", cache_dir=tmp_path, row=row, local_files_only=True)
    assert offline["error"] == "HubError"
    again = client("resolve", "rdn-lit", cache_dir=tmp_path, row=row)
    assert Path(again["result"]["weights_path"]).read_bytes() == model["model.safetensors"]


def test_cut_once(server, client, model, tmp_path):
    """Newer clients go on by themselves; with older ones the message says to try again, which works."""
    server.add("org/cut", model, mode="cut once")
    found = client("resolve", "org/cut", cache_dir=tmp_path)
    if "error" in found:
        assert "broke off" in found["message"] and "Try again" in found["message"]
        found = client("resolve", "org/cut", cache_dir=tmp_path)
    assert Path(found["result"]["weights_path"]).read_bytes() == model["model.safetensors"]


@pytest.mark.parametrize("mode", ["short", "cut always"])
def test_truncated(server, client, model, tmp_path, mode):
    repo_id = f"org/{mode.replace(' ', '-')}"
    server.add(repo_id, model, mode=mode)
    found = client("resolve", repo_id, cache_dir=tmp_path)
    assert found["error"] in ("HubError", "Unreachable")
    assert "model.safetensors" in found["message"] and "Try again" in found["message"]
    assert found["seconds"] < 15
    assert not cached_weights(tmp_path)


@pytest.mark.parametrize(
    "mode, error, words",
    [
        ("gated", "HubError", "gated: accept its terms"),
        ("forbidden", "HubError", "hf auth login"),
        ("broken", "Unreachable", "HTTP 503"),
        ("hang", "Unreachable", "timed out"),
    ],
)
def test_refusals(server, client, model, tmp_path, mode, error, words):
    server.add(f"org/{mode}", model, mode=mode)
    found = client("resolve", f"org/{mode}", cache_dir=tmp_path)
    assert found["error"] == error
    assert words in found["message"]
    assert found["seconds"] < 5


def test_missing_repository_and_files(server, client, model, tmp_path):
    found = client("resolve", "org/nowhere", cache_dir=tmp_path)
    assert found["error"] == "ModelNotFoundError"
    assert "org/nowhere" in found["message"] and "private" in found["message"]
    for name in ("config.json", "model.safetensors"):
        server.add(f"org/without-{name}", {key: data for key, data in model.items() if key != name})
        found = client("resolve", f"org/without-{name}", cache_dir=tmp_path)
        assert found["error"] == "WeightsNotFoundError"
        assert f"has no {name}" in found["message"]


def test_a_configuration_of_megabytes_is_not_fetched(server, client, model, tmp_path):
    server.add("org/huge", {**model, "config.json": b" " * 1_000_000})
    found = client("resolve", "org/huge", cache_dir=tmp_path)
    assert found["error"] == "HubError" and "1,000,000 bytes" in found["message"]
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_cache_that_cannot_be_written(server, client, model, tmp_path):
    server.add("org/unwritable", model)
    (tmp_path / "file").write_text("not a folder")
    found = client("resolve", "org/unwritable", cache_dir=tmp_path / "file")
    assert found["error"] == "HubError"
    assert "cannot be stored" in found["message"] and "cache_dir" in found["message"]


def test_dead_server(server, client, start_client, model, tmp_path):
    """Nothing listens: an error in seconds, or the cached copy."""
    server.add("org/survivor", model)
    alive = client("resolve", "org/survivor", cache_dir=tmp_path)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        dead = start_client(f"http://127.0.0.1:{unused.getsockname()[1]}")
        found = dead("resolve", "org/plain", cache_dir=tmp_path / "empty")
        assert found["error"] == "Unreachable"
        assert "cannot be reached" in found["message"] and "HF_ENDPOINT" in found["message"]
        assert found["seconds"] < 5
        assert dead("resolve", "org/survivor", cache_dir=tmp_path)["result"] == alive["result"]


def test_offline(server, client, start_client, model, tmp_path):
    server.add("org/offline", model)
    online = client("resolve", "org/offline", cache_dir=tmp_path)
    asked = len(server.requests)
    offline = start_client(server.url, HF_HUB_OFFLINE="1")
    assert offline("resolve", "org/offline", cache_dir=tmp_path)["result"] == online["result"]
    found = offline("resolve", "org/never", cache_dir=tmp_path)
    assert found["error"] == "HubError"
    assert "HF_HUB_OFFLINE" in found["message"] and "Load it once with the network" in found["message"]
    assert len(server.requests) == asked
