"""Everything that a GPU is needed for, in one command: checks, tests, benchmark, tuning, benchmark again.

    python kernels/benchmarks/gpu_session.py --out results                      # about 9 minutes
    python kernels/benchmarks/gpu_session.py --part slow --minutes 9            # the tests that take long
    python kernels/benchmarks/gpu_session.py --part bench --only "decode_stage paper bf16"
    python kernels/benchmarks/gpu_session.py --tiny                      # without a GPU: does it all run?

Needs torch and triton, and pytest for the tests; nothing is installed or downloaded. Each part runs in a
process of its own, with a time limit of its own, and writes as it goes, so a part that is cut off keeps what
it had. In --out: session.json, session.log, before.jsonl, after.jsonl, tuned.jsonl and the chip's tile table,
which is also written into this checkout.
"""

import argparse
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, TextIO

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PACKAGE = ROOT / "kernels" / "torch-ext"
TESTS = ROOT / "tests" / "kernels"

SHARES = {"check": 0.1, "tests": 0.25, "bench": 0.28, "tune": 0.25, "again": 0.12}
"""Parts of the time, in their order."""

ALONE = "slow"
"""Tests that take long, among them bfloat16 gradients: only where this part is asked for by name."""

CHECK = """
import torch
from clit_kernels.self_check import SHAPES, check_backend
tiny, device = {tiny}, {device!r}
wrong = 0
for shape in ("light",) if tiny else SHAPES:
    for dtype in (torch.float32, torch.float16, torch.bfloat16)[: 2 if device == "cpu" else 3]:
        found = check_backend("triton", device, dtype, shape)
        wrong += not found.right
        print(shape, dtype, "right" if found.right else "WRONG", found, flush=True)
raise SystemExit(wrong > 0)
"""
"""A stage, forward and backward, against float64: the interpreter has no bfloat16."""


Part = dict[str, Any]
"""Its name, its "state" ("passed", "failed", "cut off" or "skipped"), seconds, and its last words."""


def main() -> int:
    """Run the parts; 1 where one failed."""
    given = arguments()
    given.out.mkdir(parents=True, exist_ok=True)
    names = [ALONE] if given.part == ALONE else [n for n in SHARES if given.part in ("all", n)]
    total = sum(SHARES.get(name, 1.0) for name in names)
    chip = subprocess.run(
        [sys.executable, "-c", CHIP], env=_environment(False), capture_output=True, text=True
    )
    gpu = chip.stdout.strip()
    parts: list[Part] = []
    with open(given.out / "session.log", "w", encoding="utf-8") as log:
        _say(log, gpu or f"torch sees no GPU here{chip.stderr[-300:]}")
        for name in names:
            seconds = 60 * given.minutes * SHARES.get(name, 1.0) / total
            reason = _why_not(name, gpu, given.tiny)
            if reason:
                part = {"part": name, "state": "skipped", "seconds": 0.0, "words": reason}
            else:
                part = run_part(name, command(name, given, gpu, seconds), seconds, log, interpret=not gpu)
            parts.append(part)
            (given.out / "session.json").write_text(json.dumps({"gpu": gpu, "parts": parts}, indent=1) + "\n")
        for part in parts:
            _say(log, f"{part['part']:<8}{part['state']:<9}{part['seconds']:6.0f} s  {part['words']}")
    table = PACKAGE / "clit_kernels" / "tile_tables" / f"{gpu.partition(' ')[0]}.json"
    if table.is_file():
        shutil.copyfile(table, given.out / table.name)
    return int(any(part["state"] == "failed" for part in parts))


CHIP = """
import torch
from clit_kernels.tile_table import arch_of
if torch.cuda.is_available():
    print(arch_of(torch.device("cuda", 0)), torch.cuda.get_device_name(0))
"""


def _why_not(name: str, gpu: str, tiny: bool) -> str:
    """Why a part cannot run here, or ""."""
    if not gpu and not tiny:
        return "torch sees no GPU here; --tiny shows on a CPU that it runs"
    if not gpu and name == "tune":
        return "it times kernels, and torch sees no GPU here"
    missing = importlib.util.find_spec("pytest") is None and name in ("tests", ALONE)
    return "pytest is not installed here" if missing else ""


def command(name: str, given: argparse.Namespace, gpu: str, seconds: float) -> list[str]:
    """A part's command line; the parts stop by themselves a little before their limit."""
    minutes = f"{max(0.2, 0.85 * seconds / 60 - 0.3):.2f}"
    if name == "check":
        return [sys.executable, "-c", CHECK.format(tiny=given.tiny, device="cuda" if gpu else "cpu")]
    if name in ("tests", ALONE):
        line = ["-m", "pytest", "-p", "no:cacheprovider", "-m", "slow" if name == ALONE else "not slow"]
        line += ["--maxfail=30", "--durations=5", *(["-k", given.only or "band"] if given.tiny else [])]
        if importlib.util.find_spec("xdist") and gpu:  # most of the time goes into compiling
            line += ["-n", str(min(12, max(1, (os.cpu_count() or 2) - 2)))]
        return [sys.executable, *line, *map(str, sorted(TESTS.glob("*/*_triton.py")))]
    if name == "tune":
        line = [str(HERE / "tune.py"), "--minutes", minutes, "--log", str(given.out / "tuned.jsonl")]
        return [sys.executable, *line]
    file = given.out / ("before.jsonl" if name == "bench" else "after.jsonl")
    line = [str(HERE / "bench.py"), "--minutes", minutes, "--results", str(file), "--only", given.only]
    line += ["--commit", given.commit] if given.commit else []
    line += [] if gpu else ["--device", "cpu", "--threads", "1"]
    return [sys.executable, *line, *(["--tiny"] if given.tiny else [])]


def run_part(name: str, line: list[str], seconds: float, log: TextIO, interpret: bool) -> Part:
    """Run a command, its output into the log and onto the screen; at the limit it is ended."""
    _say(log, f"--- {name}, at most {seconds:.0f} s: {' '.join(line[1:]).splitlines()[0]}")
    started, last = time.monotonic(), ""
    process = subprocess.Popen(
        line, cwd=ROOT, env=_environment(interpret), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    late = threading.Timer(seconds, lambda: os.killpg(process.pid, signal.SIGKILL))
    late.start()
    try:
        for text in process.stdout:
            last = text.strip() or last
            _say(log, text.rstrip())
        code = process.wait()
    finally:
        late.cancel()
    took = time.monotonic() - started
    state = "passed" if code == 0 else "cut off" if code == -signal.SIGKILL and took >= seconds else "failed"
    return {"part": name, "state": state, "seconds": took, "words": last[:200]}


def _environment(interpret: bool) -> dict[str, str]:
    paths = [str(PACKAGE), os.environ.get("PYTHONPATH", "")]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUNBUFFERED": "1"}
    return env | ({"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"} if interpret else {})


def _say(log: TextIO, text: str) -> None:
    """Print, and write to the log at once."""
    print(text, flush=True)
    log.write(text + "\n")
    log.flush()


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=["all", *SHARES, ALONE], default="all", help="default: all of them")
    parser.add_argument("--minutes", type=float, default=9, help="for all parts together (default: 9)")
    parser.add_argument("--out", type=Path, default=Path("gpu_session"), help="folder for results and logs")
    parser.add_argument("--only", default="", help="tests or cases whose names contain this")
    parser.add_argument("--commit", default="", help="of this code, for the rows, where git cannot be asked")
    parser.add_argument("--tiny", action="store_true", help="a few pixels only; runs on a CPU as well")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
