"""How many threads a command should compute with.

Two threads on a core that something else is using run several times slower than one: torch's threads wait for
each other at every operation. A 128x128 picture took 18 s so, and 2.8 s with the count found here. An option
would leave that to people who do not know why their machine is slow.
"""

import math
import os
import time
from contextlib import suppress
from pathlib import Path

import torch

SAMPLE_SECONDS = 0.1


def use_free_cores() -> int:
    """Set torch's thread count to the cores that are idle now, unless OMP_NUM_THREADS says otherwise.

    For commands only: a library does not change its host's settings. Returns the count.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(torch.get_num_threads(), free_cores()))
    return torch.get_num_threads()


def usable_cores() -> int:
    """The cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_cores() -> int:
    """This process' cores that are idle, at least 1; all of them where the system cannot tell."""
    share = min(usable_cores(), _quota())
    before = _idle()
    if before is None:
        return share
    time.sleep(SAMPLE_SECONDS)
    ticks = SAMPLE_SECONDS * os.sysconf("SC_CLK_TCK")
    return max(1, min(share, round(((_idle() or 0) - before) / ticks)))


def _idle(stat: Path = Path("/proc/stat")) -> int | None:
    """Idle ticks of all cores since boot, or None where there is no such file."""
    fields = stat.read_text().split("\n", 1)[0].split() if stat.exists() else []
    return int(fields[4]) + int(fields[5]) if fields else None


def _quota(limit: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Cores that the container may use, rounded up; a large number where there is no limit."""
    with suppress(OSError, ValueError):
        quota, period = limit.read_text().split()
        return max(1, math.ceil(int(quota) / int(period)))
    return 1 << 16
