"""Inputs for the ops, and the rules their results must keep."""

import itertools
from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor

from clit_kernels import Grid, Points, Raster, StageWeights
from clit_kernels.queries import Queries, as_points

SIZES = {
    "one pixel": ((1, 1), (1, 1)),
    "one pixel x 5": ((1, 1), (5, 5)),
    "x1": ((5, 3), (5, 3)),
    "x1.01": ((50, 2), (51, 2)),
    "x2.5": ((5, 3), (12, 8)),
    "x3.999": ((3, 4), (12, 16)),
    "x17.3": ((2, 3), (35, 52)),
    "x1.2 and x6.7": ((5, 3), (6, 20)),
}
"""Name -> size of the map, size of the output."""


def rng(seed: int = 0) -> torch.Generator:
    """A generator of its own for every draw, so that no case changes another."""
    return torch.Generator().manual_seed(seed)


def axis(n: int, m: int) -> tuple[Tensor, Tensor]:
    """Nearest pixel and offset of m pixel centres on n pixels, in exact arithmetic."""
    where = [Fraction((2 * i + 1) * n, 2 * m) - Fraction(1, 2) for i in range(m)]
    index = [round(x) for x in where]  # Python rounds ties to even
    return torch.tensor(index), torch.tensor([float(x - i) for x, i in zip(where, index, strict=True)])


def whole_grid(name: str) -> Grid:
    """Every output pixel of a case of ``SIZES``."""
    return enlargement(*SIZES[name])


def enlargement(size: tuple[int, int], output: tuple[int, int]) -> Grid:
    """Every pixel of an ``output`` (H, W) on a map of ``size`` (h, w)."""
    (h, w), (height, width) = size, output
    return Grid(*axis(h, height), *axis(w, width))


def scattered_grid() -> Grid:
    """Rows and columns of a 7 x 6 map with none, one and several positions to a feature pixel."""
    row, col = torch.tensor([1, 3, 3, 3, 5, 6]), torch.tensor([0, 0, 2, 4, 4, 4, 5])
    return Grid(row, torch.rand(6, generator=rng()) - 0.5, col, torch.rand(7, generator=rng()) - 0.5)


def random_points(batch: int, count: int, h: int, w: int) -> Points:
    """Positions on and just outside an h x w map."""
    index = torch.stack([torch.randint(-2, n + 2, (batch, count), generator=rng()) for n in (h, w)], -1)
    return Points(index, torch.rand(batch, count, 2, generator=rng()) - 0.5)


def random_raster(batch: int, m: int, h: int, w: int) -> Raster:
    """M positions for every pixel of an h x w map."""
    return Raster(torch.rand(batch, m, h, w, 2, generator=rng()) - 0.5)


QUERIES: dict[str, tuple[tuple[int, int], Queries]] = {
    **{f"grid {name}": (size, whole_grid(name)) for name, (size, _) in SIZES.items()},
    "grid scattered": ((7, 6), scattered_grid()),
    "grid band": ((5, 3), whole_grid("x2.5").rows(3, 9)),
    "points": ((4, 5), random_points(2, 23, 4, 5)),
    "points on one pixel": ((1, 1), random_points(2, 9, 1, 1)),
    "no points": ((4, 5), random_points(2, 0, 4, 5)),
    "raster": ((5, 3), random_raster(2, 1, 5, 3)),
    "raster of 3": ((3, 4), random_raster(2, 3, 3, 4)),
    "raster of 20": ((2, 3), random_raster(2, 20, 2, 3)),
    "raster on one pixel": ((1, 1), random_raster(2, 2, 1, 1)),
}
"""Name -> size of the map, queries on it (for batches of 2)."""


def random_map(channels: int, size: tuple[int, int], seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """(2, C, h, w), cut out of a larger channels-last map: not contiguous in either layout."""
    h, w = size
    whole = torch.randn(2, h + 2, w + 1, channels + 3, generator=rng(seed)).to(dtype)
    return whole[:, 1:-1, :-1, 2:-1].permute(0, 3, 1, 2)


def stage_weights(
    channels: int,
    heads: int,
    radius: int,
    widths: tuple[int, ...] = (24, 16),
    dtype: torch.dtype = torch.float32,
    seed: int = 7,
) -> StageWeights:
    """Weights scaled so that every part of a stage moves its result."""
    area = (2 * radius + 1) ** 2
    fans = (area * channels + 2, *widths, 3)
    generator = rng(seed)
    mlp = [torch.randn(b, a, generator=generator) * (1.5 / a) ** 0.5 for a, b in itertools.pairwise(fans)]
    mlp[0] = mlp[0] * area**0.5  # the attention divides the values by about the number of taps
    biases = [torch.randn(b, generator=generator) * 0.1 for b in fans[1:]]
    proj_weight = torch.randn(heads, 64, generator=generator) * 0.3
    proj_bias = torch.randn(heads, generator=generator)
    return StageWeights(
        proj_weight.to(dtype), proj_bias.to(dtype),
        [w.to(dtype) for w in mlp], [b.to(dtype) for b in biases], heads, radius,
    )  # fmt: skip


def cells(queries: Queries) -> Tensor:
    """(2, 2) cell sizes; a batch shares its grid's, other queries have one for each image."""
    return torch.tensor([[0.8, 0.5], [0.8, 0.5] if isinstance(queries, Grid) else [0.3, 1.1]])


def previous_residual(queries: Queries, dtype: torch.dtype = torch.float32) -> Tensor:
    """(2, Q, 3) residual of a stage before."""
    return torch.randn(2, as_points(queries, 2).count, 3, generator=rng(11)).to(dtype)


def assert_exact(result: Tensor, truth: Tensor) -> None:
    """float32 against float64: within 1e-5 of the truth's range."""
    assert result.dtype == torch.float32 and result.shape == truth.shape
    if truth.numel():
        limit = 1e-5 * max(float(truth.max() - truth.min()), float(truth.abs().max()))
        difference = float((result.double() - truth).abs().max())
        assert difference <= limit, f"off by {difference:.2e}, allowed {limit:.2e}"


def assert_as_good(result: Tensor, plain: Tensor, truth: Tensor) -> None:
    """A lower precision against float64: at most twice the error of plain PyTorch in that precision."""
    assert result.dtype == plain.dtype and result.shape == truth.shape
    error, allowed = ((t.double() - truth).abs() for t in (result, plain))
    assert error.max() <= 2 * allowed.max(), f"max {error.max():.2e}, plain {allowed.max():.2e}"
    rms, allowed_rms = (e.square().mean().sqrt() for e in (error, allowed))
    assert rms <= 2 * allowed_rms, f"RMS {rms:.2e}, plain {allowed_rms:.2e}"


def assert_same_gradients(got: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    """float64 against float64: equal to 1e-9 of each gradient's largest, or of 1 where that is smaller.

    The projection's bias is the smaller one: it adds the same to all taps' logits, so its gradient is zero.
    """
    for i, (a, b) in enumerate(zip(got, expected, strict=True)):
        limit = 1e-9 * max(1.0, float(b.abs().max()))
        difference = float((a - b).abs().max())
        assert difference <= limit, f"gradient {i} is off by {difference:.2e}, allowed {limit:.2e}"


def leaves(tensors: list[Tensor]) -> list[Tensor]:
    """float64 copies that ask for gradients."""
    return [t.detach().double().requires_grad_() for t in tensors]
