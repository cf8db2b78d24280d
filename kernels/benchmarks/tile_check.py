"""Whether a tile compiles for a chip, fits it and spills nothing, as ``compile_table.py`` asks of all."""

import importlib.util
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from functools import cache, partial
from pathlib import Path
from typing import Any

from tile_search import Task, Tile

from clit_kernels import settings

TABLE = Path(__file__).resolve().parents[1] / "compile_table.py"

NAMES = {"heads": "HEADS", "width": "WIDTH", "side": "SIDE", "hidden": "HIDDEN"}
"""What a call's numbers are called among a kernel's constants."""


def why_not(task: Task, tile: Tile, target: str) -> str:
    """Why a chip cannot run a task's kernel with ``tile``: "", or the compiler's or the table's words."""
    table = _table()
    seen: list[Mapping[str, object]] = []
    with settings.forced({task.kernel: tile}):
        specs = [spec for spec in table.registered(task.kernel.split("/")[0], target) if _means(spec, task)]
    for spec in specs:
        if spec.constants not in seen:  # the same kernel, registered for other numbers of queries
            seen.append(spec.constants)
            error = table.measure(spec, target).error
            if error:
                return f"{spec.label}: {error}"
    return ""


def _means(spec: Any, task: Task) -> bool:
    """Whether a registered kernel is the one that a call gets."""
    if spec.name != task.kernel or task.call["dtype"] not in spec.label.split():
        return False
    widths = spec.constants.get("WIDTHS")
    if widths is not None:
        return (widths[0], widths[-1]) == (task.call["hidden"], task.call["last"])
    given = {name: task.call[key] for key, name in NAMES.items() if key in task.call}
    return all(spec.constants.get(name, value) == value for name, value in given.items())


def fitting(
    task: Task, target: str, pool: Executor | None = None
) -> Callable[[Sequence[Tile]], Iterable[tuple[Tile, str]]]:
    """``climb``'s filter: each tile with why it does not fit; a pool compiles several at a time."""
    check = partial(why_not, task, target=target)

    def each(tiles: Sequence[Tile]) -> Iterator[tuple[Tile, str]]:
        reasons = map(check, tiles) if pool is None else pool.map(check, tiles)
        yield from zip(tiles, reasons, strict=True)

    return each


@cache
def _table() -> Any:
    spec = importlib.util.spec_from_file_location("compile_table", TABLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
