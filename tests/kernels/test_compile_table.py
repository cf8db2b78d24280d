"""Compiling kernels ahead of time, for chips that are not here: a few; `make compile-table` does them all."""

import importlib.util
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("triton")

PROJECT = Path(__file__).resolve().parents[2] / "kernels"

SPOILED = """
import sys
sys.path.insert(0, {folder!r})
import compile_table
for spec in compile_table.registered("local_attention", {target!r}):
    if spec.name.endswith("forward_grid") and spec.label == "{dtype} C=256 H=8 K=7":
        tile = {{**spec.tile, **{tile}}}
        blocks = {{k: v for k, v in tile.items() if k in spec.kernel.arg_names}}
        spec = spec._replace(tile=tile, constants={{**spec.constants, **blocks}})
        print(compile_table.measure(spec, {target!r}).error)
"""


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own, in which kernels are compiled and not interpreted."""
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, env=env)


def table(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run(str(PROJECT / "compile_table.py"), *arguments)


@pytest.fixture(scope="module")
def compile_table():
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("compile_table", PROJECT / "compile_table.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_kernel_compiles_for_hopper():
    arguments = ["--target", "sm_90", "--kernel", "local_attention/forward_grid", "--match", "bf16 C=256"]
    done = table(*arguments, "--jobs", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    row = next(line for line in done.stdout.splitlines() if line.startswith("local_attention/forward_grid"))
    assert "mma" in row and "1 compiled, 0 failed" in done.stdout


def test_nothing_to_compile_is_an_error(compile_table, monkeypatch, capsys):
    monkeypatch.setattr(
        sys, "argv", ["compile_table.py", "--op", "local_attention", "--kernel", "no such kernel"]
    )
    assert compile_table.main() == 2 and "no registered kernel matches" in capsys.readouterr().err


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


def test_the_page_is_of_the_kernels_as_registered(compile_table):
    text = (PROJECT / "COMPILED.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")][1:]
    counts = {f"{kernel} | {target}": int(count) for kernel, target, count, *_ in rows}
    targets = compile_table.TARGETS
    specs = [(spec, target) for target in targets for spec in compile_table.registered(None, target)]
    settings = compile_table.digest(specs)
    registered = [f"{spec.name} | {target}" for spec, target in specs]
    wrong = "write it again: python kernels/compile_table.py --markdown kernels/COMPILED.md"
    assert registered and counts == Counter(registered), wrong
    assert f"{len(registered)} compiled, 0 failed; settings {settings}." in text, wrong


def test_a_page_shows_the_most_of_each_kernel_and_every_failure(compile_table, tmp_path):
    reports = [
        compile_table.Report("op/a", "sm_90", "bf16 x", "SLOTS=4", 90, 2048, 0, "wgmma"),
        compile_table.Report("op/a", "sm_90", "bf16 y", "SLOTS=8", 70, 4096, 8, "-", "spills 8 bytes"),
        compile_table.Report("op/b", "sm_90", "bf16 x", "SLOTS=4", 30, 0, 0, "-"),
    ]
    page = tmp_path / "page.md"
    page.write_text("the page before")
    compile_table.write(page, compile_table.markdown(reports, "Triton 3", "abc"))
    lines = page.read_text().splitlines()
    assert "Triton 3: 3 compiled, 1 failed; settings abc." in lines
    assert "| op/a | sm_90 | 2 | 90 | 4.0 | 8 | wgmma |" in lines
    assert "| op/b | sm_90 | 1 | 30 | 0.0 | 0 | - |" in lines
    assert "op/a bf16 y on sm_90, SLOTS=8: **spills 8 bytes**" in lines
    assert [path.name for path in tmp_path.iterdir()] == ["page.md"]


def test_a_page_holds_the_whole_table(compile_table, tmp_path, monkeypatch, capsys):
    words = ["compile_table.py", "--markdown", str(tmp_path / "page.md"), "--target", "sm_90"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit, match="2"):
        compile_table.main()
    assert "leave out what selects a part" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
