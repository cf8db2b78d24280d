"""`clit-zoo list`, `info` and `doctor`: what they tell, as text and as JSON."""

import json

import pytest
from safetensors.numpy import save_file

from clit_kernels import self_check
from clit_kernels.self_check import Verdict
from clit_zoo.commands import doctor
from clit_zoo.zoo import registry


def test_list(run):
    rows = json.loads(run("list", "--json").out)
    assert [row["name"] for row in rows] == list(registry.REGISTRY)
    clit = next(row for row in rows if row["name"] == "rdn-clit")
    assert (clit["encoder"], clit["decoder"], clit["stages"]) == ("rdn", "clit", 3)
    assert clit["parameters"] == registry.get("rdn-clit").config.parameters
    text = run("list").out.splitlines()
    assert len(text) == len(rows) + 1
    for line, row in zip(text[1:], rows):
        assert line.startswith(row["name"]) and row["weights"] in line and row["summary"] in line


def test_list_pattern(run):
    assert [row["name"] for row in json.loads(run("list", "RDN-*", "--json").out)] == ["rdn-lit", "rdn-clit"]
    result = run("list", "nothing*")
    assert result.code == 0 and result.out == "" and "rdn-clit" in result.err


def test_info_of_a_registered_model_without_weights(run, monkeypatch):
    monkeypatch.setattr(registry, "embedded_folder", lambda name: None)
    facts = json.loads(run("info", "rdn-clit", "--json").out)
    assert (
        facts["parameters"] == 37663441 and facts["status"] == "no weights yet" and facts["weights"] is None
    )
    assert facts["config"]["decoder"]["stages"] == 3
    text = run("info", "rdn-clit").out
    assert "37,663,441" in text and "growth 64" in text and "clit-zoo convert" in text


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
    from clit_zoo.zoo.config import ModelConfig

    entry = registry.Entry("tiny-lit", ModelConfig.from_json(tiny_model / "config.json"), "tiny")
    monkeypatch.setattr(registry, "REGISTRY", {"tiny-lit": entry})
    monkeypatch.setattr(registry, "embedded_folder", lambda name: tiny_model)
    return tiny_model


def test_doctor(run, embedded):
    result = run("doctor", "--json")
    report = json.loads(result.out)
    assert result.code == 0, report["problems"]
    assert report["problems"] == []
    assert report["versions"]["torch"] and report["devices"]["cpu"]
    assert report["backends"]["cpu"]["hoisted"].startswith("float32 right, off by ")
    assert report["backends"]["cpu"]["auto"] == "takes hoisted"
    assert len(report["backends"]["cpu"]["triton"].split()) > 3  # a sentence
    assert report["threads"]["used by torch"] >= 1 and report["cache"]["folder"]
    assert report["embedded_weights"]["tiny-lit"].startswith("readable")
    text = run("doctor").out
    assert "cpu hoisted" in text and "No problems found." in text


def broken(*args, **options):
    raise RuntimeError("no C compiler\nfound")


def wrong(*args, **options):
    return Verdict(2e-3, 0.5, 1e-5, 1e-5)


@pytest.mark.parametrize(
    ("check", "shown", "words"),
    [
        (broken, "float32 FAILS", "fails on cpu in float32 (RuntimeError: no C compiler found)"),
        (wrong, "float32 WRONG", "wrong on cpu in float32, off by 2e-03 of the range (allowed 1e-05)"),
    ],
)
def test_doctor_finds_backends_that_fail(run, embedded, monkeypatch, check, shown, words):
    monkeypatch.setattr(self_check, "check_backend", check)
    result = run("doctor")
    assert result.code == 1 and shown in result.out
    assert f"backend hoisted {'is ' * (check is wrong)}{words}" in result.out
    assert "take --backend hoisted" in result.out


def test_doctor_finds_broken_weights_and_missing_packages(run, embedded, monkeypatch):
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
