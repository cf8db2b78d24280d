"""The one command for a GPU, on a machine without one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import bench
import gpu_session
import pytest
import tune

SCRIPT = Path(gpu_session.__file__)


def session(*arguments, out):
    command = [sys.executable, str(SCRIPT), "--out", str(out), *arguments]
    env = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, env=env, capture_output=True, text=True)


def test_without_a_gpu_it_skips_its_parts_and_says_why(tmp_path):
    done = session(out=tmp_path)
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "session.json").read_text())
    assert [part["part"] for part in written["parts"]] == list(gpu_session.SHARES)
    assert all(part["state"] == "skipped" and "no GPU here" in part["words"] for part in written["parts"])
    assert (tmp_path / "session.log").read_text() in done.stdout


def test_a_part_that_takes_too_long_is_cut_off_and_keeps_its_words(tmp_path):
    with open(tmp_path / "log", "w") as log:
        code = "import time; print('so far'); time.sleep(60)"
        late = gpu_session.run_part("tune", [sys.executable, "-c", code], 2.0, log, False)
        wrong = gpu_session.run_part("tests", [sys.executable, "-c", "raise SystemExit(3)"], 30.0, log, False)
    assert (late["state"], late["words"]) == ("cut off", "so far") and late["seconds"] < 30
    assert wrong["state"] == "failed"
    assert "so far" in (tmp_path / "log").read_text()


def test_the_parts_commands_are_ones_their_scripts_take(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gpu_session.py", "--out", str(tmp_path), "--commit", "abc"])
    given = gpu_session.arguments()
    for name, module in (("bench", bench), ("tune", tune), ("again", bench)):
        line = gpu_session.command(name, given, "sm_90 NVIDIA H100", 120.0)
        assert Path(line[1]).name == f"{module.__name__}.py"
        monkeypatch.setattr(sys, "argv", line[1:])
        assert 0.5 < module.arguments().minutes < 2.0
    check = gpu_session.command("check", given, "sm_90 NVIDIA H100", 120.0)
    compile(check[2], "check", "exec")
    tests = gpu_session.command("tests", given, "sm_90 NVIDIA H100", 120.0)
    assert sum(word.endswith("_triton.py") for word in tests) == 3


@pytest.mark.slow
def test_a_tiny_session_checks_on_a_cpu(tmp_path):
    pytest.importorskip("triton")
    done = session("--tiny", "--part", "check", "--minutes", "9", out=tmp_path)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count(" right ") == 2
