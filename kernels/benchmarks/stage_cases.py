"""The three ops on one stage of a model: inputs, every backend, and the exact result of small calls."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import counts
import torch
from measure import Case, Check, Promise
from torch import Tensor

from clit_kernels import Grid, Points, StageWeights, coordinate_decode, decode_stage, local_attention
from clit_kernels.coordinate_decode import coordinate_decode_hoisted, coordinate_decode_reference
from clit_kernels.decode_stage import decode_stage_hoisted, decode_stage_reference
from clit_kernels.decode_stage.reference import CHUNK
from clit_kernels.local_attention import local_attention_hoisted, local_attention_reference
from clit_zoo import geometry
from clit_zoo.decoders import build_decoder
from clit_zoo.zoo import registry

Size = tuple[int, int]

SPOTS = 1024
"""Queries of a whole result that are looked at; in float64 the formula takes 100 kB for each."""

SMALL = (7, 6)
"""Feature map on which every backend's result is checked; rows and columns that no tile divides."""


@dataclass(frozen=True)
class Stage:
    """Arguments of the ops; ``weights`` only where an op reads them, ``small`` a stage for the check."""

    op: str
    q: Tensor
    k: Tensor
    v: Tensor
    grid: Grid
    weights: StageWeights
    cell: Tensor
    attention: Tensor | None
    small: "Stage | None" = None

    @property
    def batch(self) -> int:
        return self.q.shape[0]


def noise(
    shape: tuple[int, ...], device: torch.device, dtype: torch.dtype, seed: int, normal: bool = True
) -> Tensor:
    """Random numbers, made where they are needed and in the dtype in which they are."""
    generator = None if device.type == "meta" else torch.Generator(device).manual_seed(seed)
    draw = torch.randn if normal else torch.rand
    return draw(shape, generator=generator, device=device, dtype=dtype)


def stage_weights(model: str, device: torch.device, dtype: torch.dtype) -> StageWeights:
    """The first stage of a registered model, with random weights."""
    torch.manual_seed(0)
    settings = dict(registry.get(model).config.decoder)
    decoder: Any = build_decoder(settings.pop("name"), counts.ENCODED, **settings)
    stage: StageWeights = decoder.to(device, dtype).requires_grad_(False).stage_weights(0)
    return stage


def prepare(
    device: torch.device, op: str, model: str, size: Size, output: Size, dtype: torch.dtype = torch.float32,
    small: bool = True,
) -> Stage:  # fmt: skip
    """Random maps of ``size`` and the grid of all pixels of ``output``."""
    stage = stage_weights(model, device, dtype)
    channels = counts.Shape.of(registry.get(model).config).channels
    q, k, v = (noise((1, *size, channels), device, dtype, seed).permute(0, 3, 1, 2) for seed in (1, 2, 3))
    grid, attention = geometry.grid(size, output, device), None
    if (
        op == "coordinate_decode"
    ):  # positive and about 1 in all, as after a softmax; not a copy more than that
        attention = noise((1, grid.count, stage.heads, stage.area), device, dtype, 4, normal=False)
        attention.mul_(2 / stage.area)
    cell = geometry.cell_size(size, output, 1, device)
    less = None
    if small:
        scales = [b / a for a, b in zip(size, output, strict=True)]
        shrunk = tuple(round(n * s) for n, s in zip(SMALL, scales, strict=True))
        less = prepare(device, op, model, SMALL, (shrunk[0], shrunk[1]), dtype, small=False)
    return Stage(op, q, k, v, grid, stage, cell, attention, less)


def at(x: Stage, index: Tensor) -> tuple[Points, Tensor | None]:
    """The queries of a grid number ``index`` (n,) as points, and their attention weights."""
    row, col = index // x.grid.col.shape[0], index % x.grid.col.shape[0]
    points = Points(
        torch.stack((x.grid.row[row], x.grid.col[col]), -1).unsqueeze(0),
        torch.stack((x.grid.row_offset[row], x.grid.col_offset[col]), -1).unsqueeze(0),
    )
    return points, None if x.attention is None else x.attention[:, index]


def part(x: Stage, share: float) -> tuple[Stage, float]:
    """The first rows of the grid, at least one: what a slow backend is timed on."""
    rows, cols = x.grid.row.shape[0], x.grid.col.shape[0]
    kept = max(1, min(rows, round(rows * share)))
    attention = None if x.attention is None else x.attention[:, : kept * cols]
    return replace(x, grid=x.grid.rows(0, kept), attention=attention), kept / rows


def call(
    function: Callable[..., Tensor], x: Stage, queries: Any, attention: Tensor | None, **more: Any
) -> Tensor:
    """One op, or one implementation of it."""
    w = x.weights
    if x.op == "local_attention":
        return function(x.q, x.k, queries, w.proj_weight, w.proj_bias, heads=w.heads, radius=w.radius, **more)
    if x.op == "coordinate_decode":
        return function(attention, x.v, queries, w.mlp_weights, w.mlp_biases, x.cell, **more)
    return function(x.q, x.k, x.v, queries, w, x.cell, **more)


OPS: Mapping[str, Callable[..., Tensor]] = {
    "local_attention": local_attention,
    "coordinate_decode": coordinate_decode,
    "decode_stage": decode_stage,
}
HOISTED: Mapping[str, Callable[..., Tensor]] = {
    "local_attention": local_attention_hoisted,
    "coordinate_decode": coordinate_decode_hoisted,
    "decode_stage": decode_stage_hoisted,
}
REFERENCE: Mapping[str, Callable[..., Tensor]] = {
    "local_attention": local_attention_reference,
    "coordinate_decode": coordinate_decode_reference,
    "decode_stage": decode_stage_reference,
}


@cache
def compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``function`` under torch.compile, with sizes as constants."""
    return torch.compile(function, dynamic=False)


@torch.no_grad()
def run(x: Stage, backend: str) -> Tensor:
    """The op by a backend: "triton", "hoisted", "reference", or "compiled" before the last two."""
    kind = backend.removeprefix("compiled ")
    if kind == "triton":
        return call(OPS[x.op], x, x.grid, x.attention, backend="triton")
    function = (REFERENCE if kind == "reference" else HOISTED)[x.op]
    if kind != backend:
        function = compiled(function)
    return published(function, x) if kind == "reference" else call(function, x, x.grid, x.attention)


def published(function: Callable[..., Tensor], x: Stage) -> Tensor:
    """The published order of work: 30,000 queries at a time."""
    count = x.grid.count
    out: Tensor | None = None
    for start in range(0, count, CHUNK):
        index = torch.arange(start, min(start + CHUNK, count), device=x.q.device)
        chunk = call(function, x, *at(x, index))
        if out is None:
            out = chunk.new_empty(chunk.shape[0], count, *chunk.shape[2:])
        out[:, start : start + CHUNK] = chunk
    assert out is not None
    return out


def check(x: Stage, backend: str) -> Check:
    """The small stage by a backend, and by the formula in float64."""
    assert x.small is not None
    every = torch.arange(x.small.grid.count, device=x.q.device)
    return _against_formula(x.small, every, run(x.small, backend))


def spot(x: Stage, result: Tensor) -> Check:
    """A whole result at random queries, the first and the last among them."""
    generator = torch.Generator().manual_seed(5)
    index = torch.randint(0, x.grid.count, (SPOTS,), generator=generator)
    index[0], index[-1] = 0, x.grid.count - 1
    index = index.to(x.q.device)
    return _against_formula(x, index, result[:, index])


@torch.no_grad()
def _against_formula(x: Stage, index: Tensor, result: Tensor) -> Check:
    function = REFERENCE[x.op]
    plain = call(function, x, *at(x, index))
    truth = call(function, x, *at(x, index), upcast=torch.float64)
    return Check([result], [plain], [truth])


NAMES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}


def stage_case(
    op: str, model: str, size: Size, output: Size, dtype: torch.dtype, backends: tuple[str, ...],
    limits: Mapping[str, int], promises: tuple[Promise, ...] = (), seconds: float = 1.0,
    label: str = "", memory: float = float("inf"),
) -> Case:  # fmt: skip
    """An op at one scale.

    Args:
        limits: queries that a backend is timed on at most.
        label: what the name ends with.
        memory: bytes that there are: a result that takes more than half of them is not tried.
    """
    name = f"{op} {NAMES[dtype]} {size[1]}x{size[0]} to {output[1]}x{output[0]} {label}".strip()
    shape = counts.Shape.of(registry.get(model).config)
    pixels, queries = size[0] * size[1], output[0] * output[1]
    operations = {
        "local_attention": counts.attention(shape, queries),
        "coordinate_decode": counts.decode(shape, pixels, queries),
        "decode_stage": counts.stage(shape, pixels, queries),
    }[op]
    taken = queries * shape.heads * shape.area * dtype.itemsize * (op != "decode_stage")
    if taken > memory / 2:
        reason = f"the attention weights take {taken / 1e9:.0f} GB, more than half of the memory"
        return Case(name, backends, nothing, run, skipped=dict.fromkeys(backends, reason))
    return Case(
        name,
        backends,
        partial(prepare, op=op, model=model, size=size, output=output, dtype=dtype),
        run,
        check=check,
        spot=spot,
        exact=1e-5 if dtype == torch.float32 else None,
        promises=promises,
        seconds=seconds,
        operations=operations,
        dtype=dtype,
        shares={b: min(1.0, limit / queries) for b, limit in limits.items()},
        part=part,
        facts={"op": op, "model": model, "scale": round(output[1] / size[1], 3), "dtype": NAMES[dtype]},
    )


def nothing(device: torch.device) -> None:
    """The inputs of a case that is not run."""
