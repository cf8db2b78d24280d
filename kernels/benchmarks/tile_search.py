"""Looking for a faster tile: neighbours of a tile, a climb among them, and the settings' rows. No GPU here.

A tile's block sizes are powers of two. From the tile in use, every neighbour that fits is timed (one entry
doubled or halved, one stage more or less); the fastest is the next centre, until none is faster.
"""

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

Tile = dict[str, int]
Row = Mapping[str, Any]

LARGEST = 1024
WARPS, STAGES = (2, 16), (1, 5)

MATRIX = ("QUERIES", "ROWS", "COLUMNS", "STEP")
"""Entries of the decoder's kernels that are a side of a matrix product: at least 16."""

GAIN = 0.98
"""A tile is taken to be faster where it takes at most this share of the time."""

KEPT_GAIN = 0.97
"""And written to the settings where it does so in a second, interleaved comparison."""


class Task(NamedTuple):
    """One row to be tuned: a kernel ("op/name"), what ``settings.tile`` is asked with, the tile in use."""

    kernel: str
    call: Mapping[str, object]
    tile: Tile

    def __str__(self) -> str:
        return f"{self.kernel} {' '.join(f'{k}={v}' for k, v in self.call.items())}"


class Score(NamedTuple):
    """Seconds that a tile takes, or why it cannot be used."""

    seconds: float | None
    reason: str = ""


@dataclass
class Outcome:
    """What became of a task; ``tried`` has every tile with its score, the tile in use first."""

    task: Task
    tile: Tile
    tried: list[tuple[Tile, Score]] = field(default_factory=list)
    finished: bool = True

    @property
    def before(self) -> float | None:
        return self.tried[0][1].seconds

    @property
    def after(self) -> float | None:
        return next(score.seconds for tile, score in self.tried if tile == self.tile)


def neighbours(task: Task, tile: Tile) -> Iterator[Tile]:
    """Tiles one step from ``tile`` that make sense for the kernel; whether they fit, compiling shows."""
    for key, value in tile.items():
        if key == "maxnreg":
            continue  # a chip's limit, not a size
        near = (value - 1, value + 1) if key == "num_stages" else (value // 2, value * 2)
        for other in near:
            candidate = tile | {key: other}
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
    heads, hidden = (task.call.get(key) for key in ("heads", "hidden"))
    group = tile.get("GROUP", 1)
    if op == "local_attention":
        return name != "forward_grid" or (isinstance(heads, int) and group < 2 * heads)
    if any(tile.get(key, 16) < 16 for key in MATRIX):
        return False
    if isinstance(hidden, int) and max(tile.get("COLUMNS", 0), tile.get("STEP", 0)) > hidden:
        return False
    if name == "hoisted":
        pixels = tile["PIXELS_Y"] * tile["PIXELS_X"]
        return pixels >= 16 and group <= pixels and group * tile["SLOTS"] >= 16
    return not isinstance(heads, int) or heads % group == 0


def climb(
    task: Task,
    fitting: Callable[[Sequence[Tile]], Iterable[tuple[Tile, str]]],
    score: Callable[[Tile], Score],
    over: Callable[[], bool],
) -> Outcome:
    """The fastest tile found from the one in use.

    Args:
        fitting: tiles -> each with why it does not fit the chip, or "".
        score: times a tile; a wrong result has a reason and no seconds.
        over: whether the time for this task is up; what was found until then counts.
    """
    outcome = Outcome(task, task.tile, [(task.tile, score(task.tile))])
    best = outcome.before
    if best is None:
        return outcome
    seen = [task.tile]
    while True:
        around = [tile for tile in neighbours(task, outcome.tile) if tile not in seen]
        seen += around
        moved = None
        for tile, reason in fitting(around):
            if over():
                outcome.finished = False
                break
            found = Score(None, reason) if reason else score(tile)
            outcome.tried.append((tile, found))
            if found.seconds is not None and found.seconds <= GAIN * best:
                best, moved = found.seconds, tile
        if moved is not None:
            outcome.tile = moved
        if moved is None or not outcome.finished:
            return outcome


def confirmed(outcome: Outcome, score: Callable[[Tile], Score], rounds: int = 3) -> bool:
    """Whether the tile found is faster than the one in use when both are timed in turn."""
    if outcome.tile == outcome.task.tile:
        return False
    totals = {"before": 0.0, "after": 0.0}
    for _ in range(rounds):
        for key, tile in (("before", outcome.task.tile), ("after", outcome.tile)):
            seconds = score(tile).seconds
            if seconds is None:
                return False
            totals[key] += seconds
    return totals["after"] <= KEPT_GAIN * totals["before"]


def setting(task: Task, tile: Tile) -> dict[str, Any]:
    """The row that makes ``tile`` the one in use."""
    return {"kernel": task.kernel, "when": dict(task.call), "tile": dict(tile)}


def merged(old: Iterable[Row], tuned: Iterable[Row]) -> list[dict[str, Any]]:
    """Old rows with tuned ones in place of those for the same calls.

    The first row that agrees with a call wins, so a kernel's rows come with the most exact ``when`` first.
    """
    rows = {_key(row): dict(row) for row in old}
    rows |= {_key(row): dict(row) for row in tuned}
    return sorted(rows.values(), key=lambda row: (row["kernel"], -len(row["when"])))


def _key(row: Row) -> str:
    return json.dumps([row["kernel"], row["when"]], sort_keys=True)


def read_settings(path: Path) -> list[dict[str, Any]]:
    """The rows of a settings file; none where there is no file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def write_settings(path: Path, rows: Iterable[Row]) -> None:
    """Write a settings file, a row to a line, whole or not at all."""
    text = "[\n" + ",\n".join("  " + json.dumps(row) for row in rows) + "\n]\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        file.write(text)
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)
