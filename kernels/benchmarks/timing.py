"""Clocks: seconds of one call, bytes it takes, and how fast this device multiplies matrices."""

import statistics
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

PEAK_SIDE = 8192
"""Side of the matrices by which the peak is measured on a GPU: 1.1e12 operations."""


class Clock:
    """What is read before and after a call on a CPU: the time, or the time that this process computed.

    On a machine that others use as well the second says more, as long as one thread computes.
    """

    read: Callable[[], float] = time.perf_counter


def clock(compute: Callable[[], Any], device: torch.device) -> tuple[Any, float]:
    """What ``compute`` returns, and the seconds it took.

    On a GPU these lie between two events around it, and nothing of its inputs is in the L2 cache before.
    """
    if device.type != "cuda":
        start = Clock.read()
        result = compute()
        return result, Clock.read() - start
    started, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    _cache_filler(device).zero_()
    started.record()
    result = compute()
    ended.record()
    torch.cuda.synchronize(device)
    return result, started.elapsed_time(ended) / 1e3


@cache
def _cache_filler(device: torch.device) -> Tensor:
    """Memory of twice the L2 cache: writing it drives everything else out."""
    size = 2 * torch.cuda.get_device_properties(device).L2_cache_size
    return torch.empty(size, dtype=torch.uint8, device=device)


def with_memory(compute: Callable[[], Any], device: torch.device) -> tuple[Any, dict[str, int]]:
    """What ``compute`` returns, and on a GPU the most bytes that tensors took meanwhile and just before."""
    if device.type != "cuda":
        return compute(), {}
    own = _cache_filler(device).nbytes
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device) - own
    result = compute()
    torch.cuda.synchronize(device)
    peak = torch.cuda.max_memory_allocated(device) - own
    return result, {"peak_bytes": peak, "before_bytes": before}


@cache
def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of a large product of random square matrices: the median of 20."""
    cuda = device.type == "cuda"
    n = PEAK_SIDE if cuda and dtype != torch.float32 else PEAK_SIDE // 2 if cuda else 512
    generator = torch.Generator(device).manual_seed(0)
    a, b = (torch.randn(n, n, generator=generator, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    runs = [clock(lambda: torch.mm(a, b, out=out), device)[1] for _ in range(25)][5:]
    return 2 * n**3 / statistics.median(runs)
