"""``--compile`` on a CPU: what it trains is what the same run trains without."""

import os
import shutil

import pytest
import torch

import clit_zoo


def trained(train, arguments, folder, *options):
    """The weights after three steps of two patches."""
    train(*arguments, "--out", str(folder), "--steps", "3", "--batch", "2", *options)
    return clit_zoo.from_pretrained(folder / "model", device="cpu").state_dict()


def assert_same_training(train, arguments, tmp_path, *options, atol):
    torch.compiler.reset()
    graphs = torch._dynamo.utils.counters["stats"]
    before = graphs["unique_graphs"]
    compiled = trained(train, arguments, tmp_path / "compiled", *options, "--compile")
    assert graphs["unique_graphs"] > before, "nothing was compiled"
    for name, value in trained(train, arguments, tmp_path / "eager", *options).items():
        torch.testing.assert_close(compiled[name], value, rtol=0, atol=atol)


def test_a_traced_encoder(train, arguments, tmp_path, monkeypatch):
    """With graphs that are traced but not turned into C++, which takes 20 s."""
    compile = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compile(self, backend="aot_eager"))
    assert_same_training(train, arguments, tmp_path, atol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="needs a C++ compiler")
@pytest.mark.parametrize(
    ("options", "atol"),
    [
        ("", 1e-5),
        # Adam's steps are of lr's size whatever the gradient's: three of 1e-4 bound what rounding can move
        ("--stages 2 --bf16 --channels-last --accumulate 2 --val-scales 2 --val-every 2 --val-limit 1", 6e-4),
    ],
)
def test_a_compiled_encoder(train, arguments, pictures, tmp_path, options, atol):
    validate = ["--val", str(pictures)] if options else []
    assert_same_training(train, arguments, tmp_path, *options.split(), *validate, atol=atol)
