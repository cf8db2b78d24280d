"""What runs while a tile is tuned: calls of the ops, the tiles they ask for, and the time of one kernel."""

import importlib
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple
from unittest.mock import patch

import counts
import stage_cases
import torch
from measure import GateError, judge
from tile_search import Score, Task, Tile
from torch import Tensor
from training_case import check as training_check
from training_case import positions, small_stage

from clit_kernels import Queries, Raster, settings
from clit_kernels.decode_stage.launch import decode_stage_triton
from clit_zoo import geometry
from clit_zoo.zoo import registry

Size = tuple[int, int]

MODULES = {
    "local_attention": ("kernel", "kernel_backward"),
    "coordinate_decode": ("kernel", "kernel_mlp", "kernel_backward"),
}
"""Where the ops' kernels are, which the settings name "op/kernel"."""

RUNS = 5
SLEEP = 2_000_000
"""Clock cycles that the GPU waits before a kernel that is timed, a millisecond: by the time it is done the
kernel is queued, and the launch takes no part of the time."""

SAME = {torch.float32: 1e-5, torch.float16: 2 * 2**-10, torch.bfloat16: 2 * 2**-7}
"""How far results of two tiles may lie apart, as a share of their range: two units in the last place where
sums in another order round otherwise. The tile that is chosen meets the tests' rule besides."""


class Work(NamedTuple):
    """Calls to tune for: a stage forward on a grid, or forward and backward at ``kind`` positions."""

    model: str
    dtype: torch.dtype
    kind: str
    size: Size
    output: Size
    batch: int = 1

    def __str__(self) -> str:
        where = f"{self.output[1]}x{self.output[0]}" if self.kind == "grid" else f"{self.kind}, backward"
        size = f"{self.batch} x {self.size[1]}x{self.size[0]}"
        return f"{self.model} {stage_cases.NAMES[self.dtype]} {size} to {where}"

    def prepare(self, device: torch.device) -> Callable[[], list[Tensor]]:
        """A function that makes the calls and returns their results, gradients included."""
        if self.kind == "grid":
            x = stage_cases.prepare(
                device, "decode_stage", self.model, self.size, self.output, self.dtype, small=False
            )
            return partial(_forward, x)
        channels = counts.Shape.of(registry.get(self.model).config).channels
        stage = stage_cases.stage_weights(self.model, device, torch.float32)
        where = positions(self.kind, self.batch, *self.size, device)
        queries: Queries = Raster(where) if self.kind == "raster" else geometry.points(where, self.size)
        maps = [
            stage_cases.noise((self.batch, *self.size, channels), device, self.dtype, seed).permute(
                0, 3, 1, 2
            )
            for seed in (1, 2, 3)
        ]
        cell = torch.full((self.batch, 2), 0.5, device=device)
        inputs = [t.requires_grad_() for t in (*maps, *stage.tensors())]
        return partial(_backward, maps, queries, stage, cell, inputs)


@torch.no_grad()
def _forward(x: stage_cases.Stage) -> list[Tensor]:
    return [decode_stage_triton(x.q, x.k, x.v, x.grid, x.weights, x.cell)]


def _backward(
    maps: Sequence[Tensor], queries: Queries, stage: Any, cell: Tensor, inputs: Any
) -> list[Tensor]:
    q, k, v = maps
    out = decode_stage_triton(q, k, v, queries, stage, cell)
    grad = stage_cases.noise(tuple(out.shape), out.device, out.dtype, 9)
    return [out.detach(), *torch.autograd.grad(out, inputs, grad)]


def works(models: Sequence[str], dtypes: Sequence[torch.dtype], *, tiny: bool = False) -> Iterator[Work]:
    """Calls that use every kernel: grids at x4, x2, x3 and x6, and training; most important first.

    ``tiny``: on a few pixels, which ask for the same tiles.
    """
    for dtype in dtypes:
        for model in models:
            size = (8, 8) if tiny else (256, 256)
            batch, side = (1, 4) if tiny else (32, 48)
            for scale in (4, 2, 3, 6):
                yield Work(model, dtype, "grid", size, (scale * size[0], scale * size[1]))
            for kind in ("raster", "points"):
                yield Work(model, dtype, kind, (side, side), (side, side), batch)
            yield Work(model, dtype, "grid", size, size)


class _Watched:
    """A kernel whose launches are handed to ``launch`` with the grid and the arguments."""

    def __init__(self, kernel: Any, launch: Callable[..., Any]):
        self._kernel, self._launch = kernel, launch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kernel, name)

    def __getitem__(self, grid: Any) -> Callable[..., Any]:
        return partial(self._launch, self._kernel, grid)


@contextmanager
def watched(kernel: str, launch: Callable[..., Any]) -> Iterator[None]:
    """Within the block, ``launch(kernel, grid, *args, **options)`` is called instead of ``kernel``."""
    op, name = kernel.split("/")
    for part in MODULES[op]:
        module = importlib.import_module(f"clit_kernels.{op}.{part}")
        if hasattr(module, name):
            with patch.object(module, name, _Watched(getattr(module, name), launch)):
                yield
            return
    raise ValueError(f"there is no kernel {kernel!r} in clit_kernels")


@contextmanager
def asked() -> Iterator[list[Task]]:
    """Within the block, the tiles that launches ask the settings for, each once, with the answers."""
    tasks: list[Task] = []
    real = settings.tile

    def tile(kernel: str, default: Tile, arch: str, **call: object) -> Tile:
        answer = real(kernel, default, arch, **call)
        task = Task(kernel, call, dict(answer))
        if task not in tasks:
            tasks.append(task)
        return answer

    with patch.object(settings, "tile", tile):
        yield tasks


def kernel_seconds(
    kernel: str, run: Callable[[], list[Tensor]], device: torch.device
) -> tuple[list[Tensor], float]:
    """What ``run`` returns, and the seconds that ``kernel`` takes of it: the median of several runs."""
    spans: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def launch(real: Any, grid: Any, *args: Any, **options: Any) -> Any:
        started, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda._sleep(SLEEP)
        started.record()
        result = real[grid](*args, **options)
        ended.record()
        spans.append((started, ended))
        return result

    results = run()  # compiles
    times = []
    for _ in range(RUNS):
        spans.clear()
        with watched(kernel, launch):
            run()
        torch.cuda.synchronize(device)
        times.append(sum(a.elapsed_time(b) for a, b in spans) / 1e3)
    return results, statistics.median(times)


def scorer(
    task: Task, run: Callable[[], list[Tensor]], device: torch.device, dtype: torch.dtype,
    clock: Callable[..., tuple[list[Tensor], float]] = kernel_seconds,
) -> Callable[[Tile], Score]:  # fmt: skip
    """Times tiles of a task; one whose results differ from those of the tile in use has a reason instead."""
    with settings.forced({task.kernel: task.tile}):
        expected = [t.clone() for t in run()]

    def score(tile: Tile) -> Score:
        try:
            with settings.forced({task.kernel: tile}):
                results, seconds = clock(task.kernel, run, device)
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:  # a tile that the compiler or the chip refuses is no reason to stop
            return Score(None, f"{type(error).__name__}: {str(error).strip().splitlines()[-1][:120]}")
        wrong = _difference(results, expected, SAME[dtype])
        return Score(None, wrong) if wrong else Score(seconds)

    return score


def _difference(results: Sequence[Tensor], expected: Sequence[Tensor], allowed: float) -> str:
    for i, (result, other) in enumerate(zip(results, expected, strict=True)):
        spread = max(float(other.max() - other.min()), 1.0)  # the bias' gradient is zero but for rounding
        apart = float((result.double() - other.double()).abs().max()) / spread
        if not apart <= allowed:  # NaN must not pass
            return f"result {i} is {apart:.1e} of the range from that of the tile in use"
    return ""


def keeps_the_rule(task: Task, tile: Tile, work: Work, device: torch.device) -> str:
    """Whether a small call with ``tile`` is as exact as the tests ask: "" or how it is not."""
    exact = 1e-5 if work.dtype == torch.float32 else None
    try:
        with settings.forced({task.kernel: tile}):
            if work.kind == "grid":
                scale = work.output[0] // work.size[0]
                size = stage_cases.SMALL
                x = stage_cases.prepare(
                    device, "decode_stage", work.model, size, (scale * size[0], scale * size[1]), work.dtype
                )
                judge(exact, stage_cases.check(x, "triton"))
            else:
                small = small_stage(device, work.model, work.kind, work.dtype)
                judge(exact, training_check({"small": small}, "triton"))
    except GateError as error:
        return str(error)
    return ""
