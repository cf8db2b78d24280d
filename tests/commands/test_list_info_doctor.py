"""`clit-zoo list`, `info` and `doctor`: what they tell, as text and as JSON."""

import functools
import json

import pytest
import torch
from safetensors.numpy import save_file

from clit_zoo.commands import doctor
from clit_zoo.zoo import registry
from clit_zoo.zoo.config import ModelConfig


def test_list(run):
    rows = json.loads(run("list", "--json").out)
    assert [row["name"] for row in rows] == list(registry.REGISTRY)
    clit = next(row for row in rows if row["name"] == "rdn-clit")
    assert (clit["encoder"], clit["decoder"], clit["parameters"]) == ("rdn", "clit", 37663441)
    text = run("list").out
    for row in rows:
        line = next(line for line in text.splitlines() if line.startswith(f"  {row['name']} "))
        assert row["weights"] in line and row["summary"] in line
        assert ("; trained for" in line) == bool(row["trained"]) and (row["trained"] or "") in line
    assert next(row for row in rows if row["name"] == "edsr-light-lit")["trained"].startswith("17,300 steps")
    # one group for each decoder, its paper above it
    groups = {group.partition(":")[0]: group for group in text.split("\n\n")}
    clit, liif = groups["clit"], groups["liif"]
    assert clit.startswith("clit: Chen et al.") and "rdn-lit" in clit and "edsr-liif" not in clit
    assert liif.startswith("liif: Chen et al.") and liif.count("\n") == 4


def test_list_pattern(run):
    rows = json.loads(run("list", "RDN-*", "--json").out)
    assert [row["name"] for row in rows] == registry.list_models("rdn-*")
    for form in ["--json"], []:
        result = run("list", "nothing*", *form)
        assert result.code == 1 and result.out == "" and "matches 'nothing*'; there are" in result.err


def test_info_of_a_registered_model_without_weights(run, monkeypatch):
    monkeypatch.setattr(registry, "embedded_folder", lambda name: None)
    facts = json.loads(run("info", "rdn-clit", "--json").out)
    assert (
        facts["parameters"] == 37663441 and facts["status"] == "no weights yet" and facts["weights"] is None
    )
    assert facts["config"]["decoder"]["stages"] == 3
    text = run("info", "RDN-CLIT").out
    assert "37,663,441" in text and "growth 64" in text and "clit-zoo convert" in text
    assert "cell_decode yes" in run("info", "edsr-liif").out


def test_info_of_a_file_that_has_a_models_name(run, tmp_path, monkeypatch):
    (tmp_path / "rdn-clit").touch()
    monkeypatch.chdir(tmp_path)
    result = run("info", "rdn-clit")
    assert result.code == 1 and "rdn-clit is a file" in result.err and not result.out


def test_info_of_a_folder(run, tiny_model):
    facts = json.loads(run("info", tiny_model, "--json").out)
    assert facts["name"] == "tiny-lit" and facts["weights_bytes"] > 1000
    assert facts["weights"] == str(tiny_model / "model.safetensors") and facts["card"] == str(
        tiny_model / "README.md"
    )
    (tiny_model / "model.safetensors").unlink()
    result = run("info", tiny_model)
    assert result.code == 1 and "model.safetensors" in result.err


def test_info_of_nothing(run):
    result = run("info", "rdn-clitt")
    assert result.code == 1 and "'rdn-clit'" in result.err


@pytest.fixture
def embedded(monkeypatch, tiny_model):
    """The tiny model is all that ships."""
    entry = registry.Entry("tiny-lit", ModelConfig.from_json(tiny_model / "config.json"), 1, "tiny")
    monkeypatch.setattr(registry, "REGISTRY", {"tiny-lit": entry})
    monkeypatch.setattr(registry, "embedded_folder", lambda name: tiny_model)
    return tiny_model


def test_doctor(run, embedded):
    result = run("doctor", "--json")
    report = json.loads(result.out)
    assert result.code == 0, report["problems"]
    assert report["problems"] == []
    assert report["versions"]["torch"] and report["devices"]["cpu"]
    found = report["decoders"]["cpu"]
    for decoder in ("clit", "liif"):
        assert found[f"{decoder} torch"].startswith("float32 right, off by ")
        assert found[f"{decoder} auto"] == "takes torch"
        assert len(found[f"{decoder} triton"].split()) > 3  # a sentence
    assert report["threads"]["used by torch"] >= 1 and report["cache"]["folder"]
    assert report["embedded_weights"]["tiny-lit"].startswith("readable")


def test_doctor_as_text(run, embedded, two_decoders):
    text = run("doctor").out
    assert "cpu clit torch" in text and "No problems found." in text


def fails(results, decoder, backend, device, rounded, dtype):
    if dtype == torch.float32:
        raise RuntimeError("no C compiler\nfound")
    return results(decoder, backend, device, rounded, dtype)


def is_wrong(results, decoder, backend, device, rounded, dtype):
    off = 1 if dtype == torch.float64 else 1 + 1e-4
    return tuple(numbers * off for numbers in results(decoder, backend, device, rounded, dtype))


@pytest.fixture
def two_decoders(monkeypatch):
    """All take six seconds."""
    monkeypatch.setattr(doctor, "DECODERS", {name: doctor.DECODERS[name] for name in ("clit", "liif")})


@pytest.mark.parametrize(
    ("change", "shown", "words"),
    [
        (fails, "float32 FAILS", "fails on cpu in float32 (RuntimeError: no C compiler found)"),
        (
            is_wrong,
            "float32 WRONG",
            "is wrong on cpu in float32, off by 1e-04 of the range, gradients by",
        ),
    ],
)
def test_doctor_finds_backends_that_fail(run, embedded, two_decoders, monkeypatch, change, shown, words):
    monkeypatch.setattr(doctor, "results", functools.partial(change, doctor.results))
    result = run("doctor")
    assert result.code == 1 and shown in result.out
    for decoder in ("clit", "liif"):
        assert f"{decoder}: backend torch {words}" in result.out
    assert "take --backend torch" in result.out


def test_doctor_finds_broken_weights_and_missing_packages(run, embedded, two_decoders, monkeypatch):
    save_file({}, embedded / "model.safetensors")
    monkeypatch.setattr(doctor, "PACKAGES", ("torch", "no-such-package", "triton"))
    result = run("doctor")
    assert result.code == 1
    assert "no-such-package is not installed" in result.out
    assert "embedded weights of tiny-lit cannot be read" in result.out
    monkeypatch.setattr(registry, "embedded_folder", lambda name: None)
    result = run("doctor", "--json")
    assert result.code == 1 and any(
        "no weights came" in problem for problem in json.loads(result.out)["problems"]
    )
