"""Tiles of the Triton kernels: a row of ``tile_tables/<arch>.json``, else the kernel's heuristic default.

A tile is a dict of a kernel's block sizes together with the compiler's ``OPTIONS``. It is passed explicitly
to every launch; nothing is tuned while a user waits. A file holds rows such as

    {"kernel": "local_attention/forward_grid", "when": {"dtype": "bf16", "side": 7}, "tile": {"SLOTS": 16}}

The first row whose ``when`` agrees with the call wins; its tile replaces the entries it names.
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from .triton_support import DTYPES

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

FOLDER = Path(__file__).with_name("tile_tables")

Tile = Mapping[str, int]
Row = Mapping[str, dict]


class Target(NamedTuple):
    """What a kernel is built for.

    Attributes:
        arch: the chip: "sm_90", "gfx942", or "cpu" (the Triton interpreter).
        dtype: the maps', as Triton calls it: "fp32", "fp16" or "bf16".
        asked: entries that somebody asked for, by the kernel's name ("op/kernel"); they come before the rows.
    """

    arch: str
    dtype: str
    asked: Mapping[str, Tile] | None = None

    @classmethod
    def of(cls, maps: Tensor, asked: Mapping[str, Tile] | None) -> "Target":
        """That of maps on this device in this dtype."""
        return cls(arch_of(maps.device), DTYPES[maps.dtype], asked)

    def tile(self, kernel: str, default: Tile, **call: int) -> dict[str, int]:
        """The tile of ``kernel`` for a call described by ``call`` (side, width, ...).

        ``default`` is complete: it names every block size, ``num_warps`` and ``num_stages``.
        """
        if self.asked is not None and kernel in self.asked:
            return {**default, **self.asked[kernel]}
        told = {**call, "dtype": self.dtype}
        for row in rows(self.arch):
            if row["kernel"] == kernel and all(told.get(key) == value for key, value in row["when"].items()):
                return {**default, **row["tile"]}
        return dict(default)


@cache
def rows(arch: str) -> tuple[Row, ...]:
    """The rows of ``tile_tables/<arch>.json``, or none."""
    path = FOLDER / f"{arch}.json"
    return tuple(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else ()


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
