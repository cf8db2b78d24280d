"""Run the tests of Triton kernels under Triton's interpreter, each file in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from interpreter import needs_interpreter

pytestmark = needs_interpreter

HERE = Path(__file__).parent
FILES = [
    *sorted(HERE.glob("*/test_*_triton.py")),
    HERE / "test_calls.py",
    HERE / "test_shapes.py",
    HERE.parent / "test_training_step_triton.py",
]


def run(file: Path, marks: str) -> None:
    """Run one file's tests with these marks in the interpreter; fail with their output."""
    # one thread: numpy's own would fight with those of tests beside this one
    env = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", marks, str(file)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode == 5 and marks.startswith("slow"):
        pytest.skip("no slow tests in this file")
    assert done.returncode == 0, (
        f"exit status {done.returncode}\n{done.stdout[-8000:]}\n{done.stderr[-2000:]}"
    )


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)
def test_interpreted(file: Path) -> None:
    run(file, "not slow and not gpu")


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)
def test_interpreted_slow(file: Path) -> None:
    run(file, "slow and not gpu")
