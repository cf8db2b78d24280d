"""Peak memory of one run of a case, beside the interpreter, the libraries and the weights.

On a GPU torch counts it. On a CPU it is the highest resident size of a process of its own, as what other
models have left to this one's allocator would hide it: ``python -m clit_zoo.bench.memory`` is that process.
"""

import json
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import torch

from . import cases


def peak_bytes(case: cases.Case) -> int | None:
    """The most bytes that a case takes at once; None where that cannot be told."""
    if case.model.device.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run(case)
        return torch.cuda.max_memory_allocated() - before
    words = json.dumps([type(case).__name__, asdict(case), torch.get_num_threads()])
    command = [sys.executable, "-m", "clit_zoo.bench.memory", words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)  # says itself why it fails
    return json.loads(done.stdout) if done.returncode == 0 else None


def run(case: cases.Case) -> None:
    """Run a case once."""
    for part in case.parts:
        getattr(case, part)()


def _highest(*, anew: bool = False) -> int:
    """Highest resident size of this process so far, or from now on, in bytes; 0 where Linux does not say."""
    # what getrusage says cannot be set back, and begins with the size of the process that started this one
    if anew:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:")), 0)


def main() -> None:
    """Print the bytes that the case described by the one argument takes."""
    kind, settings, threads = json.loads(sys.argv[1])
    torch.set_num_threads(threads)
    case = getattr(cases, kind)(**settings)
    small = {"batch": 1, "patch": cases.SMALL[0]} if kind == "Step" else {"size": cases.SMALL}
    first = replace(case, **small)
    first.model = case.model
    run(first)  # what libraries allocate once
    before = _highest(anew=True)  # loading has taken more than what is left of it
    run(case)
    print(_highest() - before if before else json.dumps(None))


if __name__ == "__main__":
    main()
