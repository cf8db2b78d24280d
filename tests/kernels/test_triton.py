"""Run the tests of triton/ under Triton's interpreter, each file in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

triton = pytest.importorskip("triton")

OLD = (
    tuple(map(int, triton.__version__.split(".")[:2])) < (3, 7)
    and np.lib.NumpyVersion(np.__version__) >= "2.4.0"
)
pytestmark = pytest.mark.skipif(OLD, reason="the interpreter of Triton 3.6 fails with NumPy 2.4")

FOLDER = Path(__file__).with_name("triton")
FILES = sorted(path.name for path in FOLDER.glob("test_*.py"))


def run(file: str, marks: str) -> None:
    """Run one file's tests with these marks in the interpreter; fail with their output."""
    # one thread: numpy's own would fight with those of tests beside this one
    env = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", marks, str(FOLDER / file)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode == 5 and marks.startswith("slow"):
        pytest.skip("no slow tests in this file")
    assert done.returncode == 0, (
        f"exit status {done.returncode}\n{done.stdout[-8000:]}\n{done.stderr[-2000:]}"
    )


@pytest.mark.parametrize("file", FILES)
def test_interpreted(file: str) -> None:
    run(file, "not slow and not gpu")


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES)
def test_interpreted_slow(file: str) -> None:
    run(file, "slow and not gpu")
