"""Times backends side by side, and only those whose results are right.

A case is one computation and the backends that can do it, the first being the yardstick. Each round runs
every backend once, so that whatever else the machine does falls on all of them alike. Nothing is timed where
a backend's result is wrong.
"""

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from environment import describe
from torch import Tensor

LONG = 5.0
"""A first run of so many seconds needs no warm-up and counts as a measurement."""

Compute = Callable[[Any, str], Tensor]
Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One computation.

    Attributes:
        name: what the table and the rows call it.
        backends: their names, the yardstick first.
        prepare: makes the inputs, once; takes the device.
        run: computes it from what ``prepare`` made, by a backend.
        check: a smaller computation for the gate, where the yardstick would take too long; only the other
            backends are timed then.
        truth: the exact result, where the yardstick's own error would count; it is the yardstick's otherwise.
        tolerance: largest difference from the truth, as a share of its range.
        wanted: smallest speed-up of the last backend that the project promises, if any.
        limit: longest time of it in seconds that the project promises, if any.
        seconds: time for each backend's measurements; it is run at least once.
    """

    name: str
    backends: Sequence[str]
    prepare: Callable[[torch.device], Any]
    run: Compute
    check: Compute | None = None
    truth: Callable[[Any], Tensor] | None = None
    tolerance: float = 1e-5
    wanted: float | None = None
    limit: float | None = None
    seconds: float = 10.0


class GateError(Exception):
    """A backend's result is wrong."""


def measure(case: Case, device: torch.device) -> list[Row]:
    """Check every backend of a case, then time them: a row for each.

    Raises:
        GateError: a result is wrong; nothing is timed then.
    """
    times: dict[str, list[float]] = {name: [] for name in case.backends}
    with torch.inference_mode():
        inputs = case.prepare(device)
        errors, first = _gate(case, inputs, device)
        if case.check is None:
            times |= {name: [seconds] for name, seconds in first.items() if seconds > LONG}
        else:
            del times[case.backends[0]]
        while due := [name for name in times if _room(times[name], case.seconds)]:
            for name in due:
                times[name].append(_clock(case.run, inputs, name, device)[1])
    yardstick = times.get(case.backends[0])
    return [_row(case, name, measured, yardstick, errors[name]) for name, measured in times.items()]


def _gate(case: Case, inputs: Any, device: torch.device) -> tuple[dict[str, float], dict[str, float]]:
    """Each backend's largest difference from the truth, as a share of its range; and the time it took."""
    results, times = {}, {}
    for name in case.backends:
        results[name], times[name] = _clock(case.check or case.run, inputs, name, device)
    truth = case.truth(inputs) if case.truth else results[case.backends[0]].double()
    spread = float(truth.max() - truth.min())
    errors = {name: float((r.double() - truth).abs().max()) / spread for name, r in results.items()}
    for name in case.backends[1:]:
        if not errors[name] <= case.tolerance:  # NaN must not pass
            allowed = f"allowed are {case.tolerance:.0e}"
            raise GateError(f"{case.name}: {name} is off by {errors[name]:.1e} of the range, {allowed}")
    return errors, times


def _room(times: list[float], seconds: float) -> bool:
    return not times or (sum(times) + min(times) <= seconds and len(times) < 50)


def _clock(compute: Compute, inputs: Any, backend: str, device: torch.device) -> tuple[Tensor, float]:
    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    wait()
    start = time.perf_counter()
    result = compute(inputs, backend)
    wait()
    return result, time.perf_counter() - start


def _row(case: Case, name: str, times: list[float], yardstick: list[float] | None, error: float) -> Row:
    ordered, median = sorted(times), statistics.median(times)
    low, high = (ordered[round(share * (len(ordered) - 1))] for share in (0.2, 0.8))
    gain = statistics.median(yardstick) / median if yardstick else None
    row = {
        "case": case.name, "backend": name, "median_s": median, "p20_s": low, "p80_s": high,
        "runs": len(times), "speed_up": gain, "error": error, "tolerance": case.tolerance,
    }  # fmt: skip
    text = f"{name:>10}{_time(median):>10}{_time(low) + ' - ' + _time(high):>21}{len(times):>5}"
    text += f"{'' if gain is None else f'{gain:.1f}x':>9}{error:>9.0e}"
    if name == case.backends[-1] and case.wanted is not None and gain is not None:
        row |= {"wanted": case.wanted}
        text += promise(f"at least {case.wanted:g}x", gain >= case.wanted)
    if name == case.backends[-1] and case.limit is not None:
        row |= {"limit_s": case.limit}
        text += promise(f"at most {case.limit:g} s", median <= case.limit)
    return row | {"text": text}


def promise(words: str, kept: bool) -> str:
    """What the project promises, and whether it holds."""
    return f"   {words}: {'yes' if kept else 'NO'}"


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


class Report:
    """Prints rows as they come, and appends them to a file of JSON lines with what they were measured on.

    A row has a ``case``, a ``text`` for the table, and whatever else it measured.
    """

    def __init__(self, results: Path, device: torch.device):
        self.results, self.device = results, device
        results.parent.mkdir(parents=True, exist_ok=True)
        print(", ".join(f"{key} {value}" for key, value in describe(device).items()))
        columns = (
            ("backend", 10),
            ("median", 10),
            ("20 - 80 %", 21),
            ("runs", 5),
            ("speed-up", 9),
            ("error", 9),
        )
        print(f"{'case':<42}" + "".join(f"{name:>{width}}" for name, width in columns))

    def add(self, rows: Sequence[Row]) -> None:
        """Print and keep rows."""
        here = describe(self.device)
        with open(self.results, "a") as file:
            for row in rows:
                kept = {key: value for key, value in row.items() if key != "text"}
                file.write(json.dumps(kept | here) + "\n")
                print(f"{row['case']:<42}{row['text']}", flush=True)
