"""``--compile`` on a CPU: what it trains is what the same run trains without."""

import os
import shutil

import pytest
import torch

import clit_zoo

pytestmark = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None, reason="torch.compile needs a C++ compiler on a CPU"
)


def trained(script, arguments, folder, *options):
    """The weights after three steps of two patches."""
    words = [*arguments, "--out", str(folder), "--steps", "3", "--batch", "2", *options]
    script.main(words)
    return clit_zoo.from_pretrained(folder / "model", device="cpu").state_dict()


def assert_same_training(script, arguments, tmp_path, *options, atol):
    torch.compiler.reset()
    graphs = torch._dynamo.utils.counters["stats"]
    before = graphs["unique_graphs"]
    compiled = trained(script, arguments, tmp_path / "compiled", *options, "--compile")
    assert graphs["unique_graphs"] > before, "nothing was compiled"
    for name, value in trained(script, arguments, tmp_path / "eager", *options).items():
        torch.testing.assert_close(compiled[name], value, rtol=0, atol=atol)


def test_finetune_compiled(script, arguments, tmp_path):
    assert_same_training(script, arguments, tmp_path, atol=1e-5)


@pytest.mark.slow
def test_finetune_a_compiled_cascade_in_bfloat16(script, arguments, pictures, tmp_path):
    """Adam's steps are of lr's size whatever the gradient's: three of 1e-4 bound what rounding can move."""
    validate = ["--val", str(pictures), "--val-scales", "2", "--val-every", "2", "--val-limit", "1"]
    options = ["--stages", "2", "--bf16", "--channels-last", "--accumulate", "2", *validate]
    assert_same_training(script, arguments, tmp_path, *options, atol=6e-4)
