"""Publishing a model with the real huggingface_hub, weights by Git LFS and by Xet, and loading it back."""

import hashlib
import shutil
import socket

import pytest
import torch
from safetensors.torch import load_file, save_file

from clit_zoo.zoo import registry

SHIPPED = registry.get("edsr-light-lit").folder


@pytest.fixture
def folder(tmp_path):
    """A model that ships, with something beside it."""
    copy = shutil.copytree(SHIPPED, tmp_path / "folder")
    (copy / "notes.txt").write_text("not part of a model")
    return copy


def head(server, repo_id):
    repository = server.repositories[repo_id]
    return repository.commits[repository.refs["main"]]


@pytest.mark.parametrize("storage", ["lfs", "xet"])
def test_published_pinned_and_loaded(server, start_client, folder, tmp_path, storage):
    """What `clit-zoo push` prints is what a row needs for `from_pretrained(name)` to give the same model."""
    if storage == "xet":
        pytest.importorskip("hf_xet")
    server.objects.clear()
    asked = len(server.requests)
    client = start_client(server.url, HF_TOKEN="hf_test", HF_HUB_DISABLE_XET=str(int(storage == "lfs")))
    repo_id = f"org/by-{storage}"
    done = client("command", "push", folder, repo_id)["result"]
    assert done["code"] == 0, done["err"]
    printed = dict(line.split(maxsplit=1) for line in done["out"].splitlines())
    weights = (folder / "model.safetensors").read_bytes()
    assert printed == {
        "address": f"{server.url}/{repo_id}/commit/{printed['revision']}",
        "repository": repo_id,
        "revision": server.repositories[repo_id].refs["main"],
        "sha256": hashlib.sha256(weights).hexdigest(),
    }
    names = ("config.json", "model.safetensors", "README.md")
    assert head(server, repo_id) == {name: (folder / name).read_bytes() for name in names}
    sent = [(method, path) for method, path, _ in server.requests[asked:] if method != "GET"]
    large = ("PUT", f"/lfs/{printed['sha256']}") if storage == "lfs" else ("POST", "/xet/v1/shards")
    assert sent.count(large) == 1 and server.objects == {printed["sha256"]: weights}

    row = {
        "name": "rdn-lit",
        "repo_id": repo_id,
        "revision": printed["revision"],
        "sha256": printed["sha256"],
    }
    assert client("save", "rdn-lit", tmp_path / "back", row=row)["result"]
    before, after = (load_file(place / "model.safetensors") for place in (folder, tmp_path / "back"))
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)

    again = client("command", "push", folder, repo_id)["result"]["out"]
    assert f"revision    {printed['revision']}\n" in again
    commits = [path for _, path, _ in server.requests[asked:] if path.endswith(f"{repo_id}/commit/main")]
    assert len(commits) == 1, "nothing changed"


def test_a_server_without_xet(server, start_client, folder):
    pytest.importorskip("hf_xet")
    pytest.importorskip("huggingface_hub", minversion="2", reason="before, clients asked the server")
    server.add("org/no-xet", {}, mode="no xet")
    client = start_client(server.url, HF_TOKEN="hf_test", HF_HUB_DISABLE_XET="0")
    done = client("command", "push", folder, "org/no-xet")["result"]
    assert done["code"] == 1 and done["err"].count("\n") == 1
    assert "could not be published" in done["err"] and "HF_HUB_DISABLE_XET=1" in done["err"]


def test_the_card_names_the_repository(server, client, folder):
    with (folder / "README.md").open("a") as card:
        card.write('from_pretrained("path/to/this/folder")')
    assert client("push", folder, "org/mine", token="hf_test")["result"]
    assert head(server, "org/mine")["README.md"].endswith(b'from_pretrained("org/mine")')


def test_what_shall_be_private_is_not_published(server, client, folder):
    client("push", folder, "org/open", token="hf_test")
    before = dict(server.repositories["org/open"].commits)
    refused = client("push", folder, "org/open", token="hf_test", private=True)
    assert refused["error"] == "HubError" and "org/open is a public repository already" in refused["message"]
    assert server.repositories["org/open"].commits == before
    for _ in range(2):
        assert client("push", folder, "org/closed", token="hf_test", private=True)["result"]
    assert server.repositories["org/closed"].private


def damaged(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])


def of_another_model(folder):
    save_file({"weight": torch.ones(3)}, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: shutil.rmtree(folder), "has no config.json; a model is a folder with"),
        (lambda folder: (folder / "config.json").write_text("{}"), '"format" is missing'),
        (damaged, "is damaged or no safetensors file"),
        (of_another_model, "does not fit its configuration"),
        (lambda folder: (folder / "README.md").unlink(), "README.md names no licence"),
        (lambda folder: (folder / "README.md").write_text("---\nlicense: [\n---\n"), "names no licence"),
    ],
)
def test_what_is_no_model_is_not_published(server, client, folder, change, words):
    change(folder)
    asked = len(server.requests)
    done = client("command", "push", folder, "org/never")["result"]
    assert done["code"] == 1 and not done["out"] and words in done["err"]
    assert done["err"].startswith("Error: ") and done["err"].count("\n") == 1
    assert len(server.requests) == asked and "org/never" not in server.repositories


def test_without_a_token(server, client, folder):
    asked = len(server.requests)
    done = client("command", "push", folder, "org/never")["result"]
    assert done["code"] == 1 and "run `hf auth login` or set HF_TOKEN" in done["err"]
    assert len(server.requests) == asked
    refused = client("push", folder, "org/never", token="hf_wrong")
    assert refused["error"] == "HubError" and "hf auth login" in refused["message"]
    assert "org/never" not in server.repositories
    assert "'organisation/name'" in client("push", folder, "never", token="hf_test")["message"]


def test_without_a_network(start_client, folder):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        dead = start_client(f"http://127.0.0.1:{unused.getsockname()[1]}", HF_TOKEN="hf_test")
        reply = dead("command", "push", folder, "org/never")
    done = reply["result"]
    assert done["code"] == 1 and "cannot be reached" in done["err"] and done["err"].count("\n") == 1
    assert reply["seconds"] < 5
