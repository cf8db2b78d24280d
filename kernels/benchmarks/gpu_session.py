"""Everything that a GPU is needed for, in one command: tests, benchmark, tuning, benchmark again.

    python kernels/benchmarks/gpu_session.py --out results                      # about 9 minutes
    python kernels/benchmarks/gpu_session.py --part slow --minutes 9            # the tests that take long
    python kernels/benchmarks/gpu_session.py --part bench --only "edsr-clit 960x540"
    python kernels/benchmarks/gpu_session.py --tiny                      # without a GPU: does it all run?

Needs torch, triton and pytest, and the packages that clit_zoo imports; clit_zoo itself is taken from this
checkout and need not be installed. Nothing is downloaded. Each part runs in a process of its own, with a time
limit of its own, and writes as it goes, so a part that is cut off keeps what it had. In --out: session.json,
session.log, before.jsonl, after.jsonl, tuned.jsonl and the chip's settings, which are also written into this
checkout.
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
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
PACKAGES = ("torch", "triton", "timm", "safetensors", "huggingface_hub", "PIL", "click", "tqdm", "tifffile")

SHARES = {"tests": 0.3, "bench": 0.3, "tune": 0.25, "again": 0.15}
"""Parts of the time, in their order."""

ALONE = "slow"
"""Tests that take long, among them bfloat16 gradients: only where this part is asked for by name."""

SETTINGS = ROOT / "kernels" / "torch-ext" / "clit_kernels" / "settings"

TESTS = ROOT / "tests" / "kernels" / "triton"


@dataclass
class Part:
    """What became of one part: "passed", "failed", "cut off" or "skipped", and its last words."""

    name: str
    state: str
    seconds: float = 0.0
    words: str = ""


def main() -> int:
    """Run the parts; 1 where one failed."""
    given = arguments()
    out: Path = given.out
    out.mkdir(parents=True, exist_ok=True)
    with open(out / "session.log", "w", encoding="utf-8") as log:
        here = environment()
        say(log, json.dumps(here, indent=1))
        parts = run_parts(given, here, out, log)
        for part in parts:
            say(log, f"{part.name:<8}{part.state:<9}{part.seconds:6.0f} s  {part.words}")
        figures(out, log)
    return int(any(part.state == "failed" for part in parts))


def environment() -> dict[str, Any]:
    """Versions, the GPU, and what is missing; nothing here fails where something is."""
    found: dict[str, Any] = {"python": sys.version.split()[0], "cores": os.cpu_count()}
    found["missing"] = [name for name in (*PACKAGES, "pytest") if importlib.util.find_spec(name) is None]
    found["xdist"] = importlib.util.find_spec("xdist") is not None
    found["gpu"] = None
    if "torch" in found["missing"]:
        return found
    import torch

    found["torch"] = torch.__version__
    if torch.cuda.is_available():
        sys.path.insert(0, str(SETTINGS.parents[1]))  # which need not be installed here
        from clit_kernels.settings import arch_of

        properties, chip = torch.cuda.get_device_properties(0), arch_of(torch.device("cuda", 0))
        found |= {"gpu": properties.name, "chip": chip, "memory": properties.total_memory}
        found |= {"cuda": torch.version.cuda, "multiprocessors": properties.multi_processor_count}
    if "triton" not in found["missing"]:
        import triton

        found["triton"] = triton.__version__
    return found


def run_parts(given: argparse.Namespace, here: Mapping[str, Any], out: Path, log: TextIO) -> list[Part]:
    """The parts that were asked for, each within its share of the time."""
    names = [ALONE] if given.part == ALONE else [n for n in SHARES if given.part in ("all", n)]
    total = sum(SHARES.get(name, 1.0) for name in names)
    parts: list[Part] = []
    for name in names:
        reason = why_not(name, given, here)
        if reason:
            parts.append(Part(name, "skipped", words=reason))
        else:
            seconds = 60 * given.minutes * SHARES.get(name, 1.0) / total
            line = command(name, given, here, out, seconds)
            parts.append(run_part(name, line, seconds, log, interpret=here["gpu"] is None))
        say(log, f"--- {name}: {parts[-1].state}")
        keep_settings(here, out)
        report = {"environment": dict(here), "parts": [asdict(part) for part in parts]}
        (out / "session.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return parts


def why_not(name: str, given: argparse.Namespace, here: Mapping[str, Any]) -> str:
    """Why a part cannot run here, or ""."""
    needed = [package for package in here["missing"] if package != "pytest" or name in ("tests", ALONE)]
    if needed:
        return f"{', '.join(needed)} not installed here"
    if here["gpu"] is None and not given.tiny:
        return "torch sees no GPU here; --tiny shows on a CPU that it runs"
    if here["gpu"] is None and name == "tune":
        return "it times kernels, and torch sees no GPU here"
    return ""


def command(
    name: str, given: argparse.Namespace, here: Mapping[str, Any], out: Path, seconds: float
) -> list[str]:  # fmt: skip
    """A part's command line; the parts stop by themselves a little before their limit."""
    minutes = f"{max(0.2, 0.85 * seconds / 60 - 0.3):.2f}"
    if name in ("tests", ALONE):
        line = ["-m", "pytest", "-p", "no:cacheprovider", "-x" if given.tiny else "--maxfail=30"]
        line += ["-m", "slow" if name == ALONE else "not slow", "--durations=5", str(TESTS)]
        if here["xdist"] and not given.tiny:  # most of the time goes into compiling
            line += ["-n", str(min(12, max(1, (here["cores"] or 2) - 2)))]
        return [sys.executable, *line, *(["-k", given.only] if given.only else [])]
    if name == "tune":
        line = [str(HERE / "tune.py"), "--minutes", minutes, "--log", str(out / "tuned.jsonl")]
        return [sys.executable, *line]
    file = out / ("before.jsonl" if name == "bench" else "after.jsonl")
    line = [str(HERE / "bench.py"), "--minutes", minutes, "--results", str(file), "--only", given.only]
    if given.commit:
        line += ["--commit", given.commit]
    if here["gpu"] is None:
        line += ["--device", "cpu", "--threads", "1"]
    return [sys.executable, *line, *(["--tiny"] if given.tiny else [])]


def run_part(name: str, line: Sequence[str], seconds: float, log: TextIO, interpret: bool = False) -> Part:
    """Run a command, its output into the log and onto the screen; at the limit it is ended.

    ``interpret``: kernels run in Triton's interpreter, where there is no GPU.
    """
    say(log, f"--- {name}, at most {seconds:.0f} s: {' '.join(line[1:])}")
    paths = [str(ROOT), str(ROOT / "kernels" / "torch-ext"), os.environ.get("PYTHONPATH", "")]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUNBUFFERED": "1"}
    if interpret:
        env |= {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    started = time.monotonic()
    process = subprocess.Popen(
        line, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    late = threading.Timer(seconds, lambda: os.killpg(process.pid, signal.SIGKILL))
    late.start()
    last = ""
    try:
        for text in process.stdout:
            last = text.strip() or last
            say(log, text.rstrip())
        code = process.wait()
    finally:
        late.cancel()
    took = time.monotonic() - started
    state = "passed" if code == 0 else "cut off" if code == -signal.SIGKILL and took >= seconds else "failed"
    return Part(name, state, took, last[:200])


def keep_settings(here: Mapping[str, Any], out: Path) -> None:
    """Copy the chip's settings, where there are some, beside the results."""
    file = SETTINGS / f"{here.get('chip')}.json"
    if file.is_file():
        shutil.copyfile(file, out / file.name)


def figures(out: Path, log: TextIO) -> None:
    """The promises, and every case that was timed before and after tuning."""
    before, after = (_rows(out / f"{name}.jsonl") for name in ("before", "after"))
    for key, row in before.items():
        now = after.get(key, {})
        times = f"{row['median_s'] * 1e3:.3g}" + (f" -> {now['median_s'] * 1e3:.3g}" if now else "")
        kept = "; ".join(f"{w}: {'yes' if k else 'NO'}" for w, k in (now or row).get("promises", {}).items())
        if kept or now:
            say(log, f"{key[0]:<46}{key[1]:<12}{times:>18} ms  {kept}")


def _rows(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    if not path.is_file():
        return {}
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {(row["case"], row["backend"]): row for row in rows if "median_s" in row}


def say(log: TextIO, text: str) -> None:
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
    parser.add_argument(
        "--out", type=Path, default=Path("gpu_session"),
        help="folder for results and logs (default: gpu_session, here)",
    )  # fmt: skip
    parser.add_argument("--only", default="", help="tests or cases whose names contain this")
    parser.add_argument("--commit", default="", help="of this code, for the rows, where git cannot be asked")
    parser.add_argument("--tiny", action="store_true", help="a few pixels only; runs on a CPU as well")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
