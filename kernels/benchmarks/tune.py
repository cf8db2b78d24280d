"""Find a faster tile for each kernel on this GPU, and write it to the settings.

    python kernels/benchmarks/tune.py --minutes 8                 # bfloat16, the models' two shapes
    python kernels/benchmarks/tune.py --kernel hoisted --dtype fp16
    python kernels/benchmarks/tune.py --dry-run --target sm_90    # what would be tried; no GPU needed

From the tile in use, every tile one step away that compiles without spills and fits the chip is timed, then
those around the fastest, until none is faster. A tile is written where it also wins a second comparison, in
turn with the one in use, and keeps the tests' rule against the formula in float64. Rows go to
clit_kernels/settings/<chip>.json as soon as they are found; rows that were not tuned stay as they are.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from unittest.mock import patch

import torch
import tune_work
from stage_cases import NAMES
from tile_check import fitting, why_not
from tile_search import (
    Outcome,
    Score,
    Task,
    Tile,
    climb,
    confirmed,
    merged,
    neighbours,
    read_settings,
    setting,
    write_settings,
)
from tune_work import Work, asked, scorer, watched, works

from clit_kernels import settings

MODELS = ("edsr-lit", "edsr-light-lit")
DTYPES = {name: dtype for dtype, name in NAMES.items()}

LONGEST = 0.25
"""Share of the time left that one task may take: the first are the most important, and not all."""


def main() -> int:
    """Tune; 2 where there is no GPU to tune for."""
    given = arguments()
    dtypes = [DTYPES[name] for name in given.dtype or ["bf16"]]
    if given.dry_run:
        return dry_run(given, dtypes)
    if not torch.cuda.is_available():
        print(
            "tune.py times kernels, and torch sees no GPU here: run it where there is one, or list what it "
            "would try with --dry-run",
            file=sys.stderr,
        )
        return 2
    device = torch.device("cuda")
    chip = settings.arch_of(device)
    path = given.settings / f"{chip}.json"
    ends = time.monotonic() + 60 * given.minutes
    print(
        f"{torch.cuda.get_device_name(device)} ({chip}), at most {given.minutes:g} minutes, into {path.name}"
    )
    with ProcessPoolExecutor(given.jobs, mp_context=get_context("spawn")) as pool:
        done: list[Task] = []
        for work in works(given.model or MODELS, dtypes):
            if time.monotonic() > ends:
                print(f"not reached: {work}")
                continue
            print(f"{work}", flush=True)
            run = work.prepare(device)
            for task in _tasks(run, given.kernel, done):
                left = ends - time.monotonic()
                if left <= 0:
                    print(f"  not reached: {task}")
                    continue
                done.append(task)
                tune(task, work, run, device, path, pool, time.monotonic() + LONGEST * left, given.log)
            del run
            torch.cuda.empty_cache()
        pool.shutdown(wait=False, cancel_futures=True)
    return 0


def _tasks(run: Callable[[], object], kernel: str, done: Sequence[Task]) -> list[Task]:
    """The tiles that ``run`` asks for and that have not been tuned."""
    with asked() as tasks:
        run()
    before = [(task.kernel, task.call) for task in done]
    return [t for t in tasks if kernel in t.kernel and (t.kernel, t.call) not in before]


def tune(
    task: Task, work: Work, run: Callable[[], list[torch.Tensor]], device: torch.device, path: Path,
    pool: Executor | None, ends: float, log: Path | None = None,
    make_scorer: Callable[..., Callable[[Tile], Score]] = scorer,
) -> Outcome:  # fmt: skip
    """Tune one task, write its row if there is one to write, and say before and after."""
    score = make_scorer(task, run, device, work.dtype)
    chip = path.stem
    outcome = climb(task, fitting(task, chip, pool), score, lambda: time.monotonic() > ends)
    found = outcome.tile
    reason = "" if confirmed(outcome, score) else "no tile is faster"
    reason = reason or tune_work.keeps_the_rule(task, found, work, device)
    if reason:
        outcome.tile = task.tile
    else:
        write_settings(path, merged(read_settings(path), [setting(task, found)]))
        settings.rows.cache_clear()
    print(f"  {in_words(outcome, reason)}", flush=True)
    if log is not None:
        append(log, outcome, reason)
    return outcome


def in_words(outcome: Outcome, reason: str) -> str:
    """A line of the table: the task, times before and after, what changed."""
    before, after = outcome.before, outcome.after
    if before is None or after is None:
        return f"{outcome.task}: the tile in use cannot be timed: {outcome.tried[0][1].reason}"
    changed = {k: v for k, v in outcome.tile.items() if outcome.task.tile[k] != v}
    words = " ".join(f"{k}={v}" for k, v in changed.items()) or reason
    rejected = sum(score.seconds is None for _, score in outcome.tried)
    tried = f"{len(outcome.tried)} tried, {rejected} of them do not fit"
    more = "" if outcome.finished else ", time was up"
    return f"{outcome.task}: {before * 1e3:.3f} -> {after * 1e3:.3f} ms   {words}   ({tried}{more})"


def append(log: Path, outcome: Outcome, reason: str) -> None:
    """Add everything that was tried for a task to a file of JSON lines."""
    row = {
        "kernel": outcome.task.kernel,
        "call": dict(outcome.task.call),
        "tile": outcome.tile,
        "before_s": outcome.before,
        "after_s": outcome.after,
        "kept": reason,
        "finished": outcome.finished,
        "tried": [{"tile": t, "seconds": s.seconds, "reason": s.reason} for t, s in outcome.tried],
    }
    with open(log, "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def candidates(
    models: Sequence[str], dtypes: Sequence[torch.dtype], target: str, kernel: str = ""
) -> Iterator[tuple[Work, Task, list[Tile]]]:
    """What would be tried first on a chip: every call's tasks and the neighbours of the tiles in use.

    Nothing is launched: kernels are asked for their tiles by calls on a few pixels on the CPU.
    """
    kernels = {f"{op}/{name}" for op, names in _kernels().items() for name in names}
    done: list[Task] = []
    with ExitStack() as stack:
        stack.enter_context(patch.object(settings, "arch_of", lambda device: target))
        for name in kernels:
            stack.enter_context(watched(name, lambda *_, **__: None))
        for work in works(models, dtypes, tiny=True):
            for task in _tasks(work.prepare(torch.device("cpu")), kernel, done):
                done.append(task)
                yield work, task, list(neighbours(task, task.tile))


def _kernels() -> dict[str, list[str]]:
    """The kernels of each op that launches name."""
    from clit_kernels.coordinate_decode import specs as decode
    from clit_kernels.local_attention import specs as attention

    found: dict[str, list[str]] = {}
    for spec in (*attention.specs("sm_90"), *decode.specs("sm_90")):
        op, name = spec.name.split("/")
        if name not in found.setdefault(op, []):
            found[op].append(name)
    return found


def dry_run(given: argparse.Namespace, dtypes: Sequence[torch.dtype]) -> int:
    """List the candidates, and with --compile which of them fit."""
    total = 0
    for work, task, tiles in candidates(given.model or MODELS, dtypes, given.target, given.kernel):
        print(f"{task}   for {work.model}, {work.kind}\n  in use  {task.tile}")
        for tile in tiles:
            changed = " ".join(f"{k}={v}" for k, v in tile.items() if task.tile.get(k) != v)
            fits = (why_not(task, tile, given.target) or "fits") if given.compile else ""
            print(f"          {changed:<16} {fits}".rstrip(), flush=True)
        total += len(tiles)
    print(f"{total} candidates in the first round for {given.target}")
    return 0


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10, help="at most so long (default: 10)")
    parser.add_argument("--kernel", default="", help="only kernels whose names contain this")
    parser.add_argument("--dtype", action="append", choices=list(DTYPES), help="default: bf16")
    parser.add_argument("--model", action="append", choices=MODELS, help="whose shape; default: both")
    parser.add_argument("--settings", type=Path, default=settings.FOLDER, help="folder of <chip>.json")
    parser.add_argument("--log", type=Path, help="everything tried is appended to this file, as JSON lines")
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 2) - 1), help="compilers")
    parser.add_argument("--dry-run", action="store_true", help="list candidates; no GPU needed")
    parser.add_argument("--target", default="sm_90", help="chip of the dry run (default: sm_90)")
    parser.add_argument("--compile", action="store_true", help="have the dry run say which of them fit")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
