"""Run the tests of Triton kernels under Triton's interpreter, in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from interpreter import needs_interpreter

pytestmark = needs_interpreter

HERE = Path(__file__).parent
# a process takes four seconds to begin; two of them take about as long as each other
FILES = {
    "attention and models": [
        HERE / "local_attention",
        HERE / "test_calls.py",
        HERE / "test_shapes.py",
        HERE.parent / "decoders" / "test_compiled_triton.py",
    ],
    "decoding": [HERE / "coordinate_decode", HERE / "decode_stage"],
}


def run(paths: list[Path], marks: str) -> None:
    """Run the tests with these marks in the interpreter; fail with their output."""
    # one thread: numpy's own would fight with those of tests beside this one
    env = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    files = [file for path in paths for file in (path.glob("test_*_triton.py") if path.is_dir() else [path])]
    # each test's name before it runs: it may end the process
    command = [sys.executable, "-m", "pytest", "-vv", "-p", "no:cacheprovider", "-m", marks, *map(str, files)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, (
        f"exit status {done.returncode}\n{done.stdout[-8000:]}\n{done.stderr[-2000:]}"
    )


@pytest.mark.parametrize("part", FILES)
def test_interpreted(part: str) -> None:
    run(FILES[part], "not slow and not gpu")


@pytest.mark.slow
@pytest.mark.parametrize("part", FILES)
def test_interpreted_slow(part: str) -> None:
    run(FILES[part], "slow and not gpu")
