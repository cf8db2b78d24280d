"""Run the tests of triton/ under Triton's interpreter, each file in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from interpreter import needs_interpreter

pytestmark = needs_interpreter

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
