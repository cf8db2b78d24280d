"""What a measurement was made on."""

import os
import platform
import subprocess
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from .. import __version__

PACKAGE = Path(__file__).resolve().parents[1]


def describe(device: torch.device) -> dict[str, Any]:
    """Device, cores, threads, how busy the machine was, versions, commit and date; None where unknown."""
    facts = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "clit_zoo": __version__,
        "commit": _commit(),
        "torch": torch.__version__,
        "triton": None,
        "python": platform.python_version(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with suppress(PackageNotFoundError):
        facts["triton"] = version("triton")
    return facts


def _commit() -> str | None:
    """The commit, with a + where the package's files differ from it; None outside of a checkout."""
    if not (PACKAGE.parent / ".git").exists():  # an installed package may lie in somebody else's checkout
        return None
    command = ["git", "-C", str(PACKAGE), "describe", "--always", "--exclude=*", "--dirty=+"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _cpu() -> str:
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()
