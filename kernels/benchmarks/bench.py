"""Time the ops and the models on a CPU: the hoisted order of work against the published one.

    python kernels/benchmarks/bench_cpu.py                   # everything: about 5 minutes on two free cores
    python kernels/benchmarks/bench_cpu.py --only decoder --threads 1

"reference" does the published order of work: queries in chunks of 30,000, of each of which K*K*C values are
gathered, scaled and multiplied. Results are checked before anything is timed. Needs clit_zoo installed.
"""

import argparse
import sys
from pathlib import Path

import torch
from bench import GateError, Report, measure
from cases import CPU_CASES
from peak_memory import memory_rows

RESULTS = Path(__file__).with_name("results") / "cpu.jsonl"


def main() -> int:
    """Measure, write, print; 1 where a result is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="the cases whose names contain this")
    parser.add_argument("--threads", type=int, default=2, help="compute threads (default: 2)")
    parser.add_argument("--bands", type=int, default=4, help="bands of the largest output to run, 0 for all")
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON lines are appended to this file")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    device, failed = torch.device("cpu"), 0
    report = Report(given.results, device)
    for case in CPU_CASES:
        if given.only in case.name:
            try:
                report.add(measure(case, device))
            except GateError as error:
                print(f"WRONG: {error}", file=sys.stderr)
                failed = 1
    if given.only in "memory":
        report.add(memory_rows(given.bands, given.threads))
    return failed


if __name__ == "__main__":
    sys.exit(main())
