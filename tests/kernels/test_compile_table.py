"""Compiling the kernels ahead of time, for chips that are not here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

PROJECT = Path(__file__).resolve().parents[2] / "kernels"

SPOILED = """
import sys
from clit_kernels import settings
sys.path.insert(0, {folder!r})
import compile_table
with settings.forced({{"local_attention/forward_grid": {tile}}}):
    for spec in compile_table.registered("local_attention", {target!r}):
        if spec.name.endswith("forward_grid") and spec.label == "{dtype} C=256 H=8 K=7":
            print(compile_table.measure(spec, {target!r}).error)
"""


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own, in which kernels are compiled and not interpreted."""
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, env=env)


def table(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run(str(PROJECT / "compile_table.py"), *arguments)


def test_a_kernel_compiles_for_hopper():
    arguments = ["--target", "sm_90", "--kernel", "local_attention/forward_grid", "--match", "bf16 C=256"]
    done = table(*arguments, "--jobs", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    row = next(line for line in done.stdout.splitlines() if line.startswith("local_attention/forward_grid"))
    assert "mma" in row and "1 compiled, 0 failed" in done.stdout


def test_nothing_to_compile_is_an_error():
    done = table("--op", "local_attention", "--kernel", "no such kernel")
    assert done.returncode == 2 and "no registered kernel matches" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "tile", "target", "error"),
    [
        ("bf16", {"SLOTS": 64, "num_warps": 4}, "sm_90", "spills"),
        ("fp32", {"GROUP": 16, "num_warps": 8}, "sm_80", "shared memory above 163 KiB"),
    ],
)
def test_a_tile_that_does_not_fit_is_reported(dtype, tile, target, error):
    done = run("-c", SPOILED.format(folder=str(PROJECT), dtype=dtype, tile=tile, target=target))
    assert error in done.stdout, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100", "gfx942"])
def test_every_registered_kernel_fits(target):
    done = table("--target", target)
    assert done.returncode == 0, done.stdout + done.stderr
