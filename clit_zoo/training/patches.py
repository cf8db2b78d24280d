"""Training patches, drawn by step and sample number.

Sample i of step t depends on (seed, t, i) alone. A resumed run therefore sees exactly what the uninterrupted
one would have seen, several processes see what one would have seen, and the data position is one integer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clit_kernels.position_bias import has_float64

from .. import geometry
from ..axis import Axis
from ..geometry import Blocks, Coords, Raster
from ..zoo.schema import require
from .degrade import DEGRADATIONS
from .drawings import drawing
from .photographs import Photographs
from .recipe import Recipe
from .strategies import BLOCK, STRATEGIES, clip_factors, map_sides

SHEET_ROWS, SHEET_PAIRS = 8, 4


class Batch(NamedTuple):
    """Patches of one step.

    Attributes:
        image: (B, 3, p, p) low resolution in [0, 1].
        where: the N positions whose colours are asked for: a raster, coordinates or blocks.
        target: (B, N, 3) the high-resolution pixels there, in [0, 1].
    """

    image: Tensor
    where: Raster | Coords | Blocks
    target: Tensor

    def to(self, device: torch.device) -> "Batch":
        """The same on a device; does not wait for the copies."""
        wide = has_float64(device)
        return self._each(lambda t: (t if wide else t.float()).to(device, non_blocking=True))

    def pinned(self) -> "Batch":
        """The same in page-locked memory, from where copies run beside the computation."""
        return self._each(lambda t: t.pin_memory())

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        fields = self.where._asdict().items()
        changed: dict[str, Any] = {name: change(value) for name, value in fields if isinstance(value, Tensor)}
        return Batch(change(self.image), self.where._replace(**changed), change(self.target))


@dataclass(frozen=True)
class Draw:
    """How a recipe's patches are drawn for a model of so many stages.

    Raises:
        ConfigError: the strategy trains one stage only, and there are more; or none is left to train.
    """

    recipe: Recipe
    stages: int

    def __post_init__(self) -> None:
        frozen, strategy = self.recipe.freeze_stages, self.recipe.strategy
        have = f"for this model of {self.stages} stages"
        require(frozen < self.stages, "freeze_stages", frozen, f"less than {self.stages} {have}")
        require(self.stages == 1 or strategy == "cumulative", "strategy", strategy, f"'cumulative' {have}")

    def batch(self, photographs: Photographs, step: int, samples: Sequence[int]) -> Batch:
        """The samples of a step."""
        recipe = self.recipe
        ranges = STRATEGIES[recipe.strategy](step, self.stages, recipe.freeze_stages)
        largest = photographs.reach / recipe.patch
        factors: tuple[float, ...] = ()
        if len(ranges) > 1:  # all patches of the step share their maps' sizes, so they share the factors
            rng = np.random.default_rng((recipe.seed, 0, step))
            factors = clip_factors([rng.uniform(*r) for r in ranges], largest)
        drawn = []
        for sample in samples:
            rng = np.random.default_rng((recipe.seed, 1, step, sample))
            own = factors or clip_factors([rng.uniform(*ranges[0])], largest)
            drawn.append(self._patch(photographs, rng, own))
        image, positions, target, cell = (torch.stack(part) for part in zip(*drawn, strict=True))
        sides, _ = map_sides(recipe.patch, factors or (1.0,))
        maps = tuple((n, n) for n in sides)
        where: Raster | Coords | Blocks
        if recipe.queries == "uniform":
            where = Coords(positions, cell, maps)
        elif len(ranges) > 1:
            where = Blocks(positions, cell, maps, BLOCK / sides[-1])
        else:
            where = Raster(positions, cell, maps)
        return Batch(image, where, target)

    def sheet(self, photographs: Photographs) -> np.ndarray:
        """A picture (H, W, 3) uint8 to look at: low-resolution patches, each left of its original, at ×3."""
        rng = np.random.default_rng((self.recipe.seed, 3))
        rows, side = [], 3 * self.recipe.patch
        for _ in range(SHEET_ROWS):
            pairs = [self.pair(photographs, rng, side) for _ in range(SHEET_PAIRS)]
            shown = [(low.repeat_interleave(3, 1).repeat_interleave(3, 2), high) for low, high in pairs]
            rows.append(torch.cat([part for pair in shown for part in pair], 2))
        return torch.cat(rows, 1).permute(1, 2, 0).numpy()

    def pair(self, photographs: Photographs, rng: np.random.Generator, side: int) -> tuple[Tensor, Tensor]:
        """A low-resolution patch (3, patch, patch) and its original (3, side, side), both uint8."""
        if self.recipe.drawings and rng.random() < self.recipe.drawings:
            crop = drawing(side, side / self.recipe.patch, rng)
        else:
            source = photographs.draw(rng, side)
            top, left = (int(rng.integers(0, n - side + 1)) for n in source.shape[1:])
            crop = source[:, top : top + side, left : left + side]
        if self.recipe.degrade:
            pixels = np.ascontiguousarray(crop.permute(1, 2, 0).numpy())
            low = DEGRADATIONS[self.recipe.degrade](pixels, self.recipe.patch, rng)
            return torch.from_numpy(low.copy()).permute(2, 0, 1), crop
        small = (self.recipe.patch, self.recipe.patch)
        return F.interpolate(crop.unsqueeze(0), small, mode="bicubic", antialias=True)[0], crop

    def _patch(
        self, photographs: Photographs, rng: np.random.Generator, factors: tuple[float, ...]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        maps, side = map_sides(self.recipe.patch, factors)
        low, crop = self.pair(photographs, rng, side)
        turn = rng.integers(0, 2, 3)
        low, high = _turned(low, turn), _turned(crop, turn)
        if self.recipe.queries == "uniform":
            positions, target = _uniform(high, self.recipe.patch**2, rng)
        elif len(factors) > 1:
            positions, target = _blocks(high, maps[-1], max(1, self.recipe.patch // BLOCK), rng)
        else:
            positions, target = _stratified(high, self.recipe.patch, rng)
        return low.float() / 255, positions, target.float() / 255, torch.full((2,), 2 / side)


def _turned(image: Tensor, turn: np.ndarray) -> Tensor:
    """One of the eight flips and quarter turns."""
    if turn[0]:
        image = image.flip(1)
    if turn[1]:
        image = image.flip(2)
    return image.transpose(1, 2) if turn[2] else image


def _uniform(high: Tensor, count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """``count`` random pixels of ``high``, none twice: coordinates (N, 2), colours (N, 3)."""
    side = high.shape[1]
    pick = torch.from_numpy(rng.choice(side * side, count, replace=False))
    y, x = pick // side, pick % side
    centres = geometry.pixel_centres(side)
    return torch.stack((centres[y], centres[x]), -1), high[:, y, x].T


def _stratified(high: Tensor, patch: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """One random pixel of ``high`` nearest to each of p x p pixels: offsets (1, p, p, 2), colours."""
    index, offset = Axis.whole(high.shape[1]).on(patch)
    y, x = _pick(index, patch, torch.arange(patch).view(-1, 1), torch.arange(patch).view(1, -1), rng)
    return torch.stack((offset[y], offset[x]), -1).unsqueeze(0), high[:, y, x].flatten(1).T


def _blocks(high: Tensor, side: int, across: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A block of ``BLOCK`` x ``BLOCK`` pixels of a ``side``-pixel map in each of across x across cells.

    Returns the coordinates (n, Q, 2) and colours (n * Q, 3) of one random pixel of ``high`` nearest to each
    of the blocks' pixels.
    """
    edges = np.arange(across + 1) * side // across
    room = np.diff(edges) - BLOCK + 1
    start = [edges[:-1].reshape(shape) + _below(room.reshape(shape), across, rng) for shape in _AXES]
    inner = torch.arange(BLOCK)
    index, _ = Axis.whole(high.shape[1]).on(side)
    rows = torch.from_numpy(start[0]).flatten().view(-1, 1, 1) + inner.view(-1, 1)
    cols = torch.from_numpy(start[1]).flatten().view(-1, 1, 1) + inner
    y, x = _pick(index, side, rows, cols, rng)
    centres = geometry.pixel_centres(high.shape[1])
    return torch.stack((centres[y], centres[x]), -1).flatten(1, 2), high[:, y, x].flatten(1).T


_AXES = ((-1, 1), (1, -1))


def _below(limit: np.ndarray, across: int, rng: np.random.Generator) -> np.ndarray:
    """Random integers (across, across) in [0, limit)."""
    return (rng.random((across, across)) * limit).astype(np.int64)


def _pick(
    index: Tensor, n: int, rows: Tensor, cols: Tensor, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """A random output row and column for each feature pixel (rows, cols), among those nearest to it.

    ``index`` (m,) is the nearest of n feature pixels for each of m output pixels, which are at least as many.
    """
    counts = torch.bincount(index, minlength=n)
    starts = counts.cumsum(0) - counts
    shape = torch.broadcast_shapes(rows.shape, cols.shape)
    y, x = (
        starts[pixel] + (torch.from_numpy(rng.random(shape)) * counts[pixel]).long() for pixel in (rows, cols)
    )
    return y, x
