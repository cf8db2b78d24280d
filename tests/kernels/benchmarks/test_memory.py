"""What a stage's training step keeps for its backward pass, and the most it takes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import memory
import pytest
import torch
from interpreter import needs_interpreter

BENCHMARKS = Path(memory.__file__).parent

INTERPRETED = """
import json, sys, torch
sys.path.insert(0, {folder!r})
import memory
for kind in ("raster", "points"):
    for backend in ("reference", "triton"):
        found = memory.reckoned(backend, kind, 4, torch.float16, shape="{shape}", backward={backward})
        print(json.dumps(found))
"""


def test_live_tensors_are_counted_once_and_until_they_go():
    with memory.Live() as live:
        a = torch.ones(1000)
        b = a.view(10, 100).t()  # the same storage
        c = a + b.reshape(-1)  # a copy for a moment, and a sum
        del c
        a.add_(1)
        assert live.now == 4000 and live.moments == [4000, 8000, 12_000]
        del a, b
        assert live.now == 0
        torch.empty(3000)
        assert live.moments[-1] == 12_000 and live.now == 0


def test_saved_storages_are_counted_once_and_without_the_given():
    weight = torch.randn(5, 5, requires_grad=True)
    with memory.kept_bytes([weight]) as kept:
        x = weight.exp()  # saves its result
        (x * x.t()).sum()  # saves the same storage twice more
    assert sum(kept.values()) == 100


def ratios(key: str, shape: str, backward: bool) -> list[float]:
    """How many times the kernels' memory the formula takes in a step: of rasters, of points."""
    env = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    code = INTERPRETED.format(folder=str(BENCHMARKS), shape=shape, backward=backward)
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    taken = [json.loads(line)[key] for line in done.stdout.splitlines()]
    return [reference / triton for reference, triton in zip(taken[::2], taken[1::2], strict=True)]


@needs_interpreter
@pytest.mark.parametrize("shape", ["light", pytest.param("paper", marks=pytest.mark.slow)])
def test_the_kernels_keep_at_most_a_quarter(shape):
    found = ratios("step_kept_bytes", shape, backward=False)
    assert len(found) == 2 and min(found) >= memory.WANTED


@pytest.mark.slow
@needs_interpreter
def test_the_kernels_take_at_most_a_quarter_at_their_peak():
    found = ratios("step_peak_bytes", "paper", backward=True)
    assert len(found) == 2 and min(found) >= memory.WANTED
