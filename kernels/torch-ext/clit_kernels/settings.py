"""Tile configurations: measured ones from ``settings/<arch>.json``, else the kernel's own heuristic default.

A tile is a dict of a kernel's block sizes together with the compiler's ``OPTIONS``. It is passed explicitly
to every launch; nothing is tuned while a user waits. A file holds rows such as

    {"kernel": "local_attention/forward_grid", "when": {"dtype": "bf16", "side": 7}, "tile": {"SLOTS": 16}}

The first row whose ``when`` agrees with the call wins; its tile replaces the entries it names.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch

OPTIONS = ("num_warps", "num_stages", "maxnreg")
"""Entries of a tile that are Triton's and not the kernel's; ``maxnreg`` only where NVIDIA's chips need it."""

SHARED = {
    "sm_80": 163,
    "sm_87": 163,
    "sm_89": 99,
    "sm_90": 227,
    "sm_100": 227,
    "sm_103": 227,
    "gfx942": 64,
    "cpu": 1 << 20,
}
"""Shared memory that one block may have, KiB; see ``shared_memory`` for other chips."""

FOLDER = Path(__file__).with_name("settings")

Tile = dict[str, int]
Row = Mapping[str, dict]

_forced: dict[str, Tile] = {}


def tile(kernel: str, default: Tile, arch: str, **call: object) -> Tile:
    """The tile of ``kernel`` ("op/name") on ``arch`` for a call described by ``call`` (dtype, side, ...).

    ``default`` is complete: it names every block size, ``num_warps`` and ``num_stages``.
    """
    if kernel in _forced:
        return default | _forced[kernel]
    for row in rows(arch):
        if row["kernel"] == kernel and all(call.get(key) == value for key, value in row["when"].items()):
            return default | row["tile"]
    return default


@cache
def rows(arch: str) -> tuple[Row, ...]:
    """The rows of ``settings/<arch>.json``, or none."""
    path = FOLDER / f"{arch}.json"
    return tuple(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else ()


@contextmanager
def forced(tiles: Mapping[str, Tile]) -> Iterator[None]:
    """Within the block, kernels named in ``tiles`` take those entries; for tuning and for tests."""
    before = dict(_forced)
    _forced.update({name: dict(entries) for name, entries in tiles.items()})
    try:
        yield
    finally:
        _forced.clear()
        _forced.update(before)


def shared_memory(arch: str) -> int:
    """Shared memory of a block in KiB: 99 on other chips of NVIDIA's from sm_86 on, 64 on unknown ones."""
    return SHARED.get(arch, 99 if arch.startswith("sm_") else 64)


def arch_of(device: torch.device) -> str:
    """The name of ``device``'s architecture: "sm_90", "gfx942", or "cpu" (the Triton interpreter)."""
    if device.type != "cuda":
        return device.type
    if torch.version.hip:
        return torch.cuda.get_device_properties(device).gcnArchName.partition(":")[0]
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm_{major}{minor}"
