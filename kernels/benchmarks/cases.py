"""What is measured: an op on one stage of CLIT, its inputs, its result by any backend, and the exact one."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

import counts
import torch
from torch import Tensor

from clit_kernels import Grid, Points, Queries, Raster, StageCall
from clit_kernels.decode_stage.reference import CHUNK
from clit_kernels.self_check import SHAPES, enlargement, random_weights
from clit_kernels.triton_support import DTYPES

Size = tuple[int, int]
Tiles = Mapping[str, Mapping[str, int]]

OPS = ("decode_stage", "coordinate_decode", "local_attention")

SPOTS = 1024
"""Queries of a whole result that are looked at; in float64 the formula takes 100 kB for each."""

SMALL = (7, 6)
"""Feature map on which every backend's result is checked; rows and columns that no tile divides."""

SMALL_RASTER = (5, 4)
"""The same for a training step, whose gradients the formula computes in float64."""


class Way(NamedTuple):
    """Who computes: a backend, an order of sums for it, or its PyTorch code under torch.compile."""

    name: str
    backend: str
    order: str | None = None
    compiled: bool = False


WAYS = {name: Way(name, name) for name in ("reference", "torch", "triton")} | {
    f"compiled {name}": Way(f"compiled {name}", name, compiled=True) for name in ("reference", "torch")
}


class Case(NamedTuple):
    """One computation.

    Attributes:
        op: one of ``OPS``.
        shape: a key of ``SHAPES``.
        dtype: of the maps; weights are float32 in training, as under autocast.
        size: (h, w) of the maps.
        output: (H, W), every pixel of which is queried, forward only; None for a training step, forward and
            backward, with one query for each feature pixel.
        kind: "raster" or "points", where a training step's queries lie.
        batch: images.
    """

    op: str
    shape: str
    dtype: torch.dtype
    size: Size
    output: Size | None
    kind: str = "grid"
    batch: int = 1

    @property
    def name(self) -> str:
        """In words."""
        h, w = self.size
        where = (
            f"to {self.output[1]}x{self.output[0]}"
            if self.output
            else f"x {self.batch}, {self.kind}, backward"
        )
        return f"{self.op} {self.shape} {DTYPES[self.dtype]} {w}x{h} {where}"

    @property
    def queries(self) -> int:
        """Of all images."""
        h, w = self.output or self.size
        return self.batch * h * w

    @property
    def operations(self) -> float:
        """As ``counts`` has them; a product's backward pass has two of its size."""
        h, w = self.size
        count = counts.operations(self.op, SHAPES[self.shape], self.batch * h * w, self.queries)
        return count * (1 if self.output else 3)

    @property
    def attention_bytes(self) -> int:
        """Of the attention weights, which two of the ops read or write."""
        _, heads, radius, _ = SHAPES[self.shape]
        return self.queries * heads * (2 * radius + 1) ** 2 * self.dtype.itemsize

    def small(self) -> "Case":
        """The same on a few pixels, at about the same scale."""
        if self.output is None:
            return self._replace(size=SMALL_RASTER, batch=2)
        scales = [b / a for a, b in zip(self.size, self.output, strict=True)]
        h, w = (round(n * s) for n, s in zip(SMALL, scales, strict=True))
        return self._replace(size=SMALL, output=(h, w))


class Inputs(NamedTuple):
    """A stage's call, and attention weights where the op reads them."""

    call: StageCall
    attention: Tensor | None


def inputs(case: Case, device: torch.device) -> Inputs:
    """Random maps and weights; those of a training step ask for gradients."""
    shape, training = SHAPES[case.shape], case.output is None
    weights = random_weights(shape, torch.float32 if training else case.dtype)
    moved = [t.to(device) for t in weights.tensors()]
    half = (len(moved) - 2) // 2
    weights = weights._replace(
        proj_weight=moved[0],
        proj_bias=moved[1],
        mlp_weights=moved[2 : 2 + half],
        mlp_biases=moved[2 + half :],
    )
    size = (case.batch, *case.size, shape.channels)
    q, k, v = (_noise(size, device, case.dtype, i).permute(0, 3, 1, 2) for i in range(3))
    queries = positions(case, device)
    step = [2 * n / m for n, m in zip(case.size, case.output or case.size, strict=True)]
    cell = torch.tensor([step] * case.batch, device=device)
    call = StageCall(q, k, v, queries, weights, cell)
    if training:
        for tensor in leaves(call):
            tensor.requires_grad_()
    attention = None
    if case.op == "coordinate_decode":  # positive and about 1 in all, as after a softmax
        size = (case.batch, queries.count, shape.heads, weights.area)
        attention = _noise(size, device, case.dtype, 4).abs_().mul_(1.25 / weights.area)
    return Inputs(call, attention)


def positions(case: Case, device: torch.device) -> Queries:
    """Every pixel of the output, or random ones, about one near each feature pixel."""
    if case.output is not None:
        return enlargement(case.size, case.output, device)
    h, w = case.size
    offset = torch.rand(case.batch, 1, h, w, 2, generator=_generator(5)) - 0.5
    if case.kind == "raster":
        return Raster(offset.to(device))
    index = torch.rand(case.batch, h * w, 2, generator=_generator(6)) * torch.tensor((h, w))
    return Points(index.long().to(device), offset.reshape(case.batch, -1, 2).to(device))


def leaves(call: StageCall) -> list[Tensor]:
    """What has a gradient; not the projection's bias, which moves all logits of a head alike."""
    proj_weight, _, *mlp = call.weights.tensors()
    return [call.q, call.k, call.v, proj_weight, *mlp]


def compute(case: Case, x: Inputs, way: Way, tiles: Tiles | None = None) -> list[Tensor]:
    """The op's result, and a training step's gradients."""
    if case.output is not None:
        with torch.no_grad():
            return [forward(case.op, x, way, tiles)]
    out = forward(case.op, x, way, tiles)
    return [
        out.detach(),
        *torch.autograd.grad(out, leaves(x.call), _noise(out.shape, out.device, out.dtype, 7)),
    ]


def formula(case: Case, x: Inputs, upcast: torch.dtype | None = None) -> list[Tensor]:
    """``compute`` by the formula, at once for all queries; in float64 it is the truth."""
    if case.output is not None:
        with torch.no_grad():
            return [_one(_function(case.op, "_reference"), case.op, x, upcast=upcast)]
    if upcast is not None:
        x = Inputs(_converted(x.call, upcast), None)
    out = _one(_function(case.op, "_reference"), case.op, x)
    grad = _noise(out.shape, out.device, case.dtype, 7).to(out.dtype)
    return [out.detach(), *torch.autograd.grad(out, leaves(x.call), grad)]


def part(x: Inputs, share: float) -> tuple[Inputs, float]:
    """The first rows of the grid, at least one: what a slow backend is timed on; and their exact share."""
    grid = x.call.queries
    assert isinstance(grid, Grid)
    rows, cols = grid.row.shape[0], grid.col.shape[0]
    kept = max(1, min(rows, round(rows * share)))
    call = x.call._replace(queries=grid.rows(0, kept))
    return Inputs(call, None if x.attention is None else x.attention[:, : kept * cols]), kept / rows


def spots(x: Inputs) -> tuple[Inputs, Tensor]:
    """Random queries of a grid, the first and the last among them, as points; and their numbers."""
    index = torch.randint(0, x.call.queries.count, (SPOTS,), generator=_generator(8))
    index[0], index[-1] = 0, x.call.queries.count - 1
    index = index.to(x.call.q.device)
    return picked(x, index), index


def picked(x: Inputs, index: Tensor) -> Inputs:
    """Queries of a grid number ``index`` (n,) as points."""
    assert isinstance(x.call.queries, Grid)
    row, row_offset, col, col_offset = x.call.queries
    i, j = index // col.shape[0], index % col.shape[0]
    points = Points(
        torch.stack((row[i], col[j]), -1).unsqueeze(0),
        torch.stack((row_offset[i], col_offset[j]), -1).unsqueeze(0),
    )
    attention = None if x.attention is None else x.attention[:, index]
    return Inputs(x.call._replace(queries=points), attention)


def forward(op: str, x: Inputs, way: Way, tiles: Tiles | None = None) -> Tensor:
    """The op's result."""
    if way.backend == "reference":
        return _published(_function(op, "_reference", way.compiled), op, x)
    if way.compiled:
        return _one(_function(op, "_torch", compiled=True), op, x)
    how: dict[str, Any] = {"order": way.order} if way.order else {}
    return _one(_function(op), op, x, backend=way.backend, tiles=tiles, **how)


@cache
def _function(op: str, backend: str = "", compiled: bool = False) -> Callable[..., Tensor]:
    """The op, or one implementation of it."""
    function = getattr(import_module(f"clit_kernels.{op}"), op + backend)
    return torch.compile(function, dynamic=False) if compiled else function


def _one(function: Callable[..., Tensor], op: str, x: Inputs, **how: Any) -> Tensor:
    if op == "local_attention":
        return function(x.call.attention(), **how)
    if op == "coordinate_decode":
        assert x.attention is not None
        return function(x.call.decoding(x.attention), **how)
    return function(x.call, **how)


def _published(function: Callable[..., Tensor], op: str, x: Inputs) -> Tensor:
    """The published order of work: 30,000 queries of a grid at a time."""
    if not isinstance(x.call.queries, Grid):
        return _one(function, op, x)
    count, out = x.call.queries.count, None
    for start in range(0, count, CHUNK):
        index = torch.arange(start, min(start + CHUNK, count), device=x.call.q.device)
        chunk = _one(function, op, picked(x, index))
        out = chunk.new_empty(chunk.shape[0], count, *chunk.shape[2:]) if out is None else out
        out[:, start : start + CHUNK] = chunk
    assert out is not None
    return out


def _converted(call: StageCall, dtype: torch.dtype) -> StageCall:
    """The call on leaves in ``dtype``."""

    def leaf(tensor: Tensor) -> Tensor:
        return tensor.detach().to(dtype).requires_grad_()

    w = call.weights
    mlp: Sequence[list[Tensor]] = [[leaf(t) for t in ts] for ts in (w.mlp_weights, w.mlp_biases)]
    weights = w._replace(
        proj_weight=leaf(w.proj_weight),
        proj_bias=w.proj_bias.to(dtype),
        mlp_weights=mlp[0],
        mlp_biases=mlp[1],
    )
    q, k, v = (leaf(t) for t in call[:3])
    return call._replace(q=q, k=k, v=v, weights=weights, cell=call.cell.to(dtype))


def _generator(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)


def _noise(size: Sequence[int], device: torch.device, dtype: torch.dtype, seed: int) -> Tensor:
    """Normal numbers, made where they are needed and in the dtype in which they are."""
    return torch.randn(*size, generator=_generator(seed, device), device=device, dtype=dtype)
