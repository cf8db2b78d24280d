"""Cases side by side: each is checked, then they take turns at the clock."""

import copy
import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import ClitZooError, is_out_of_memory
from ..geometry import output_size
from .cases import LOW, Case, Enlargement
from .memory import peak_bytes
from .products import share

EXACT = 1e-5
"""Largest difference in float32, as a share of the range of the true result."""

MOST_RUNS = 50

LONG = 20.0
"""A first run of so many seconds counts: what it loads and compiles is little beside that."""

Row = dict[str, Any]
"""A case's facts, the ``error`` of its check, seconds of its parts, and their sum; or why it ``failed``."""


class WrongResultError(ClitZooError):
    """A result is not what the formula gives in float64."""


def measure(cases: Sequence[Case], seconds: float, *, products: bool = False) -> list[Row]:
    """Check and time cases.

    Every round runs each once, so that whatever else the machine does falls on all alike.

    Args:
        cases: to compare.
        seconds: for the runs of each; there is one at least, after one that does not count.
        products: also time an enlargement's convolutions and matrix products alone (``products.share``).
    """
    rows, timed = [], []
    for case in cases:
        row, first = _begin(case)
        rows.append(row)
        if first is not None:
            timed.append((case, row, [first] if sum(first) > LONG else []))
    while due := [(case, done) for case, _, done in timed if _has_room(done, seconds)]:
        for case, done in due:
            done.append(_run(case))
    for case, row, done in timed:
        row["runs"] = len(done)
        for part, times in zip(case.parts, zip(*done, strict=True), strict=True):
            row[part] = _spread(times)
        row["whole"] = _spread([sum(parts) for parts in done])
        row["peak_bytes"] = peak_bytes(case)
        if isinstance(case, Enlargement):
            height, width = output_size(*case.size, case.scale)
            row["megapixels_per_second"] = height * width / 1e6 / row["whole"]["median"]
            if products and case.model.device.type == "cpu":
                row["one_thread"] = share(case)
    return rows


def check(case: Case) -> float:
    """The largest difference of a small result from the formula in float64, as a share of the range.

    Raises:
        WrongResultError: it is above ``EXACT``; or below float32, above twice what the formula is off by in
            that precision, at most or in the root of the mean square.
    """
    exact, plain = copy.deepcopy(case.model).cpu().double(), copy.deepcopy(case.model)
    exact.backend = plain.backend = "reference"
    truth = case.outcome(exact)
    spread = max(float(truth.max() - truth.min()), 1e-30)

    def errors(values: Tensor) -> tuple[float, float]:
        off = (values.double().cpu() - truth).abs() / spread
        return float(off.max()), float(off.square().mean().sqrt())

    limits = (EXACT, EXACT)
    if case.precision in LOW:
        largest, usual = errors(case.outcome(plain))
        limits = (2 * largest, 2 * usual)
    found = errors(case.outcome(case.model))
    for error, limit in zip(found, limits, strict=True):
        if not error <= limit:  # NaN must not pass
            raise WrongResultError(f"wrong: off by {error:.1e} of the range, allowed are {limit:.1e}")
    return found[0]


def _begin(case: Case) -> tuple[Row, list[float] | None]:
    """The beginning of a case's row, and after its check a first run: compilation, memory pools."""
    row: Row = case.facts() | {"parameters": sum(p.numel() for p in case.model.parameters())}
    try:
        row["error"] = check(case)
        return row, _run(case)
    except (WrongResultError, RuntimeError, MemoryError) as error:
        if not isinstance(error, WrongResultError) and not is_out_of_memory(error):
            raise
        return row | {"failed": str(error).splitlines()[0]}, None


def _has_room(done: list[list[float]], seconds: float) -> bool:
    spent = [sum(parts) for parts in done]
    return not done or (len(done) < MOST_RUNS and sum(spent) + min(spent) <= seconds)


def _run(case: Case) -> list[float]:
    """Seconds of each part, all that it started on a GPU included."""
    device = case.model.device.type
    wait = {"cuda": torch.cuda.synchronize, "mps": torch.mps.synchronize}.get(device, lambda: None)
    seconds = []
    for part in case.parts:
        wait()
        start = time.perf_counter()
        getattr(case, part)()
        wait()
        seconds.append(time.perf_counter() - start)
    return seconds


def _spread(times: Sequence[float]) -> dict[str, float]:
    """The median, and the range in which three fifths of the runs lie."""
    ordered = sorted(times)
    low, high = (ordered[round(share * (len(ordered) - 1))] for share in (0.2, 0.8))
    return {"median": statistics.median(ordered), "p20": low, "p80": high}
