"""Find a faster tile for each kernel on this GPU, and write it to the chip's table.

    python kernels/benchmarks/tune.py --minutes 8                 # bfloat16, the models' two shapes
    python kernels/benchmarks/tune.py --kernel hoisted --dtype fp16
    python kernels/benchmarks/tune.py --dry-run --target sm_90    # what would be tried; no GPU needed

From the tile in use, every tile one step away is timed (one entry doubled or halved, one stage more or less),
then those around the fastest, until none is faster. What is timed is a whole call of ``decode_stage``: a
kernel that hardly takes part of it is hardly worth a tile. A tile is written where it also wins a second
comparison, in turn with the one in use, compiles without spills, and keeps the tests' rule against the
formula in float64. Rows go to tile_tables/<chip>.json as soon as they are found; others stay as they are.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from cases import WAYS, Case, Tiles, compute, formula, inputs
from measure import GateError, clock, judge
from torch import Tensor

from clit_kernels import tile_table
from clit_kernels.coordinate_decode.triton import tiles as decode
from clit_kernels.coordinate_decode.triton.launch import hoisted_tile, segments
from clit_kernels.local_attention.triton import tiles as attention
from clit_kernels.self_check import SHAPES
from clit_kernels.tile_table import Target
from clit_kernels.triton_support import DTYPES, power_of_two

sys.path.append(str(Path(__file__).resolve().parents[1]))
import compile_table

Tile = Mapping[str, int]

LARGEST = 1024
WARPS, STAGES = (2, 16), (1, 5)

MATRIX = ("QUERIES", "ROWS", "COLUMNS", "STEP")
"""Entries of the decoder's kernels that are a side of a matrix product: at least 16."""

GAIN, KEPT_GAIN = 0.98, 0.97
"""A tile is taken to be faster, and in the second comparison kept, at this share of the time or less."""

RUNS = 5

SAME = {torch.float32: 1e-5, torch.float16: 2 * 2**-10, torch.bfloat16: 2 * 2**-7}
"""How far results of two tiles may lie apart, as a share of their range: two units in the last place where
sums in another order round otherwise. The tile that is chosen meets the tests' rule besides."""

LONGEST = 0.25
"""Share of the time left that one task may take: the first are the most important, and not all."""


class Task(NamedTuple):
    """One row to be tuned: a kernel ("op/name"), what its tile is looked up with, the tile in use."""

    kernel: str
    call: Mapping[str, Any]
    tile: Tile

    def __str__(self) -> str:
        return f"{self.kernel} {' '.join(f'{k}={v}' for k, v in self.call.items())}"


class Score(NamedTuple):
    """Seconds of the call with a tile, or why it cannot be used."""

    seconds: float | None
    reason: str = ""


@dataclass
class Outcome:
    """What became of a task; ``tried`` has every tile with its score, the tile in use first."""

    task: Task
    tile: Tile
    tried: list[tuple[Tile, Score]] = field(default_factory=list)
    finished: bool = True

    def seconds(self, tile: Tile) -> float | None:
        """What was measured of a tile."""
        return next(score.seconds for t, score in self.tried if t == tile)


class Recorder(Target):
    """A target that remembers which tiles were looked up."""

    tasks: list[Task]

    def tile(self, kernel: str, default: Tile, **call: int) -> dict[str, int]:
        """As a target's, and a task for ``tasks``."""
        tile = super().tile(kernel, default, **call)
        self.tasks.append(Task(kernel, {"dtype": self.dtype, **call}, tile))
        return tile


def works(shapes: Sequence[str], dtypes: Sequence[torch.dtype]) -> Iterator[Case]:
    """Calls that use every kernel: grids at x4, x2, x3 and x6, and training; most important first."""
    for dtype in dtypes:
        for shape in shapes:
            for scale in (4, 2, 3, 6):
                yield Case("decode_stage", shape, dtype, (256, 256), (256 * scale, 256 * scale))
            for kind in ("raster", "points"):
                yield Case("decode_stage", shape, dtype, (48, 48), None, kind, batch=32)
            yield Case("decode_stage", shape, dtype, (256, 256), (256, 256))


def tasks(case: Case, arch: str) -> list[Task]:
    """The tiles that a call looks up."""
    channels, heads, radius, hidden = SHAPES[case.shape]
    ask = Recorder(arch, DTYPES[case.dtype])
    ask.tasks = []
    widths = [max(16, power_of_two(n)) for n in (*hidden, 3)]
    window = attention.constants(channels, heads, radius)
    shape = decode.constants(channels, heads, radius, widths[0])
    training, pixels = case.output is None, case.size[0] * case.size[1]
    slots = case.queries // (case.batch * pixels)
    if training or hoisted_tile(None, ask, shape, pixels, slots, case.queries) is None:
        ask.tasks.clear()  # it asked, and is not taken
        decode.tile("direct", ask, shape)
    attention.tile("forward_grid" if slots > 1 else "forward_any", ask, window, slots)
    for start, stop in segments(widths, one_by_one=training):
        decode.mlp_tile(ask, tuple(widths[start : stop + 1]))
    if training:
        for name in ("backward_queries", "backward_map", "backward_table"):
            attention.tile(name, ask, window, slots)
        for name in ("grad_first", "grad_queries", *(["grad_raster"] if case.kind == "raster" else [])):
            decode.tile(name, ask, shape)
    return ask.tasks


def neighbours(task: Task, tile: Tile) -> Iterator[Tile]:
    """Tiles one step from ``tile`` that make sense for the kernel; whether they fit, the chip says."""
    for key, value in tile.items():
        if key == "maxnreg":
            continue  # a chip's limit, not a size
        near = (value - 1, value + 1) if key == "num_stages" else (value // 2, value * 2)
        for other in near:
            candidate = {**tile, key: other}
            if sensible(task, candidate):
                yield candidate


def sensible(task: Task, tile: Tile) -> bool:
    """Whether a tile keeps the bounds that its kernel states."""
    if not WARPS[0] <= tile["num_warps"] <= WARPS[1] or not STAGES[0] <= tile["num_stages"] <= STAGES[1]:
        return False
    blocks = {key: value for key, value in tile.items() if key.isupper()}
    if not all(1 <= value <= LARGEST for value in blocks.values()):
        return False
    op, name = task.kernel.split("/")
    heads, hidden, group = task.call.get("heads", 1), task.call.get("hidden", LARGEST), tile.get("GROUP", 1)
    if op == "local_attention":
        return name != "forward_grid" or group < 2 * heads
    if any(tile.get(key, 16) < 16 for key in MATRIX):
        return False
    if max(tile.get("COLUMNS", 0), tile.get("STEP", 0)) > hidden:
        return False
    if name == "hoisted":
        pixels = tile["PIXELS_Y"] * tile["PIXELS_X"]
        return pixels >= 16 and group <= pixels and group * tile["SLOTS"] >= 16
    return heads % group == 0


def climb(task: Task, score: Callable[[Tile], Score], over: Callable[[], bool]) -> Outcome:
    """The fastest tile found from the one in use, until ``over``."""
    outcome = Outcome(task, task.tile, [(task.tile, score(task.tile))])
    best = outcome.tried[0][1].seconds
    if best is None:
        return outcome
    moved = True
    while moved:
        moved, seen = False, [tile for tile, _ in outcome.tried]
        for tile in [t for t in neighbours(task, outcome.tile) if t not in seen]:
            if over():
                outcome.finished = False
                return outcome
            found = score(tile)
            outcome.tried.append((tile, found))
            if found.seconds is not None and found.seconds <= GAIN * best:
                best, outcome.tile, moved = found.seconds, tile, True
    return outcome


def why_not_kept(outcome: Outcome, score: Callable[[Tile], Score], rounds: int = 3) -> str:
    """Why the tile found does not replace the one in use when both are timed in turn; "" if it does."""
    if outcome.tile == outcome.task.tile:
        return "no tile is faster"
    totals = [0.0, 0.0]
    for _ in range(rounds):
        for i, tile in enumerate((outcome.task.tile, outcome.tile)):
            seconds = score(tile).seconds
            if seconds is None:
                return "it fails now and then"
            totals[i] += seconds
    return "" if totals[1] <= KEPT_GAIN * totals[0] else "no tile is faster"


def scorer(case: Case, task: Task, run: Callable[[Tiles], list[Tensor]], device: torch.device) -> Any:
    """Times tiles of a task; one whose results differ from those of the tile in use has a reason instead."""
    expected = [t.clone() for t in run({task.kernel: task.tile})]

    def score(tile: Tile) -> Score:
        timed = partial(clock, lambda: run({task.kernel: tile}), device)
        try:
            results = run({task.kernel: tile})  # compiles
            seconds = statistics.median(timed()[1] for _ in range(RUNS))
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:  # a tile that the compiler or the chip refuses is no reason to stop
            return Score(None, f"{type(error).__name__}: {str(error).strip().splitlines()[-1][:120]}")
        for i, (result, other) in enumerate(zip(results, expected, strict=True)):
            spread = max(float(other.max() - other.min()), 1e-30)
            apart = float((result.double() - other.double()).abs().max()) / spread
            if not apart <= SAME[case.dtype]:  # NaN must not pass
                return Score(None, f"result {i} is {apart:.1e} of the range from that of the tile in use")
        return Score(seconds)

    return score


def why_not_compiled(task: Task, tile: Tile, chip: str) -> str:
    """Why ``compile_table.py`` would not pass the kernel with this tile, or ""."""
    seen: list[Any] = []
    for spec in compile_table.registered(task.kernel.split("/")[0], chip):
        if spec.name == task.kernel and meant(spec, task):
            blocks = {key: value for key, value in tile.items() if key in spec.kernel.arg_names}
            constants = {**spec.constants, **blocks}
            if constants not in seen:  # the same kernel, registered for other numbers of queries
                seen.append(constants)
                error = compile_table.measure(spec._replace(constants=constants, tile=tile), chip).error
                if error:
                    return f"{spec.label}: {error}"
    return "" if seen else "compile_table.py does not know this kernel"


def meant(spec: Any, task: Task) -> bool:
    """Whether a registered kernel is the one that a call gets."""
    if task.call["dtype"] not in spec.label.split():
        return False
    widths = spec.constants.get("WIDTHS")
    if widths is not None:
        return (widths[0], widths[-1]) == (task.call["hidden"], task.call["last"])
    names = {"heads": "HEADS", "width": "WIDTH", "side": "SIDE", "hidden": "HIDDEN"}
    return all(spec.constants.get(names[k], v) == v for k, v in task.call.items() if k in names)


def why_not_exact(case: Case, task: Task, tile: Tile, device: torch.device) -> str:
    """How a small call with ``tile`` is less exact than the tests ask, or ""."""
    small, tiles = case.small(), {task.kernel: tile}
    x = inputs(small, device)
    try:
        found = compute(small, x, WAYS["triton"], tiles)
        judge(found, formula(small, x), formula(small, x, torch.float64), case.dtype)
    except GateError as error:
        return str(error)
    return ""


def merged(old: Iterable[Mapping[str, Any]], new: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The rows of a table with ``new`` in place of the one for the same calls.

    The first row that agrees with a call wins, so a kernel's rows come with the most exact ``when`` first.
    """
    rows = [row for row in old if (row["kernel"], row["when"]) != (new["kernel"], new["when"])]
    return sorted([*rows, new], key=lambda row: (row["kernel"], -len(row["when"])))


def write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a table, a row to a line, whole or not at all."""
    text = "[\n" + ",\n".join("  " + json.dumps(row) for row in rows) + "\n]\n"
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        file.write(text)
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


def tune(
    case: Case, task: Task, score: Any, device: torch.device, given: argparse.Namespace, ends: float
) -> None:
    """Tune one task, write its row if there is one to write, and say before and after."""
    path = given.tables / f"{tile_table.arch_of(device)}.json"
    outcome = climb(task, score, lambda: time.monotonic() > ends)
    tile = outcome.tile
    reason = why_not_kept(outcome, score) or why_not_compiled(task, tile, path.stem)
    reason = reason or why_not_exact(case, task, tile, device)
    if not reason:
        row = {"kernel": task.kernel, "when": dict(task.call), "tile": dict(tile)}
        old = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
        write(path, merged(old, row))
        tile_table.rows.cache_clear()
    before, after = outcome.seconds(task.tile), outcome.seconds(tile)
    if before is None or after is None:
        print(f"  {task}: the tile in use cannot be timed: {outcome.tried[0][1].reason}", flush=True)
    else:
        words = reason or " ".join(f"{k}={v}" for k, v in tile.items() if task.tile[k] != v)
        more = "" if outcome.finished else ", time was up"
        times = f"{before * 1e3:.3f} -> {after * 1e3:.3f} ms"
        print(f"  {task}: {times}   {words}   ({len(outcome.tried)} tried{more})", flush=True)
    if given.log is not None:
        tried = [{"tile": dict(t), "seconds": s.seconds, "reason": s.reason} for t, s in outcome.tried]
        row = {"kernel": task.kernel, "call": dict(task.call), "tile": dict(tile), "reason": reason}
        with open(given.log, "a", encoding="utf-8") as file:
            file.write(json.dumps(row | {"finished": outcome.finished, "tried": tried}) + "\n")


def main() -> int:
    """Tune; 2 where there is no GPU to tune for."""
    given = arguments()
    dtypes = [dtype for dtype, name in DTYPES.items() if name in (given.dtype or ["bf16"])]
    cases = list(works(given.shape or ("paper", "light"), dtypes))
    done: list[tuple[str, Mapping[str, Any]]] = []

    def new(case: Case, arch: str) -> Iterator[Task]:
        for task in tasks(case, arch):
            if given.kernel in task.kernel and (task.kernel, task.call) not in done:
                done.append((task.kernel, task.call))
                yield task

    if given.dry_run:
        for case in cases:
            for task in new(case, given.target):
                print(f"{task}   for {case.name}\n  in use  {dict(task.tile)}")
                for tile in neighbours(task, task.tile):
                    changed = (f"{k}={v}" for k, v in tile.items() if task.tile.get(k) != v)
                    print(f"          {' '.join(changed)}")
        return 0
    if not torch.cuda.is_available():
        print(
            "tune.py times kernels, and torch sees no GPU here; --dry-run lists what it would try",
            file=sys.stderr,
        )
        return 2
    device = torch.device("cuda", torch.cuda.current_device())
    ends = time.monotonic() + 60 * given.minutes
    print(f"{torch.cuda.get_device_name(device)}, at most {given.minutes:g} minutes, into {given.tables}")
    for case in cases:
        if time.monotonic() > ends:
            print(f"not reached: {case.name}")
            continue
        print(case.name, flush=True)
        x = inputs(case, device)
        run = partial(compute, case, x, WAYS["triton"])
        for task in new(case, tile_table.arch_of(device)):
            left = ends - time.monotonic()
            if left > 0:
                score = scorer(case, task, run, device)
                tune(case, task, score, device, given, time.monotonic() + LONGEST * left)
        del x, run
        torch.cuda.empty_cache()
    return 0


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10, help="at most so long (default: 10)")
    parser.add_argument("--kernel", default="", help="only kernels whose names contain this")
    parser.add_argument("--dtype", action="append", choices=list(DTYPES.values()), help="default: bf16")
    parser.add_argument("--shape", action="append", choices=list(SHAPES), help="default: both")
    parser.add_argument("--tables", type=Path, default=tile_table.FOLDER, help="folder of <chip>.json")
    parser.add_argument("--log", type=Path, help="everything tried is appended to this file, as JSON lines")
    parser.add_argument("--dry-run", action="store_true", help="list candidates; no GPU needed")
    parser.add_argument("--target", default="sm_90", help="chip of the dry run (default: sm_90)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
