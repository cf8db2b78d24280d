"""Time the ops and the models, and check every result before it is timed.

    python kernels/benchmarks/bench.py                          # the GPU's backends, or without one the CPU's
    python kernels/benchmarks/bench.py --device cpu --threads 1 --only decoder
    python kernels/benchmarks/bench.py --only "edsr-clit 960x540" --minutes 2

"reference" does the published order of work: queries in chunks of 30,000, of each of which K*K*C values are
gathered, scaled and multiplied. "hoisted" is the same sum in another order, in PyTorch; "triton" the kernels;
"compiled ..." either of the first two under torch.compile. TFLOP/s are reckoned by the hoisted count
(counts.py) whatever the backend does, and set beside a large matrix product of that dtype in the same run.

Rows go to results/<cpu or the GPU's name>.jsonl; plot.py draws them. Needs clit_zoo installed.
"""

import argparse
import gc
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from cases import Job, cpu_jobs, gpu_jobs
from peak_memory import memory_rows
from report import Report
from timing import Clock

from clit_kernels import settings

RESULTS = Path(__file__).with_name("results")

FEW_PROGRAMS = {
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
"""Large tiles for the interpreter, whose time goes by programs."""


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
    ends = time.monotonic() + 60 * given.minutes
    with settings.forced(FEW_PROGRAMS if given.tiny and device.type == "cpu" else {}):
        _measure_all(given, report, device, ends)
    return summary(report)


def _measure_all(given: argparse.Namespace, report: Report, device: torch.device, ends: float) -> None:
    for title, rows in jobs(given, device):
        if given.only not in title:
            continue
        if time.monotonic() > ends:
            reason = f"the {given.minutes:g} minutes were over"
            report.add([{"case": title, "backend": "all", "skipped": reason}])
            continue
        report.add(rows(device))
        gc.collect()


def jobs(given: argparse.Namespace, device: torch.device) -> Iterator[Job]:
    """What is to be measured."""
    if device.type == "cuda" or given.tiny:
        cuda = device.type == "cuda"
        memory = torch.cuda.get_device_properties(device).total_memory if cuda else float("inf")
        yield from gpu_jobs(memory, tiny=given.tiny)
    else:
        yield from cpu_jobs()
        yield "memory", lambda _: memory_rows(given.bands, given.threads)


def summary(report: Report) -> int:
    """Say which promises are not kept and how many backends failed."""
    for words in report.broken:
        print(f"not kept: {words}")
    if report.failed:
        print(f"{report.failed} wrong or failed", file=sys.stderr)
    return 1 if report.failed else 0


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
    parser.add_argument("--bands", type=int, default=4, help="bands of the largest output to run, 0 for all")
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
