"""How much memory a stage's training step takes between its forward and its backward pass, and at its peak.

    python kernels/benchmarks/memory.py
    TRITON_INTERPRET=1 python kernels/benchmarks/memory.py --side 16     # the Triton kernels, too

Counted on a CPU, where a tensor has as many bytes as on a GPU:

    kept    what autograd saves for the backward pass, each storage once, parameters and maps left out
    peak    the most that live tensors took at any moment of both passes, less what was there before

The peak counts tensors that PyTorch operations make; it does not see scratch memory inside an operation. At
every moment there is a part that every step has (gradients of the parameters) and one that grows with the
queries. Two sizes of patch tell them apart; from these the paper's step (32 patches of 48 x 48) is reckoned,
moment by moment, not measured.
"""

import argparse
import gc
import json
import sys
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from cases import WAYS, Case, Inputs, Tiles, compute, forward, inputs
from environment import describe
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from clit_kernels.queries import tensors
from clit_kernels.triton_support import INTERPRETED

WANTED = 4
"""At most a quarter of the reference's memory."""

LOWER = torch.float16 if INTERPRETED else torch.bfloat16
"""As many bytes each; Triton's interpreter has no bfloat16, and CPUs are slow at float16."""

STEP = 32 * 48 * 48
"""Queries of the paper's step."""

RESULTS = Path(__file__).with_name("results") / "memory.jsonl"

FEW_PROGRAMS: Tiles = {
    "local_attention/forward_any": {"QUERIES": 64},
    "local_attention/backward_queries": {"QUERIES": 64},
    "local_attention/backward_map": {"PIXELS": 64},
    "coordinate_decode/direct": {"QUERIES": 256, "COLUMNS": 256},
    "coordinate_decode/mlp": {"ROWS": 512, "STEP": 256},
    "coordinate_decode/grad_first": {"QUERIES": 256, "COLUMNS": 256},
    "coordinate_decode/grad_queries": {"QUERIES": 64},
    "coordinate_decode/grad_raster": {"PIXELS": 64},
}
"""Large tiles for the interpreter, which is slow for each program; tiles do not change what is kept."""

SORTS = ("kept", "peak")
HEADINGS = ("kept, MB", "peak, MB", "step kept, GB", "step peak, GB")


class Live(TorchDispatchMode):
    """Counts the bytes of tensors that operations make within the block: now, and after every new one."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.moments: list[int] = []
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {_address(t) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and _address(tensor) not in before:
                self._count(tensor)
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self._known:
            return
        self._known.add(storage)
        size = storage.nbytes()
        if INTERPRETED:
            gc.collect()  # the interpreter leaves tensors in reference cycles, which compiled kernels do not
        self.now += size
        self.moments.append(self.now)
        weakref.finalize(storage, self._free, size)

    def _free(self, size: int) -> None:
        self.now -= size


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


@contextmanager
def kept_bytes(without: Sequence[Tensor]) -> Iterator[dict[int, int]]:
    """Within the block, the storages that autograd saves: address -> bytes; not those of ``without``."""
    given = {_address(t) for t in without}
    found: dict[int, int] = {}
    held: list[Tensor] = []  # or an address could be given out twice

    def pack(tensor: Tensor) -> Tensor:
        if _address(tensor) not in given:
            found[_address(tensor)] = tensor.untyped_storage().nbytes()
            held.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield found


def step(
    backend: str, kind: str, side: int, dtype: torch.dtype, *, shape: str = "paper", backward: bool = True
) -> tuple[int, list[int]]:
    """Kept bytes of a stage's step on one patch of ``side`` x ``side``, and the live ones at every moment.

    ``kind``: "raster" or "points", as many queries as pixels. Without ``backward`` there are no moments.
    """
    case = Case("decode_stage", shape, dtype, (side, side), None, kind)
    x: Inputs = inputs(case, torch.device("cpu"))
    tiles = FEW_PROGRAMS if INTERPRETED else None
    call = x.call
    with kept_bytes([*call[:3], *tensors(call.queries), call.cell, *call.weights.tensors()]) as kept:
        forward(case.op, x, WAYS[backend], tiles)
    if not backward:
        return sum(kept.values()), []
    gc.collect()
    gc.freeze()  # what is there already need not be looked through again
    with Live() as live:
        compute(case, x, WAYS[backend], tiles)
    gc.unfreeze()
    return sum(kept.values()), live.moments


def reckoned(backend: str, kind: str, side: int, dtype: torch.dtype, **more: Any) -> dict[str, Any]:
    """``step`` at ``side`` and at half of it, and the paper's step from both."""
    (kept_small, small), (kept, large) = (step(backend, kind, n, dtype, **more) for n in (side // 2, side))
    if len(small) != len(large):
        raise RuntimeError(f"{backend} takes {len(small)} and {len(large)} tensors: these do not compare")
    grown = (STEP - side**2) / (side**2 - (side // 2) ** 2)
    row: dict[str, Any] = {"kept_bytes": kept, "step_kept_bytes": kept + grown * (kept - kept_small)}
    if large:
        row["peak_bytes"] = max(large)
        row["step_peak_bytes"] = max(b + grown * (b - a) for a, b in zip(small, large, strict=True))
    return row


def main() -> int:
    """Measure the backends, print, write; 1 where the kernels take more than promised."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--side", type=int, default=48, help="of the larger patch, in pixels (default: 48)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON lines are appended to this file")
    given = parser.parse_args()
    backends = ["reference", "torch", *(["triton"] if INTERPRETED else [])]
    print(f"a stage of the paper's size on {given.side}x{given.side}; the paper's step reckoned from it")
    print(f"{'queries':<8}{'dtype':<9}{'backend':<10}" + "".join(f"{k:>17}" for k in HEADINGS))
    failed = 0
    for kind in ("raster", "points"):
        for dtype in (torch.float32, LOWER):
            reference: dict[str, Any] = {}
            for backend in backends:
                row = reckoned(backend, kind, given.side, dtype)
                reference = reference or row
                for key in SORTS:
                    row[f"{key}_ratio"] = reference[f"step_{key}_bytes"] / row[f"step_{key}_bytes"]
                failed |= backend == "triton" and min(row["kept_ratio"], row["peak_ratio"]) < WANTED
                name = str(dtype).removeprefix("torch.")
                cells = [f"{row[f'{key}_bytes'] / 1e6:.1f}" for key in SORTS]
                cells += [
                    f"{row[f'step_{key}_bytes'] / 1e9:.2f} ({row[f'{key}_ratio']:.1f}x)" for key in SORTS
                ]
                print(f"{kind:<8}{name:<9}{backend:<10}" + "".join(f"{c:>17}" for c in cells), flush=True)
                row |= {"case": "activation memory", "shape": "paper", "queries": kind, "side": given.side}
                row |= {"dtype": name, "backend": backend, "reckoned": "step_*"}
                with open(given.results, "a", encoding="utf-8") as file:
                    file.write(json.dumps(row | describe(torch.device("cpu"))) + "\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
