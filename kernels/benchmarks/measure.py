"""Times backends side by side, and only those whose results are right.

The first backend of a case is the yardstick. A backend with a wrong result is not timed. Each round runs
every backend once, so that other load on the machine falls on all of them alike. A backend that is not timed,
or only on a part of the case, leaves a row that says why.
"""

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import torch
from cases import Case, Inputs, Tiles, Way, compute, formula, inputs, part, spots
from torch import Tensor

LONG = 5.0
"""A warm-up that takes more seconds than this counts as a measurement."""

MOST_RUNS = 50

PEAK_SIDE = 8192
"""Side of the matrices by which the peak is measured on a GPU: 1.1e12 operations."""

Row = dict[str, Any]


class Promise(NamedTuple):
    """What the project promises of one backend: ``key`` of its row is at least ``limit``."""

    backend: str
    key: str
    limit: float
    words: str


class GateError(Exception):
    """A backend's result is wrong."""


class Clock:
    """What is read before and after a call on a CPU: the time, or the time that this process computed.

    On a machine that others use as well the second says more, as long as one thread computes.
    """

    read: Callable[[], float] = time.perf_counter


@dataclass
class Timed:
    """One backend on a case, or a part of it: its inputs, times, error and memory; or why there are none."""

    way: Way
    inputs: Inputs
    share: float = 1.0
    times: list[float] = field(default_factory=list)
    error: float | None = None
    memory: dict[str, int] = field(default_factory=dict)
    reason: str | None = None
    failed: bool = False

    def has_room(self, seconds: float) -> bool:
        """Whether another run fits."""
        if self.reason is not None:
            return False
        return not self.times or (
            sum(self.times) + min(self.times) <= seconds and len(self.times) < MOST_RUNS
        )

    @property
    def median(self) -> float:
        """Seconds for the whole case."""
        return statistics.median(self.times) / self.share


def measure(
    case: Case,
    ways: Sequence[Way],
    device: torch.device,
    *,
    seconds: float = 1.0,
    limits: Mapping[str, int] | None = None,
    promises: Sequence[Promise] = (),
    tiles: Tiles | None = None,
) -> list[Row]:
    """Check every backend on a small case, then time those that are right: a row for each.

    Args:
        seconds: time for each backend's measurements; it is run at least once.
        limits: queries that a backend is timed on at most, by its name.
        tiles: the kernels' tiles, as the ops take them.
    """
    x = inputs(case, device)
    backends = [_timed(case, way, x, (limits or {}).get(way.name)) for way in ways]
    small, few = case.small(), inputs(case.small(), device)
    plain, truth = formula(small, few), formula(small, few, torch.float64)

    def check(b: Timed) -> None:
        found = compute(small, few, b.way, tiles)
        b.error = judge(found, plain, truth, case.dtype, strict=b is not backends[0])

    def run(b: Timed) -> list[Tensor]:
        return compute(case, b.inputs, b.way, tiles)

    def warm_up(b: Timed) -> None:
        """Compilation, memory pools; and a look at random queries of the whole result."""
        if device.type == "cuda" or b.way.compiled:
            run(b)  # compiles: not to be counted
        (results, took), b.memory = with_memory(lambda: clock(lambda: run(b), device), device)
        if case.output and b.share == 1:
            some, index = spots(b.inputs)
            exact = formula(case, some, torch.float64)
            judge([results[0][:, index]], formula(case, some), exact, case.dtype, strict=b is not backends[0])
        if took > LONG and device.type != "cuda":
            b.times.append(took)

    for work in (check, warm_up):
        for b in backends:
            _guarded(b, work)
    while due := [b for b in backends if b.has_room(seconds)]:
        for b in due:
            _guarded(b, lambda b: b.times.append(clock(lambda: run(b), device)[1]))
    return [_row(case, b, backends[0], device, promises) for b in backends]


def judge(
    results: Sequence[Tensor],
    plain: Sequence[Tensor],
    truth: Sequence[Tensor],
    dtype: torch.dtype,
    *,
    strict: bool = True,
) -> float:
    """The largest difference as a share of the truth's range.

    float32 may be off by 1e-5 of it; lower precision twice as much as plain PyTorch in that precision, the
    largest difference and the root of the mean square alike.

    Raises:
        GateError: it is more, and ``strict``; the yardstick's own rounding is reported and not judged.
    """
    worst = 0.0
    for result, usual, exact in zip(results, plain, truth, strict=True):
        spread = max(float(exact.max() - exact.min()), 1e-30)
        error, allowed = ((t.double() - exact).abs() / spread for t in (result, usual))
        for kind, size in (("largest", Tensor.max), ("root mean square", _rms)):
            value = float(size(error))
            limit = 1e-5 if dtype == torch.float32 else 2 * float(size(allowed))
            if strict and not value <= limit:  # NaN must not pass
                raise GateError(f"off by {value:.1e} of the range ({kind}), allowed are {limit:.1e}")
        worst = max(worst, float(error.max()))
    return worst


def _rms(error: Tensor) -> Tensor:
    return error.square().mean().sqrt()


def _timed(case: Case, way: Way, x: Inputs, limit: int | None) -> Timed:
    share = min(1.0, (limit or case.queries) / case.queries)
    return Timed(way, *part(x, share)) if share < 1 and case.output else Timed(way, x)


def _guarded(b: Timed, work: Callable[[Timed], object]) -> None:
    """Do ``work``; a backend that fails is left out from there on, and its row says why."""
    if b.reason is not None:
        return
    try:
        work(b)
        return
    except torch.cuda.OutOfMemoryError as error:
        b.reason = f"out of memory: {_short(error)}"
    except GateError as error:
        b.reason, b.failed = f"WRONG: {error}", True
    except Exception as error:  # one backend's failure must not cost the others' measurements
        b.reason, b.failed = f"FAILED: {type(error).__name__}: {_short(error)}", True
    b.times.clear()
    gc.collect()
    torch.cuda.empty_cache()


def _short(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return (lines[0] if len(lines[0]) > 20 else " ".join(lines))[:200]


def _row(case: Case, b: Timed, yardstick: Timed, device: torch.device, promises: Sequence[Promise]) -> Row:
    exact = 1e-5 if case.dtype == torch.float32 else "twice plain PyTorch's"
    row: Row = {"case": case.name, "op": case.op, "shape": case.shape, "backend": b.way.name}
    row |= {"error": b.error, "tolerance": exact}
    if b.reason is not None or not b.times:
        return row | {"skipped": b.reason, "failed": b.failed}
    ordered, whole = sorted(b.times), b.median
    low, high = (ordered[round(share * (len(ordered) - 1))] / b.share for share in (0.2, 0.8))
    row |= {"median_s": whole, "p20_s": low, "p80_s": high, "runs": len(ordered), "share": b.share}
    row |= {"speed_up": yardstick.median / whole if yardstick.times else None, **b.memory}
    row |= {"operations": case.operations, "tflops": case.operations / whole / 1e12}
    if device.type == "cuda":
        peak = matmul_peak(device, case.dtype)
        row |= {"matmul_peak_tflops": peak / 1e12, "share_of_peak": case.operations / whole / peak}
    if b.memory and yardstick.memory and yardstick.share == b.share == 1:
        taken = [t.memory["peak_bytes"] - t.memory["before_bytes"] for t in (yardstick, b)]
        row["memory_ratio"] = taken[0] / max(taken[1], 1)
    own = [p for p in promises if p.backend == b.way.name and row.get(p.key) is not None]
    return row | ({"promises": {p.words: bool(row[p.key] >= p.limit) for p in own}} if own else {})


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
    """Operations per second of a large product of random square matrices on a GPU: the median of 20."""
    n = PEAK_SIDE if dtype != torch.float32 else PEAK_SIDE // 2
    generator = torch.Generator(device).manual_seed(0)
    a, b = (torch.randn(n, n, generator=generator, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    runs = [clock(lambda: torch.mm(a, b, out=out), device)[1] for _ in range(25)][5:]
    return 2 * n**3 / statistics.median(runs)
