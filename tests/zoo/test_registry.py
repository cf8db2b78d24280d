from pathlib import Path

import pytest

from clit_zoo.errors import ModelNotFoundError
from clit_zoo.zoo import registry
from clit_zoo.zoo.config import ModelConfig

PAPER_MODELS = ["edsr-lit", "edsr-clit", "rdn-lit", "rdn-clit", "swinir-lit", "swinir-clit"]


def test_list():
    # rows that are added later come after these
    first = ["edsr-light-lit", "edsr-light-clit", *PAPER_MODELS]
    names = registry.list_models()
    assert names == list(registry.REGISTRY) and names[: len(first)] == first

    def listed(pattern):
        return [name for name in registry.list_models(pattern) if name in first]

    assert listed("rdn-*") == ["rdn-lit", "rdn-clit"]
    assert listed("*-CLIT") == ["edsr-light-clit", "edsr-clit", "rdn-clit", "swinir-clit"]
    assert all(name.endswith("-clit") for name in registry.list_models("*-CLIT"))
    assert registry.list_models("nothing*") == []


@pytest.mark.parametrize("name", PAPER_MODELS)
def test_paper_settings(name):
    encoder, decoder = name.split("-")
    config = registry.get(name).config
    defaults = ModelConfig(name, {"name": encoder}, {"name": "clit", "stages": 3 if decoder == "clit" else 1})
    assert config == defaults
    assert config.decoder["dim"] == 256 and config.decoder["radius"] == 3


def test_every_row_is_named_after_its_model():
    for name, entry in registry.REGISTRY.items():
        assert entry.name == entry.config.name == name
        assert entry.summary and len(entry.config.papers) == 2


def test_unknown_name():
    with pytest.raises(ModelNotFoundError) as error:
        registry.get("RDN-CLTI")
    for word in ("'RDN-CLTI'", "Did you mean 'rdn-clit'", "swinir-lit", "organisation/name"):
        assert word in str(error.value)


def test_status(monkeypatch):
    monkeypatch.setattr(registry, "embedded_folder", lambda name: Path("/x") if name == "rdn-lit" else None)
    assert registry.status("rdn-lit") == "embedded"
    assert registry.status("rdn-clit") == "no weights yet"
    published = registry.Entry("x", registry.get("rdn-clit").config, "", "org/x", "0" * 40, "0" * 64)
    monkeypatch.setitem(registry.REGISTRY, "x", published)
    assert registry.status("x") == "hub"


def test_a_repository_is_pinned_whole():
    with pytest.raises(ValueError, match="together"):
        registry.Entry("x", registry.get("rdn-clit").config, "", repo_id="org/x")


def test_embedded_weights_are_those_of_their_row():
    for name, entry in registry.REGISTRY.items():
        if entry.folder is not None:
            assert ModelConfig.from_json(entry.folder / "config.json") == entry.config, name
    # No folder without a row, which nobody could load by name.
    weights = Path(__file__).parents[1] / "weights"
    assert {path.parent.name for path in weights.glob("*/model.safetensors")} <= set(registry.REGISTRY)


def test_the_folder_of_an_installed_package_comes_first(tmp_path, monkeypatch):
    def make(folder):
        folder.mkdir(parents=True)
        (folder / "config.json").touch()
        (folder / "model.safetensors").touch()
        return folder

    package = tmp_path / "clit_zoo"
    package.mkdir()
    monkeypatch.setattr(registry, "__file__", str(package / "zoo" / "registry.py"))
    beside = make(tmp_path / "weights" / "rdn-lit")
    assert registry.embedded_folder("rdn-lit") is None, "beside an installed package: someone else's"
    (tmp_path / "pyproject.toml").touch()
    assert registry.embedded_folder("rdn-lit") == beside
    inside = make(package / "weights" / "rdn-lit")
    assert registry.embedded_folder("rdn-lit") == inside
