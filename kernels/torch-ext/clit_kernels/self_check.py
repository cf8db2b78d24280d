"""Is a backend right on this device? One stage, forward and backward, against the formulas in float64."""

import itertools
from typing import NamedTuple

import torch
from torch import Tensor

from .calls import StageCall, StageWeights
from .decode_stage import decode_stage, decode_stage_reference
from .queries import Grid, Points, Queries, Raster

EXACT = 1e-5
"""Allowed error of float32, as a share of the range; lower precision may have twice plain PyTorch's error."""

EXACT_MPS = 1e-4
"""Allowed on Apple's GPUs, on which nothing was measured: how exact their sines are is not known."""

SIZE = (5, 6)
"""Of the feature maps: odd and even, and smaller than a window and a tile."""


class Shape(NamedTuple):
    """Channels, heads, window radius and hidden widths of a stage."""

    channels: int
    heads: int
    radius: int
    hidden: tuple[int, ...]


SHAPES = {
    "light": Shape(64, 4, 1, (128, 64, 64, 64)),
    "paper": Shape(256, 8, 3, (256, 256, 256, 256)),
}
"""The registered models' stages."""


class Verdict(NamedTuple):
    """Largest errors and the limits for them, as shares of the range of the result and of each gradient."""

    output: float
    gradients: float
    output_allowed: float
    gradients_allowed: float

    @property
    def right(self) -> bool:
        """Both within their limits; NaN is not."""
        return self.output <= self.output_allowed and self.gradients <= self.gradients_allowed


def check_backend(
    backend: str, device: torch.device | str, dtype: torch.dtype = torch.float32, shape: str = "paper"
) -> Verdict:
    """Compare ``backend`` with the formulas on random maps.

    Args:
        backend: "triton" or "torch". "reference" rounds positions to float32, as the published code does,
            and is off by 1e-4 in it.
        device, dtype: the backend's; the truth is computed on the CPU in float64.
        shape: a key of ``SHAPES``.

    Raises:
        ValueError: the backend cannot serve there; the message says why.
        Exception: whatever the backend raises.
    """
    weights = random_weights(SHAPES[shape], dtype)
    size = (3, 2, SHAPES[shape].channels, *SIZE)  # q, k and v of two images
    maps = torch.randn(size, generator=torch.Generator().manual_seed(2)).to(dtype)
    exact = _results("reference", maps, weights, torch.device("cpu"), torch.float64)
    device = torch.device(device)
    found = _differences(_results(backend, maps, weights, device, dtype), exact)
    if dtype == torch.float32:
        limit = EXACT_MPS if device.type == "mps" else EXACT
        return Verdict(*found, limit, limit)
    plain = _differences(_results("reference", maps, weights, device, dtype), exact)
    return Verdict(*found, 2 * plain[0], 2 * plain[1])


def random_weights(shape: Shape, dtype: torch.dtype) -> StageWeights:
    """Weights, scaled so that every part of a stage moves its result, rounded to ``dtype``."""
    generator = torch.Generator().manual_seed(0)
    area = (2 * shape.radius + 1) ** 2
    widths = (area * shape.channels + 2, *shape.hidden, 3)

    def draw(scale: float, *size: int) -> Tensor:
        return (torch.randn(size, generator=generator) * scale).to(dtype)

    # the attention divides the values by about the number of taps
    scales = [(1.5 / fan) ** 0.5 * (area**0.5 if i == 0 else 1) for i, fan in enumerate(widths[:-1])]
    weights = [draw(s, b, a) for s, (a, b) in zip(scales, itertools.pairwise(widths), strict=True)]
    biases = [draw(0.1, width) for width in widths[1:]]
    proj = draw(0.3, shape.heads, 64), draw(0.3, shape.heads)
    return StageWeights(*proj, weights, biases, shape.heads, shape.radius)


def enlargement(size: tuple[int, int], output: tuple[int, int], device: torch.device | str) -> Grid:
    """Every pixel of an ``output`` (H, W) on a map of ``size`` (h, w)."""
    axes = []
    for n, m in zip(size, output, strict=True):
        where = (torch.arange(m, dtype=torch.float64) + 0.5) * (n / m) - 0.5
        index = where.round()
        axes += [index.long().to(device), (where - index).float().to(device)]
    return Grid(*axes)  # type: ignore[arg-type]


def _results(
    backend: str, maps: Tensor, weights: StageWeights, device: torch.device, dtype: torch.dtype
) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs at a grid and at random positions, and gradients there, in float64 on the CPU."""
    leaves = [t.to(device, dtype, copy=True).requires_grad_() for t in (*maps, *weights.tensors())]
    q, k, v, proj_weight, proj_bias, *mlp = leaves
    half = len(mlp) // 2
    weights = StageWeights(proj_weight, proj_bias, mlp[:half], mlp[half:], weights.heads, weights.radius)
    exact = dtype == torch.float64
    cell = torch.full((2, 2), 0.6, device=device, dtype=dtype if exact else torch.float32)
    outputs = []
    for queries in _queries(device):
        call = StageCall(q, k, v, queries, weights, cell)
        if exact:
            out = decode_stage_reference(call, upcast=dtype)
        else:
            with torch.set_grad_enabled(not isinstance(queries, Grid)):
                out = decode_stage(call, backend=backend)
        outputs.append(out)
    # the projection's bias adds the same to every tap's logit: its gradient is rounding alone
    wanted = [t for t in leaves if t is not proj_bias]
    gradients = [
        gradient
        for out in outputs[1:]  # those of rasters and of points are added by other kernels
        for gradient in torch.autograd.grad(out.sum() * 0.1, wanted, retain_graph=True)
    ]
    return tuple([t.detach().cpu().double() for t in some] for some in (outputs, gradients))  # type: ignore[return-value]


def _queries(device: torch.device) -> list[Queries]:
    """All pixels of an enlargement by 3.3, two positions around each feature pixel, and any positions."""
    grid = enlargement(SIZE, (int(3.3 * SIZE[0]), int(3.3 * SIZE[1])), device)
    around = torch.rand(2, 2, *SIZE, 2, generator=torch.Generator().manual_seed(1)) - 0.5
    index = torch.stack([(torch.arange(80).reshape(2, 40) * 7) % (n + 2) - 1 for n in SIZE], -1)
    points = Points(index.to(device), around.reshape(2, -1, 2)[:, :40].to(device))
    return [grid, Raster(around.to(device)), points]


def _differences(
    found: tuple[list[Tensor], list[Tensor]], exact: tuple[list[Tensor], list[Tensor]]
) -> tuple[float, float]:
    """The largest difference among outputs and among gradients, as a share of the largest true entry."""
    shares = [
        torch.stack([(a - b).abs().max() / b.abs().max() for a, b in zip(*pair, strict=True)]).max()
        for pair in zip(found, exact, strict=True)
    ]
    return float(shares[0]), float(shares[1])
