"""Time the ops, and check every result before it is timed.

    python kernels/benchmarks/bench.py                          # the GPU's backends, or without one the CPU's
    python kernels/benchmarks/bench.py --device cpu --threads 1 --only /pixel
    python kernels/benchmarks/bench.py --only "decode_stage paper bf16 960x540" --minutes 2

"reference" does the published order of work: queries in chunks of 30,000, of each of which K*K*C values are
gathered, scaled and multiplied. "torch" is the same sum in another order; "triton" the kernels; "compiled
..." either of the first two under torch.compile. TFLOP/s are reckoned by one count (counts.py) whatever the
backend does, and set beside a large matrix product of that dtype in the same run. Cases with "/pixel" time
both orders of sums around the point where the rule switches, and the one that it takes ("auto").

Rows go to results/<cpu or the GPU's name>.jsonl; plot.py draws them. `clit-zoo bench` times whole models.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from cases import OPS, WAYS, Case, Tiles, Way
from measure import Clock, Promise, Row, measure
from report import Report

from clit_kernels.orders import ORDERS

Size = tuple[int, int]
Job = tuple[str, Callable[[torch.device], list[Row]]]
"""What is measured, in words, and how."""

RESULTS = Path(__file__).with_name("results")

THREE = ("reference", "torch", "triton")
LIMITS = {
    "reference": 1 << 21, "compiled reference": 1 << 21, "torch": 1 << 23, "compiled torch": 1 << 23,
    "triton": 1 << 28,
}  # fmt: skip
"""Queries that a backend is timed on at most; the rows say which part that is. The published order takes the
same time for every 30,000 queries, the hoisted one for every row of feature pixels."""

STAGE = (
    Promise("triton", "share_of_peak", 0.35, "at least 35 % of the matmul peak"),
    Promise("triton", "speed_up", 30, "at least 30x"),
)
TRAINING = (
    Promise("triton", "speed_up", 5, "at least 5x"),
    Promise("triton", "memory_ratio", 4, "at most 1/4 of the memory"),
)

PER_PIXEL = {1: (1, 1), 2: (1, 2), 3: (1, 3), 4: (2, 2), 5: (1, 5), 6: (2, 3)}
"""Queries per feature pixel, and how many rows and columns of them."""

CLOSE = 1.1
"""Times this near to each other make either order a good choice."""

FEW_PROGRAMS: Tiles = {
    "coordinate_decode/hoisted": {"PIXELS_Y": 8, "PIXELS_X": 8, "GROUP": 1, "SLOTS": 16, "COLUMNS": 64},
    "coordinate_decode/direct": {"QUERIES": 256, "COLUMNS": 64},
    "coordinate_decode/mlp": {"ROWS": 512, "STEP": 64},
    "coordinate_decode/grad_first": {"QUERIES": 64, "COLUMNS": 64},
    "coordinate_decode/grad_queries": {"QUERIES": 64},
    "coordinate_decode/grad_raster": {"PIXELS": 64},
    "local_attention/forward_any": {"QUERIES": 128},
    "local_attention/backward_queries": {"QUERIES": 64},
    "local_attention/backward_map": {"PIXELS": 64},
}
"""Large tiles for the interpreter, which is slow for each program."""

BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32


def main() -> int:
    """Measure, write, print; 1 where a result is wrong or a backend fails."""
    given = arguments()
    torch.set_num_threads(given.threads)
    device = torch.device(given.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("--device cuda: torch sees no GPU here; take --device cpu", file=sys.stderr)
        return 2
    if given.cpu_time:
        if device.type != "cpu" or given.threads != 1:
            print("--cpu-time: add --device cpu --threads 1; threads' times would add up", file=sys.stderr)
            return 2
        Clock.read = time.process_time
        given.note = "; ".join(filter(None, ("seconds that the process computed", given.note)))
    name = torch.cuda.get_device_name(device).replace(" ", "-") if device.type == "cuda" else "cpu"
    report = Report(given.results or RESULTS / f"{name}.jsonl", device, given.note, given.commit)
    if given.tiny:
        jobs = gpu_jobs(float("inf"), tiny=True)
    elif device.type == "cuda":
        jobs = gpu_jobs(torch.cuda.get_device_properties(device).total_memory)
    else:
        jobs = cpu_jobs()
    ends = time.monotonic() + 60 * given.minutes
    for title, rows in jobs:
        if given.only not in title:
            continue
        if time.monotonic() > ends:
            reason = f"the {given.minutes:g} minutes were over"
            report.add([{"case": title, "backend": "all", "skipped": reason}])
        else:
            report.add(rows(device))
    for words in report.broken:
        print(f"not kept: {words}")
    if report.failed:
        print(f"{report.failed} wrong or failed", file=sys.stderr)
    return 1 if report.failed else 0


def gpu_jobs(memory: float, *, tiny: bool = False) -> Iterator[Job]:
    """Everything on a GPU with so many bytes, the promises first; ``tiny``: every kind on a few pixels."""
    small, wide = ((3, 4), (2, 5)) if tiny else ((256, 256), (540, 960))
    scales: Sequence[float] = (4, 2.3) if tiny else (4, 2, 3.7, 12, 30)
    shape, batch, side = ("light", 2, 4) if tiny else ("paper", 32, 48)
    stage, training = ((), ()) if tiny else (STAGE, TRAINING)
    how: dict[str, Any] = {"seconds": 0.0, "tiles": FEW_PROGRAMS} if tiny else {"seconds": 0.7}

    def grid(op: str, size: Size, scale: float, dtype: torch.dtype = BF16) -> Case:
        return Case(op, shape, dtype, size, (round(size[0] * scale), round(size[1] * scale)))

    for op in OPS:
        yield job(grid(op, wide, 4), THREE, stage if op == OPS[0] else (), memory, **how)
    for kind in ("raster", "points"):
        yield job(Case(OPS[0], shape, BF16, (side, side), None, kind, batch), THREE, training, memory, **how)
    more = [(4, dtype) for dtype in (BF16, FP16, FP32)] + [(scale, BF16) for scale in scales[1:]]
    for scale, dtype in more:
        for op in OPS:
            yield job(grid(op, small, scale, dtype), THREE, (), memory, **how)
    if tiny:
        yield from order_jobs("triton", BF16, {shape: small}, (1, 6), **how)
        return
    yield from order_jobs("triton", BF16, {"paper": small, "light": small}, **how)
    # last, since compiling takes minutes
    yield job(grid(OPS[0], (128, 128), 4), [*THREE, "compiled reference", "compiled torch"], **how)


def cpu_jobs() -> Iterator[Job]:
    """Everything on a CPU."""
    for op in ("local_attention", "coordinate_decode"):
        yield job(Case(op, "paper", FP32, (16, 16), (64, 64)), THREE[:2], seconds=10)
    promise = (Promise("torch", "speed_up", 8, "at least 8x"),)
    yield job(Case("decode_stage", "paper", FP32, (48, 48), (192, 192)), THREE[:2], promise, seconds=8)
    yield from order_jobs("torch", FP32, {"paper": (24, 24), "light": (64, 64)}, seconds=2)


def job(
    case: Case,
    ways: Sequence[str],
    promises: Sequence[Promise] = (),
    memory: float = float("inf"),
    **how: Any,
) -> Job:
    """A case to be measured, unless its attention weights take more than half of the memory."""
    taken = case.attention_bytes * (case.op != "decode_stage")
    if taken > memory / 2:
        reason = f"the attention weights take {taken / 1e9:.0f} GB, more than half of the memory"
        row = {"case": case.name, "backend": "all", "skipped": reason}
        return case.name, lambda device: [row]
    chosen = [WAYS[name] for name in ways]
    return case.name, partial(measure, case, chosen, limits=LIMITS, promises=promises, **how)


def order_jobs(
    backend: str,
    dtype: torch.dtype,
    sizes: dict[str, Size],
    counts: Sequence[int] = tuple(PER_PIXEL),
    **how: Any,
) -> Iterator[Job]:
    """Both orders of the decoder's first layer around the point where the rule switches, and the rule's."""
    for shape, size in sizes.items():
        for op in ("coordinate_decode", "decode_stage"):
            for n in counts:
                rows, cols = PER_PIXEL[n]
                case = Case(op, shape, dtype, size, (size[0] * rows, size[1] * cols))
                yield f"{op} {shape} {n}/pixel", partial(order_rows, case, backend, n, **how)


def order_rows(case: Case, backend: str, per_pixel: int, device: torch.device, **how: Any) -> list[Row]:
    """Rows of both orders and of the one that the rule takes ("auto"), with its time over the faster's."""
    ways = [Way("auto", backend), *(Way(order, backend, order) for order in ORDERS)]
    rows = measure(case, ways, device, **how)
    times = {row["backend"]: row["median_s"] for row in rows if "median_s" in row}
    for row in rows:
        row |= {"case": f"{case.op} {case.shape} {per_pixel}/pixel", "orders_of": backend}
        row["queries_per_pixel"] = per_pixel
    if len(times) == 3:
        loss = times["auto"] / min(times.values())
        rows[0]["loss"] = loss
        if how["seconds"]:
            rows[0]["promises"] = {f"{loss:.2f} times the faster order's time": loss <= CLOSE}
    return rows


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=["cuda", "cpu"], default=default, help=f"default here: {default}")
    parser.add_argument("--only", default="", help="the cases whose names contain this")
    parser.add_argument("--minutes", type=float, default=60, help="start no case after so long (default: 60)")
    parser.add_argument("--threads", type=int, default=2, help="compute threads on the CPU (default: 2)")
    parser.add_argument("--results", type=Path, help="JSON lines are appended to this file")
    parser.add_argument("--note", default="", help="what else the rows should say of the machine")
    parser.add_argument(
        "--cpu-time", action="store_true",
        help="count the seconds that this process computed, where others use the CPU, too; with --threads 1",
    )  # fmt: skip
    parser.add_argument("--commit", help="of this code, where git cannot be asked")
    parser.add_argument(
        "--tiny", action="store_true",
        help="the GPU's cases at sizes that show that all of them run; on a CPU with TRITON_INTERPRET=1",
    )  # fmt: skip
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
