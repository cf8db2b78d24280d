"""What a name can be, without a network: folders, registered models, mistakes."""

import dataclasses

import pytest

from clit_zoo.errors import HubError, ModelNotFoundError, WeightsNotFoundError
from clit_zoo.zoo import hub, registry


@pytest.fixture
def folder(tmp_path, model):
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, data in model.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_folder(folder, kind):
    files = hub.resolve(kind(folder))
    assert (files.config_path, files.weights_path) == (folder / "config.json", folder / "model.safetensors")
    assert files.origin == f"folder {folder}"


def test_relative_folder_that_looks_like_a_repository(folder, monkeypatch):
    monkeypatch.chdir(folder.parent.parent)
    name = f"{folder.parent.name}/folder"
    assert hub.is_repo_id(name)
    assert hub.resolve(name).origin == f"folder {name}"


def test_folder_without_weights(folder):
    (folder / "model.safetensors").unlink()
    (folder / "epoch-last.pth").write_bytes(b"")
    with pytest.raises(
        WeightsNotFoundError, match=r"no model\.safetensors.*clit-zoo convert .*epoch-last\.pth"
    ):
        hub.resolve(folder)


def test_revision_of_a_folder(folder):
    with pytest.raises(HubError, match="leave it out"):
        hub.resolve(folder, revision="main")


def test_embedded(folder, monkeypatch):
    monkeypatch.setattr(registry, "embedded_folder", lambda name: folder)
    assert hub.resolve("rdn-clit") == dataclasses.replace(hub.resolve(folder), origin="embedded")


def test_no_weights_says_what_to_do(monkeypatch):
    monkeypatch.setattr(registry, "embedded_folder", lambda name: None)
    with pytest.raises(WeightsNotFoundError, match=r"no weights.*published") as error:
        hub.resolve("rdn-clit")
    for remedy in ("clit-zoo train", "clit-zoo convert"):
        assert remedy in str(error.value)


def test_results_folder_named_like_a_model(tmp_path, monkeypatch):
    """A folder of pictures called rdn-clit must not hide the model of that name."""
    (tmp_path / "rdn-clit").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "embedded_folder", lambda name: None)
    with pytest.raises(WeightsNotFoundError, match="registered model"):
        hub.resolve("rdn-clit")


def test_close_names():
    with pytest.raises(ModelNotFoundError, match=r"Did you mean 'rdn-clit'.*edsr-light-lit"):
        hub.resolve("rdn-clt")


@pytest.mark.parametrize(
    "name", ["../x", "./x", "/no/such/folder", "~/no-such-folder", "a/b/c", "org/../x", "C:\\x"]
)
def test_path_that_does_not_exist(name, tmp_path, monkeypatch):
    folder = tmp_path / "work"  # "../x" is then known not to exist
    folder.mkdir()
    monkeypatch.chdir(folder)
    with pytest.raises(ModelNotFoundError, match="no folder"):
        hub.resolve(name)


@pytest.mark.parametrize("name", ["", "  ", "x\0y", "a" * 5000, None, 5])
def test_not_a_name(name):
    with pytest.raises(ModelNotFoundError):
        hub.resolve(name)


def test_file_instead_of_a_folder(folder):
    with pytest.raises(ModelNotFoundError, match=r"is a file.*clit-zoo convert"):
        hub.resolve(folder / "config.json")


@pytest.mark.parametrize(
    "name, valid",
    [
        ("org/model", True),
        ("o/m.v2_x", True),
        ("org/a--b", False),
        ("org/a..b", False),
        ("org/.x", False),
        ("org/x.git", False),
        ("model", False),
    ],
)
def test_repository_names(name, valid):
    assert hub.is_repo_id(name) is valid
