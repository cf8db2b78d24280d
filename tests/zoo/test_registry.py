import re
from pathlib import Path

import pytest

import clit_zoo
from clit_zoo.errors import ModelNotFoundError, WeightsNotFoundError
from clit_zoo.zoo import registry
from clit_zoo.zoo.card import trained
from clit_zoo.zoo.config import ModelConfig

ENCODERS = ["edsr", "rdn", "swinir"]
SYSTEMS = [
    "lit",
    "clit",
    "lit-f",
    "lit-fe",
    "liif",
    "metasr",
    "metasr-original",
    "itsrn",
    "msit",
    "ciaosr",
    "lte",
    "lte-plus",
    "ultrasr",
    "ipe",
]
# their papers have no such models; LTE+ is LTE under other names
MISSING = {
    "edsr-itsrn",
    "edsr-light-metasr-original",
    "edsr-metasr-original",
    "swinir-metasr-original",
    "swinir-msit",
    "swinir-ultrasr",
    "swinir-ipe",
    "edsr-light-lte-plus",
    "rdn-lte-plus",
    "swinir-lte-plus",
    *(f"{e}-{d}" for e in ("edsr-light", "rdn", "swinir") for d in ("lit-f", "lit-fe")),
}


def test_list():
    light = [f"edsr-light-{d}" for d in SYSTEMS]
    names = [*light, "edsr-light-lit-photo", *(f"{e}-{d}" for d in SYSTEMS for e in ENCODERS)]
    names = [name for name in names if name not in MISSING]
    assert registry.list_models() == names
    assert registry.list_models("rdn-*") == [name for name in names if name.startswith("rdn-")]
    assert registry.list_models("*-CLIT") == ["edsr-light-clit", "edsr-clit", "rdn-clit", "swinir-clit"]
    assert registry.list_models("nothing*") == []


@pytest.mark.parametrize("encoder", ENCODERS)
def test_paper_settings(encoder):
    for suffix, decoder in (
        ("lit", {"name": "clit", "stages": 1}),
        ("clit", {"name": "clit", "stages": 3}),
        ("liif", {"name": "liif"}),
        ("metasr", {"name": "metasr"}),
        ("ciaosr", {"name": "ciaosr"}),
        ("lte", {"name": "lte"}),
    ):
        name = f"{encoder}-{suffix}"
        bare = {"out_channels": 0} if name == "swinir-ciaosr" else {}
        assert registry.get(name).config == ModelConfig(name, {"name": encoder, **bare}, decoder)


def test_every_row_is_named_after_its_model():
    for name, entry in registry.REGISTRY.items():
        assert entry.name == entry.config.name == name
        assert entry.summary and len(entry.config.papers) == 2


def test_letter_case_does_not_matter():
    assert registry.get("RDN-Clit") is registry.get("rdn-clit") is registry.find("RDN-CLIT")
    assert registry.find("rdn") is None


def test_unknown_name(monkeypatch):
    monkeypatch.setattr(registry, "embedded_folder", lambda name: Path("/x") if name == "rdn-lit" else None)
    with pytest.raises(ModelNotFoundError) as error:
        registry.get("RDN-CLTI")
    for words in ("'RDN-CLTI'", "With weights: rdn-lit. To be trained: edsr-light-lit", "organisation/name"):
        assert words in str(error.value)
    hint = str(error.value).partition("Did you mean ")[2].partition("?")[0]
    assert hint.startswith("'rdn-lit' or '") and "'rdn-clit'" in hint, "those with weights first"


def test_status(monkeypatch):
    monkeypatch.setattr(registry, "embedded_folder", lambda name: Path("/x") if name == "rdn-lit" else None)
    assert registry.status("rdn-lit") == "embedded"
    assert registry.status("rdn-clit") == "no weights yet"
    published = registry.Entry("x", registry.get("rdn-clit").config, 1, "", "org/x", "0" * 40, "0" * 64)
    monkeypatch.setitem(registry.REGISTRY, "x", published)
    assert registry.status("x") == "hub"


def test_a_repository_is_pinned_whole():
    for entry in registry.REGISTRY.values():
        assert len({bool(part) for part in (entry.repo_id, entry.revision, entry.sha256)}) == 1, entry.name


def test_embedded_weights_are_those_of_their_row():
    for name, entry in registry.REGISTRY.items():
        if entry.folder is not None:
            assert ModelConfig.from_json(entry.folder / "config.json") == entry.config, name
    # No folder without a row, which nobody could load by name.
    weights = Path(__file__).parents[2] / "weights"
    assert {path.parent.name for path in weights.glob("*/model.safetensors")} <= set(registry.REGISTRY)


def test_the_package_comes_before_the_checkout_and_that_before_the_hub(tmp_path, monkeypatch):
    """tests/zoo/test_push.py has a row on the Hub."""

    def make(place):
        decoder = {"dim": 8, "heads": 2, "hidden_dims": [8]}
        encoder = {"channels": 8, "blocks": 1}
        model = clit_zoo.create_model("edsr-light-lit", name=place.name, encoder=encoder, decoder=decoder)
        model.save_pretrained(place / "weights" / "rdn-lit", card=f"---\ntrained: {place.name}\n---\n")

    def loaded():
        entry = registry.get("rdn-lit")
        assert registry.status("rdn-lit") == "embedded"
        return clit_zoo.from_pretrained("rdn-lit", device="cpu").config.name, trained(entry.folder)

    package, checkout = tmp_path / "checkout" / "clit_zoo", tmp_path / "checkout"
    monkeypatch.setattr(registry, "__file__", str(package / "zoo" / "registry.py"))
    make(checkout)
    # beside an installed package: someone else's
    assert registry.status("rdn-lit") == "no weights yet" and trained(registry.get("rdn-lit").folder) is None
    with pytest.raises(WeightsNotFoundError, match="a checkout may have more than a package"):
        clit_zoo.from_pretrained("rdn-lit")
    (checkout / "pyproject.toml").touch()
    assert loaded() == ("checkout", "checkout")
    make(package)
    assert loaded() == ("clit_zoo", "clit_zoo")


def test_the_cards_of_the_weights_say_how_long_they_were_trained():
    for name in registry.with_weights():
        assert re.match(r"[\d,]+ steps in [\d.]+ hours", trained(registry.get(name).folder)), name


def test_what_was_published_is_a_row_with_its_pins(monkeypatch):
    pins = ("org/x", "0" * 40, "1" * 64)
    monkeypatch.setitem(registry._PUBLISHED, "rdn-lit", pins)
    entry = next(entry for entry in registry._rows() if entry.name == "rdn-lit")
    assert (entry.repo_id, entry.revision, entry.sha256) == pins
