"""CLIT: a cascade of local implicit transformers (Chen et al., CVPR 2023). LIT is CLIT with one stage.

Parameter names are those of the authors' checkpoints. Stage i has three 3x3 convolutions and an MLP; all
stages share ``conv_ch`` and the position bias. Stage 1 works on the encoder's map, stage i > 1 on that map
resampled to the plan's size (``geometry.plan``); every stage is queried at the final coordinates:

    R = MLP_1,  R <- MLP_i + 0.75 R,  output = R + bilinear(input)
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from clit_kernels import AttentionCall, Points, Queries, StageCall, StageWeights, local_attention
from clit_kernels.backends import why_not_maps
from clit_kernels.position_bias import BANDS
from clit_kernels.queries import as_points, tensors

from .. import geometry
from ..errors import ScaleError
from ..geometry import Blocks, Coords, Frame, Pixels, Size, Where
from .banded import Band, by_bands
from .bands import BandedMap, Span
from .base import Decoder, Progress
from .blocks import block_maps
from .compiled import decode_stage
from .mlp import MLP
from .sampling import sample_border

GAIN = 0.75
"""Weight of the residual of the stage before (equation 9's lambda)."""


class Prepared(NamedTuple):
    """``base`` (B, C, h, w): ``conv_ch``'s map, which all stages share; ``image`` (B, 3, h, w) in [-1, 1]."""

    base: Tensor
    image: Tensor


class StageInput(NamedTuple):
    """What one stage reads: q, k, v (B, C, ...), the queries on them, and their cell (B, 2)."""

    maps: tuple[Tensor, ...]
    queries: Queries
    cell: Tensor


class PositionBias(nn.Module):
    """Holds the projection of the position encoding, under the authors' name."""

    def __init__(self, heads: int):
        super().__init__()
        self.proj = nn.Linear(4 * BANDS, heads)


class CLIT(nn.Module, Decoder):
    """Cascaded local implicit transformer.

    Args:
        in_channels: channels of the encoder's map.
        dim: channels C of q, k and v.
        heads: attention heads H; divides ``dim``.
        radius: the window has K = 2 * radius + 1 feature pixels a side.
        stages: 1 is LIT, 2 and 3 the paper's CLIT.
        hidden_dims: widths of the MLP's hidden layers.

    Attributes:
        backend: who computes: "auto", "triton", "torch" or "reference". A call that the one named cannot
            serve raises ValueError and says why.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        dim: int = 256,
        heads: int = 8,
        radius: int = 3,
        stages: int = 1,
        hidden_dims: Sequence[int] = (256, 256, 256, 256),
    ):
        super().__init__()
        self.dim, self.heads, self.radius, self.stages = dim, heads, radius, stages
        self.reach = max(radius, 1) + 3  # the window, and three convolutions at most
        area = (2 * radius + 1) ** 2
        self.conv_ch = nn.Conv2d(in_channels, dim, 3, padding=1)
        self.conv_vs = nn.ModuleList(nn.Conv2d(dim, dim, 3, padding=1) for _ in range(stages))
        self.conv_qs = nn.ModuleList(nn.Conv2d(dim, dim, 3, padding=1) for _ in range(stages))
        self.conv_ks = nn.ModuleList(nn.Conv2d(dim, dim, 3, padding=1) for _ in range(stages))
        self.pb_encoder = PositionBias(heads)
        self.imnets = nn.ModuleList(MLP(area * dim + 2, hidden_dims, 3) for _ in range(stages))

    def prepare(self, features: Tensor, image: Tensor, frame: Frame | None = None) -> Prepared:
        """The map that all stages share; see ``Decoder``."""
        return Prepared(self.conv_ch(features), image)

    def plan(self, h: int, w: int, where: Where) -> list[Size]:
        """Map size of each stage that the positions pass; see ``Decoder``.

        Raises:
            ScaleError: ``where.maps`` do not fit; or, where they are left out of a cascade's query, the cells
                of the batch are not positive or ask for different maps.
        """
        if isinstance(where, Pixels):
            return geometry.plan(h, w, (where.rows.scale(h), where.cols.scale(w)), self.stages)
        if where.maps is not None:
            return self._checked(where.maps, h, w)
        if self.stages == 1:  # without a look at the cell, which would make a GPU wait
            return [(h, w)]
        cells = where.cell.tolist()
        if not all(c > 0 and math.isfinite(c) for pair in cells for c in pair):
            raise ScaleError("a cell is the size of an output pixel, (2 / H, 2 / W): it must be positive")
        plans = {
            tuple(geometry.plan(h, w, (max(h, round(2 / y)) / h, max(w, round(2 / x)) / w), self.stages))
            for y, x in cells
        }
        if len(plans) != 1:
            raise ScaleError(
                "the images of this batch have cells that pass the cascade at different sizes; query them "
                "separately, or give the maps"
            )
        return list(plans.pop())

    def decode(self, prepared: Prepared, where: Where, *, progress: Progress | None = None) -> Tensor:
        """Colours (B, Q, 3) at positions; see ``Decoder``. "reference" keeps whole maps, as the authors."""
        sizes = self.plan(prepared.image.shape[2], prepared.image.shape[3], where)
        if isinstance(where, Pixels):
            return self._decode_window(prepared, where, sizes, progress)
        image = prepared.image
        skip = sample_border(
            image, as_points(where.on((image.shape[2], image.shape[3]), image.device), image.shape[0])
        )
        found = self._cascade(self._around(prepared, where, sizes), len(sizes), skip)
        if progress is not None:
            progress(1.0)
        return found

    def attention(self, prepared: Prepared, where: Coords) -> list[Tensor]:
        """Where each stage looks: its attention weights (Figure 7 of the paper).

        Returns:
            For each stage (B, N, heads, K, K) weights that sum to 1 over the K x K pixels around a position.
        """
        base, side, proj = prepared.base, 2 * self.radius + 1, self.pb_encoder.proj
        weights = []
        for i, size in enumerate(self.plan(base.shape[2], base.shape[3], where)):
            single = Points(*(t.unsqueeze(2) for t in where.on(size)))
            (q, k, _), local = block_maps(base, size, single, 0.0, self.radius, *self._projection(i))
            call = AttentionCall(q, k, local, proj.weight, proj.bias, self.heads, self.radius)
            found = local_attention(call, backend=self.backend)
            weights.append(found.reshape(*where.coords.shape[:2], self.heads, side, side))
        return weights

    def why_not(self, backend: str, like: Tensor) -> str | None:
        """Why ``backend`` cannot serve tensors like this one; see ``Decoder``."""
        return why_not_maps(backend, like)

    def _decode_window(
        self, prepared: Prepared, where: Pixels, sizes: list[Size], progress: Progress | None
    ) -> Tensor:
        base, image = prepared
        cells = [where.cells(size, image.shape[0], image.device) for size in sizes]

        def maps(i: int, columns: Span) -> BandedMap:
            return BandedMap(base, sizes[i], columns, self.radius, *self._projection(i))

        def colors(band: Band) -> Tensor:
            stages = (StageInput(p.maps, p.grid, cell) for p, cell in zip(band.parts, cells, strict=True))
            return self._cascade(stages, len(sizes), band.skip)

        whole = self.backend == "reference"
        return by_bands(where, image, sizes, maps, colors, whole=whole, progress=progress)

    def _around(self, prepared: Prepared, where: Where, sizes: list[Size]) -> Iterator[StageInput]:
        """The stages' inputs for positions that are no window: whole maps, or maps around blocks of them."""
        base = prepared.base
        batch, device = base.shape[0], base.device
        for i, size in enumerate(sizes):
            cell, queries = where.cells(size, batch, device), where.on(size, device)
            if isinstance(where, Blocks) and i > 0:
                blocks, each = where.coords.shape[1:3]
                by_block = Points(*(t.unflatten(1, (blocks, each)) for t in tensors(queries)))
                parts, local = block_maps(base, size, by_block, where.span, self.radius, *self._projection(i))
                yield StageInput(parts, local, cell.repeat_interleave(blocks, 0))
            else:
                yield StageInput(self._maps(i, base, size), queries, cell)

    def _cascade(self, stages: Iterable[StageInput], count: int, skip: Tensor) -> Tensor:
        """The residuals of ``count`` stages summed, and the bilinear image ``skip`` (B, Q, 3) in the end."""
        found: Tensor | None = None
        for i, (maps, queries, cell) in enumerate(stages):
            (q, k, v), last = maps, i == count - 1
            call = StageCall(
                q, k, v, queries, self.stage_weights(i), cell,
                previous=None if found is None else _by_map(found, q.shape[0]), gain=GAIN,
                base=_by_map(skip, q.shape[0]) if last else None,
            )  # fmt: skip
            found = decode_stage(call, backend=self.backend)
            found = _by_map(found, skip.shape[0])
        assert found is not None
        return found

    def _checked(self, maps: Sequence[Size], h: int, w: int) -> list[Size]:
        for size in maps:
            whole = isinstance(size, Sequence) and all(isinstance(n, int | torch.SymInt) for n in size)
            if not whole or len(size) != 2 or min(size) < 1:
                raise ScaleError(f"a map's size is a pair of whole numbers from 1; got {size!r}")
        if not 1 <= len(maps) <= self.stages or tuple(maps[0]) != (h, w):
            raise ScaleError(
                f"maps must be the sizes of 1 to {self.stages} stages, the first ({h}, {w}); got {list(maps)}"
            )
        return list(maps)

    def stage_weights(self, i: int) -> StageWeights:
        """Stage i's weights as ``clit_kernels`` takes them."""
        mlp = self.imnets[i]
        assert isinstance(mlp, MLP)
        linears, proj = mlp.linears(), self.pb_encoder.proj
        return StageWeights(
            proj.weight,
            proj.bias,
            [linear.weight for linear in linears],
            [linear.bias for linear in linears],
            self.heads,
            self.radius,
        )

    def per_stage(self) -> tuple[nn.ModuleList, ...]:
        """The lists that hold one module for each stage."""
        return self.conv_qs, self.conv_ks, self.conv_vs, self.imnets

    def _maps(self, i: int, base: Tensor, size: Size) -> tuple[Tensor, ...]:
        """Stage i's whole q, k and v maps."""
        return BandedMap(base, size, (0, size[1] - 1), self.radius, *self._projection(i)).rows(
            0, size[0] - 1
        )[1]

    def _projection(self, i: int) -> tuple[Tensor, Tensor]:
        """Stage i's three convolutions as one: weight (3C, C, 3, 3) and bias (3C,), for q, k, v."""
        convs = [cast(nn.Conv2d, stages[i]) for stages in (self.conv_qs, self.conv_ks, self.conv_vs)]
        biases = [cast(Tensor, conv.bias) for conv in convs]
        return torch.cat([conv.weight for conv in convs]), torch.cat(biases)


def _by_map(colors: Tensor, maps: int) -> Tensor:
    """Colours (B, Q, 3) as those of so many maps: one for each image, or for each block of an image."""
    if colors.shape[0] == maps:
        return colors
    return colors.reshape(maps, colors.shape[0] * colors.shape[1] // maps, 3)
