"""Times backends side by side, and only those whose results are right.

A case is one computation and the backends that can do it, the first being the yardstick. Nothing is timed
where a backend's result is wrong. Each round runs every backend once, so that whatever else the machine does
falls on all of them alike. What is not timed, or not on the whole case, leaves a row that says why.
"""

import gc
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from timing import clock, matmul_peak, with_memory
from torch import Tensor

LONG = 5.0
"""A first run of so many seconds needs no warm-up and counts as a measurement."""

MOST_RUNS = 50

Compute = Callable[[Any, str], Any]
Row = dict[str, Any]


@dataclass(frozen=True)
class Promise:
    """What the project promises of one backend: ``key`` of its row is at least, or at most, ``limit``."""

    backend: str
    key: str
    limit: float
    words: str
    at_least: bool = True

    def kept(self, row: Row) -> bool | None:
        """Whether a row keeps it; None where the row does not have the figure."""
        value = row.get(self.key)
        return None if value is None else bool(value >= self.limit if self.at_least else value <= self.limit)


@dataclass(frozen=True)
class Check:
    """A result, its exact value, and what plain PyTorch makes of it in the same dtype."""

    result: Sequence[Tensor]
    plain: Sequence[Tensor]
    truth: Sequence[Tensor]


@dataclass(frozen=True)
class Case:
    """One computation.

    Attributes:
        name: what the table and the rows call it.
        backends: their names, the yardstick first.
        prepare: makes the inputs, once; takes the device.
        run: computes it from what ``prepare`` made, by a backend.
        check: what is compared before anything is timed; by default the whole result with the yardstick's.
        spot: likewise, from the whole result of a backend that computed all of it.
        exact: largest difference as a share of the truth's range; where None, at most twice that of plain
            PyTorch in the same dtype, the largest and the root of the mean square alike.
        promises: what the project promises of it.
        seconds: time for each backend's measurements; it is run at least once.
        operations: of the whole, as ``counts`` reckons them.
        dtype: whose matrix products those are.
        shares: the part of the case that a slow backend is timed on.
        part: the inputs of such a part, and how large it is exactly.
        skipped: why a backend is not timed.
        facts: more entries of every row.
    """

    name: str
    backends: Sequence[str]
    prepare: Callable[[torch.device], Any]
    run: Compute
    check: Callable[[Any, str], Check] | None = None
    spot: Callable[[Any, Any], Check] | None = None
    exact: float | None = 1e-5
    promises: Sequence[Promise] = ()
    seconds: float = 10.0
    operations: float | None = None
    dtype: torch.dtype = torch.float32
    shares: Mapping[str, float] = field(default_factory=dict)
    part: Callable[[Any, float], tuple[Any, float]] | None = None
    skipped: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


class GateError(Exception):
    """A backend's result is wrong."""


class Timed:
    """One backend on a case, or a part of it: its inputs, times, error and memory; or why there are none."""

    def __init__(self, backend: str, inputs: Any, share: float):
        self.backend, self.inputs, self.share = backend, inputs, share
        self.times: list[float] = []
        self.error: float | None = None
        self.memory: dict[str, int] = {}
        self.reason: str | None = None
        self.failed = False

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


def measure(case: Case, device: torch.device) -> list[Row]:
    """Check every backend of a case, then time those that are right: a row for each."""
    inputs = case.prepare(device)
    backends = [_timed(case, name, inputs) for name in case.backends]
    truth: list[Tensor] = []
    for backend in backends:
        _guarded(backend, lambda b: _gate(case, b, truth, device))
    for backend in backends:
        _guarded(backend, lambda b: _warm_up(case, b, device))
    while due := [b for b in backends if b.has_room(case.seconds)]:
        for backend in due:
            _guarded(backend, lambda b: b.times.append(_run(case, b, device)[1]))
    return [_row(case, b, backends[0], device) for b in backends]


def _timed(case: Case, name: str, inputs: Any) -> Timed:
    share = case.shares.get(name, 1.0)
    if share < 1 and case.part is not None:
        inputs, share = case.part(inputs, share)
    timed = Timed(name, inputs, share)
    timed.reason = case.skipped.get(name)
    return timed


def _guarded(backend: Timed, work: Callable[[Timed], None]) -> None:
    """Do ``work``; a backend that fails is left out from there on, and its row says why."""
    if backend.reason is not None:
        return
    try:
        work(backend)
        return
    except torch.cuda.OutOfMemoryError as error:
        backend.reason = f"out of memory: {_short(error)}"
    except GateError as error:
        backend.reason, backend.failed = f"WRONG: {error}", True
    except Exception as error:  # one backend's failure must not cost the others' measurements
        backend.reason, backend.failed = f"FAILED: {type(error).__name__}: {_short(error)}", True
    backend.times.clear()
    gc.collect()
    torch.cuda.empty_cache()


def _short(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return (lines[0] if len(lines[0]) > 20 else " ".join(lines))[:200]


def _run(case: Case, backend: Timed, device: torch.device) -> tuple[Any, float]:
    return clock(lambda: case.run(backend.inputs, backend.backend), device)


def _gate(case: Case, backend: Timed, truth: list[Tensor], device: torch.device) -> None:
    """Fail where the result is wrong; ``truth`` takes the yardstick's result, where others are held to it."""
    yardstick = backend.backend == case.backends[0]
    if case.check is not None:
        backend.error = judge(case.exact, case.check(backend.inputs, backend.backend), yardstick)
        return
    result, seconds = _run(case, backend, device)
    if yardstick:
        truth.append(result)
    backend.error = judge(case.exact, Check([result], truth, [t.double() for t in truth]), yardstick)
    if seconds > LONG:
        backend.times.append(seconds)


def judge(exact: float | None, found: Check, yardstick: bool = False) -> float:
    """The largest difference as a share of the truth's range; raises where it is more than is allowed.

    The yardstick is what others are compared with: its own rounding is reported and not judged.
    """
    worst = 0.0
    for result, plain, truth in zip(found.result, found.plain, found.truth, strict=True):
        spread = max(float(truth.max() - truth.min()), 1e-30)
        error, usual = ((t.double() - truth).abs() / spread for t in (result, plain))
        for kind, size in (("largest", Tensor.max), ("root mean square", _rms)):
            value = float(size(error))
            limit = 2 * float(size(usual)) if exact is None else exact
            if not yardstick and not value <= limit:  # NaN must not pass
                raise GateError(f"off by {value:.1e} of the range ({kind}), allowed are {limit:.1e}")
        worst = max(worst, float(error.max()))
    return worst


def _rms(error: Tensor) -> Tensor:
    return error.square().mean().sqrt()


def _warm_up(case: Case, backend: Timed, device: torch.device) -> None:
    """Run once or twice before the clock counts: compilation, memory pools; and look at the whole result."""
    if device.type != "cuda" and case.check is None:
        return  # the gate ran the whole case
    if device.type == "cuda" or backend.backend.startswith("compiled"):
        case.run(backend.inputs, backend.backend)  # what compiling takes is not what running takes
    result, backend.memory = with_memory(lambda: case.run(backend.inputs, backend.backend), device)
    if case.spot is not None and backend.share == 1:
        judge(case.exact, case.spot(backend.inputs, result), backend.backend == case.backends[0])


def _row(case: Case, backend: Timed, yardstick: Timed, device: torch.device) -> Row:
    row: Row = {"case": case.name, "backend": backend.backend, **case.facts}
    row |= {"error": backend.error, "tolerance": case.exact or "twice plain PyTorch's"}
    if backend.reason is not None or not backend.times:
        return row | {"skipped": backend.reason, "failed": backend.failed}
    ordered, whole = sorted(backend.times), backend.median
    low, high = (ordered[round(share * (len(ordered) - 1))] / backend.share for share in (0.2, 0.8))
    row |= {"median_s": whole, "p20_s": low, "p80_s": high, "runs": len(ordered), "share": backend.share}
    row |= {"speed_up": yardstick.median / whole if yardstick.times else None, **backend.memory}
    if case.operations is not None:
        row |= {"operations": case.operations, "tflops": case.operations / whole / 1e12}
        if device.type == "cuda":
            peak = matmul_peak(device, case.dtype)
            row |= {"matmul_peak_tflops": peak / 1e12, "share_of_peak": case.operations / whole / peak}
    if backend.memory and yardstick.memory and yardstick.share == backend.share == 1:
        taken = [b.memory["peak_bytes"] - b.memory["before_bytes"] for b in (yardstick, backend)]
        row["memory_ratio"] = taken[0] / max(taken[1], 1)
    kept = {p.words: p.kept(row) for p in case.promises if p.backend == backend.backend}
    return row | ({"promises": kept} if kept else {})
