"""LIT's variants: the models of the ablations in CLIT's paper (Chen et al., CVPR 2023, Tables 3 and 4).

A stage of CLIT on maps that come straight from the encoder's, and what the released model lacks: a frequency
branch (``waves``). Settings are the tables' rows: "+e" averages four corners, each with a window of its own
and the query of its own pixel; "-c" leaves the cell out; "-a" is a window of one pixel, whose only weight is
1; G x G is the window. How wide the branch was is published nowhere: 64 is a guess.

The first layer is linear. Its sum is made by ``decode_stage`` as of a stage of one layer, in either order, to
which the branch's share is added; the MLP's other layers follow.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from clit_kernels import AttentionCall, Grid, Points, Queries, StageCall, StageWeights, local_attention
from clit_kernels.position_bias import BANDS
from clit_kernels.queries import as_points, gather_pixels, tap_offsets

from ..axis import MOST_GROWN, Axis
from ..geometry import Coords, Frame, Pixels, Size, Where
from . import waves
from .banded import Band, by_bands
from .bands import BandedMap, Span
from .base import Decoder, Progress
from .clit import PositionBias
from .compiled import decode_stage
from .corners import axis_corners
from .mlp import MLP
from .positions import Place, by_blocks
from .sampling import sample_border

BLOCK = 1 << 14
"""Positions of a window whose hidden layer exists at once: 16 MB where it has 256 numbers."""

LEAST_PIXELS, LEAST_TOGETHER = 3, 16
"""Feature pixels, along an axis and in all, that are decoded together at least, as ``Axis.grown`` has it."""

POINTS = 1 << 11
"""Positions of a list at once: 100 MB for what the first layer reads in the paper's size."""


class Prepared(NamedTuple):
    """``features`` (B, ..., h, w): the encoder's; ``image`` (B, 3, h, w); ``waves``: ``waves.kernels``."""

    features: Tensor
    image: Tensor
    waves: Tensor | None = None


class Maps(NamedTuple):
    """Queries, keys, values (B, C, h, w), and the frequency branch's map (B, E/2, h, w)."""

    q: Tensor
    k: Tensor
    v: Tensor
    freq: Tensor | None = None


class Along(NamedTuple):
    """Positions ``axis`` on a map of ``n`` pixels, of which those from ``first`` are at hand."""

    axis: Axis
    n: int
    first: int


class Pairs(NamedTuple):
    """Both corners of an axis' positions in the order of the feature pixels, as ``Grid`` has positions.

    Attributes:
        pixel, offset: (P,) a corner's pixel on the whole map, and the position relative to it, in pixels.
        places: for the lower and the upper corners, (R,) where each position's is among them.
        weights: (R,) theirs.
    """

    pixel: Tensor
    offset: Tensor
    places: list[Tensor]
    weights: list[Tensor]

    @classmethod
    def of(cls, axis: Axis, n: int, span: tuple[int, int], device: torch.device) -> "Pairs":
        """Those of ``axis`` on n pixels, corners within ``span``, and all other positions' that are there.

        A number at the end of a row of them is rounded otherwise (``Axis.grown``), so a pixel has all of its
        positions in every window that reads it.
        """
        start, stop = 0, axis.size
        if not torch.compiler.is_compiling() and axis.scale(n) <= MOST_GROWN:
            first, last = -(axis.start // axis.step), (axis.unit - axis.start) // axis.step
            while start > first and axis.nearest(start - 1, n) >= span[0] - 1:
                start -= 1
            while stop < last and axis.nearest(stop, n) <= span[1] + 1:
                stop += 1
        sides = axis_corners(*axis.part(start, stop).on(n, device), n)
        pixel, offset = torch.cat([s.pixel for s in sides]), torch.cat([s.delta for s in sides]) / 2
        place = torch.arange(len(pixel), device=device)
        if start < 0 or stop > axis.size:
            inside = (pixel >= span[0]) & (pixel <= span[1])
            pixel, offset, place = pixel[inside], offset[inside], inside.cumsum(0) - 1
        order = pixel.argsort(stable=True)
        own = slice(-start, axis.size - start)
        places = [order.argsort()[side[own]] for side in place.chunk(2)]
        return cls(pixel[order], offset[order], places, [side.weight[own] for side in sides])


class LIT(nn.Module, Decoder):
    """Local implicit transformer with the settings of its ablations.

    Args:
        in_channels: channels of the encoder's map.
        dim: channels C of q, k and v.
        heads: attention heads; divides ``dim``.
        radius: the window has K = 2 * radius + 1 feature pixels a side; 0 is without attention.
        freq_dims: inputs E of the MLP that a pixel of the window has from the frequency branch, a multiple
            of 4; 0 is without it.
        local_ensemble: average four corners.
        cell_decode: the MLP reads the cell.
        hidden_dims: widths of the MLP's hidden layers.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        dim: int = 256,
        heads: int = 8,
        radius: int = 3,
        freq_dims: int = 64,
        local_ensemble: bool = False,
        cell_decode: bool = True,
        hidden_dims: Sequence[int] = (256, 256, 256, 256),
    ):
        super().__init__()
        self.dim, self.heads, self.radius, self.freq_dims = dim, heads, radius, freq_dims
        self.local_ensemble, self.cell_decode = local_ensemble, cell_decode
        self.window = radius + local_ensemble  # around the pixel nearest to a position
        self.reach = max(self.window, 1) + 1

        def conv(channels: int) -> nn.Conv2d:
            return nn.Conv2d(in_channels, channels, 3, padding=1)

        self.conv_v = conv(dim)
        if radius:
            self.conv_q, self.conv_k, self.pb_encoder = conv(dim), conv(dim), PositionBias(heads)
        if freq_dims:
            self.conv_freq = conv(freq_dims // 2)
        self.imnet = MLP((2 * radius + 1) ** 2 * (dim + freq_dims) + 2 * cell_decode, hidden_dims, 3)

    def prepare(self, features: Tensor, image: Tensor, frame: Frame | None = None) -> Prepared:
        """The encoder's map, of which bands of all others are made; see ``Decoder``."""
        if self.backend == "reference" or not self.freq_dims:
            return Prepared(features, image)
        return Prepared(features, image, waves.kernels(self._by_tap()[..., self.dim :], self.radius))

    def decode(self, prepared: Prepared, where: Where, *, progress: Progress | None = None) -> Tensor:
        """Colours (B, Q, 3) at positions; see ``Decoder``."""
        if self.backend == "reference":
            return self.reference(prepared.features, prepared.image, where)
        features, image, _ = prepared
        batch, _, h, w = features.shape
        cell = where.cells((h, w), batch, features.device)
        if not isinstance(where, Pixels):
            return self._decode_list(prepared, where.on((h, w), features.device), cell, progress)

        groups = self._convs()

        def maps(i: int, columns: Span) -> BandedMap:
            weight = torch.cat([conv.weight for conv in groups[i]])
            bias = torch.cat([cast(Tensor, conv.bias) for conv in groups[i]])
            return BandedMap(features, (h, w), columns, self.window, weight, bias, len(groups[i]))

        def colors(band: Band) -> Tensor:
            held, rows, cols = list(band.parts), band.rows, band.cols
            read = self._named(tuple(one for part in held for one in part.maps))
            top, left, grid = held[0][1:]
            # a traced batch has no integer square root
            side = int((BLOCK // (4 if self.local_ensemble else 1) / batch) ** 0.5)
            parts = []
            for a, b, pixels in _pieces(rows, h, side, LEAST_PIXELS):
                across = []
                for c, d, _ in _pieces(cols, w, side, math.ceil(LEAST_TOGETHER / pixels)):
                    here = Grid(
                        grid.row[a:b], grid.row_offset[a:b], grid.col[c:d], grid.col_offset[c:d], grid.scale
                    )
                    axes = Along(rows.part(a, b), h, top), Along(cols.part(c, d), w, left)
                    found = self._on_grid(read, prepared.waves, here, axes, cell)
                    across.append(found.unflatten(1, (b - a, d - c)))
                parts.append(torch.cat(across, 2))
            return torch.cat(parts, 1).flatten(1, 2) + band.skip

        return by_bands(where, image, [(h, w)] * len(groups), maps, colors, progress=progress)

    def reference(self, features: Tensor, image: Tensor, where: Where) -> Tensor:
        """The formula as the authors compute it: each position's whole input through the whole MLP.

        Args:
            features: (B, ..., h, w) the encoder's map, in float64 for a truth to test against.
            image: (B, 3, h, w).
            where: as for ``decode``.

        Returns:
            (B, Q, 3), as ``decode`` gives.
        """
        batch, _, h, w = features.shape
        q, k, v, freq = self._maps(features)
        cells, taps = (
            where.cells((h, w), batch, features.device).to(v.dtype),
            tap_offsets(self.radius, v.device),
        )
        wide = torch.promote_types(v.dtype, torch.float32)

        def colors(y: Place, x: Place) -> Tensor:
            shape = torch.broadcast_shapes(y.index.shape, x.index.shape)
            listed = [t.expand(batch, *shape[1:]).flatten(1) for t in (*y, *x)]
            at = Points(torch.stack(listed[::2], -1), torch.stack(listed[1::2], -1))
            total = sample_border(image, at)
            for points, weight in self._corners(at, (h, w), v.dtype):
                index = points.index.unsqueeze(2) + taps
                proj_weight, proj_bias = self._bias()
                call = AttentionCall(
                    q, k, points, proj_weight, proj_bias, self.heads, self.radius, self.local_ensemble
                )
                share = local_attention(call, backend="reference").transpose(2, 3).unsqueeze(-1)
                seen = [(gather_pixels(v, index).unflatten(-1, (self.heads, -1)) * share).flatten(3)]
                if freq is not None:
                    relative = 2 * (points.offset.to(wide).unsqueeze(2) - taps)
                    seen.append(waves.literal(gather_pixels(freq, index).to(wide), relative).to(v.dtype))
                given = torch.cat(seen, -1).flatten(2)
                if self.cell_decode:
                    given = torch.cat((given, cells.unsqueeze(1).expand(-1, given.shape[1], -1)), -1)
                total = total + self.imnet(given) * weight
            return total.unflatten(1, shape[1:])

        return by_blocks(where, (h, w), batch, features.device, colors, block=POINTS)

    def attention(self, prepared: Prepared, where: Coords) -> list[Tensor]:
        """Where it looks: [(B, N, heads, K, K)] as ``CLIT.attention``; of four corners, the nearest's."""
        q, k, _, _ = self._maps(prepared.features)
        call = AttentionCall(
            q,
            k,
            where.on((q.shape[2], q.shape[3])),
            *self._bias(),
            self.heads,
            self.radius,
            self.local_ensemble,
        )
        side = 2 * self.radius + 1
        return [local_attention(call, backend=self.backend).unflatten(-1, (side, side))]

    def _on_grid(
        self, maps: Maps, kernels: Tensor | None, grid: Grid, axes: Sequence[Along], cell: Tensor
    ) -> Tensor:
        """The residual (B, Q, 3) at a grid.

        Args:
            maps: what a band reads.
            kernels: ``waves.kernels``.
            grid: positions on ``maps``.
            axes: the same down and across.
            cell: (B, 2).
        """
        pairs, spans, slots = [], [], []
        for axis, n, first in axes:
            low, high = axis.on_map(0, axis.size, n)
            if self.local_ensemble:
                low, high = max(low - 1, 0), min(high + 1, n - 1)
                pairs.append(Pairs.of(axis, n, (low, high), grid.row.device))
            spans.append((low - first, high - first))
            slots.append(_most(axis, n, corners=self.local_ensemble))
        if self.local_ensemble:
            (y, x), scale = pairs, None if grid.scale is None else (float(slots[0]), float(slots[1]))
            grid = Grid(y.pixel - axes[0].first, y.offset, x.pixel - axes[1].first, x.offset, scale)
        share = None
        if kernels is not None and maps.freq is not None:
            share = waves.on_grid(maps.freq, kernels, grid, (spans[0], spans[1]), (slots[0], slots[1]))
        found = self._colors(maps, grid, cell, share)
        if not self.local_ensemble:
            return found
        found = found.unflatten(1, (grid.row.shape[0], grid.col.shape[0]))
        total: Tensor | None = None  # added up one by one, as sums over axes go in an order of their own
        for row, down in zip(y.places, y.weights, strict=True):
            for col, across in zip(x.places, x.weights, strict=True):
                weight = (down.to(found.dtype).unsqueeze(1) * across.to(found.dtype)).unsqueeze(2)
                corner = found.index_select(1, row).index_select(2, col) * weight
                total = corner if total is None else total + corner
        assert total is not None
        return total.flatten(1, 2)

    def _decode_list(
        self, prepared: Prepared, queries: Queries, cell: Tensor, progress: Progress | None
    ) -> Tensor:
        image, maps = prepared.image, self._maps(prepared.features)
        points = as_points(queries, len(image))
        whole = points.count if torch.is_grad_enabled() or torch.compiler.is_compiling() else POINTS
        parts = []
        for start in range(0, max(points.count, 1), max(whole, 1)):
            here = slice(start, start + whole)
            at = Points(points.index[:, here], points.offset[:, here])
            total = sample_border(image, at)
            for one, weight in self._corners(at, (image.shape[2], image.shape[3]), image.dtype):
                share = None
                if prepared.waves is not None and maps.freq is not None:
                    share = waves.at_points(maps.freq, prepared.waves, one)
                alone = self.local_ensemble or whole < points.count
                total = total + self._colors(maps, one if alone else queries, cell, share) * weight
            parts.append(total)
            if progress is not None:
                progress(min(1.0, (start + whole) / max(points.count, 1)))
        return torch.cat(parts, 1)

    def _colors(self, maps: Maps, queries: Queries, cell: Tensor, share: Tensor | None) -> Tensor:
        """The MLP's colours (B, Q, 3), with the frequency branch's ``share`` (B, Q, D) in its first layer."""
        first = self.imnet.linears()[0]
        values = self._by_tap()[..., : self.dim].flatten(1)
        by_cell = first.weight[:, -2:] if self.cell_decode else first.weight.new_zeros(len(first.weight), 2)
        weights = StageWeights(
            *self._bias(), [torch.cat((values, by_cell), 1)], [first.bias], self.heads, self.radius
        )
        call = StageCall(*maps[:3], queries, weights, cell, base=share, nearest=self.local_ensemble)
        colors: Tensor = self.imnet.layers[1:](decode_stage(call, backend=self.backend))
        return colors

    def _corners(self, points: Points, size: Size, dtype: torch.dtype) -> list[tuple[Points, Tensor | float]]:
        """The pixels whose windows are read, with the positions relative to them, and weights (B, N, 1)."""
        if not self.local_ensemble:
            return [(points, 1.0)]
        rows, cols = (axis_corners(points.index[..., i], points.offset[..., i], size[i]) for i in (0, 1))
        return [
            (
                Points(torch.stack((y.pixel, x.pixel), -1), torch.stack((y.delta, x.delta), -1) / 2),
                (y.weight.to(dtype) * x.weight.to(dtype)).unsqueeze(-1),
            )
            for y in rows
            for x in cols
        ]

    def _convs(self) -> list[list[nn.Conv2d]]:
        """The convolutions of maps of equal width: queries', keys' and values', and the branch's."""
        attending = [self.conv_q, self.conv_k] if self.radius else []
        return [[*attending, self.conv_v], *([[self.conv_freq]] if self.freq_dims else [])]

    def _maps(self, features: Tensor) -> Maps:
        """Whole maps."""
        return self._named(tuple(conv(features) for convs in self._convs() for conv in convs))

    def _named(self, maps: tuple[Tensor, ...]) -> Maps:
        """The maps that there are; one pixel's weight is 1 whatever queries and keys are."""
        return Maps(*maps) if self.radius else Maps(maps[0], maps[0], *maps)

    def _bias(self) -> tuple[Tensor, Tensor]:
        """The position bias' projection; nothing for one pixel."""
        if self.radius:
            return self.pb_encoder.proj.weight, cast(Tensor, self.pb_encoder.proj.bias)
        like = self.conv_v.weight
        return like.new_zeros(self.heads, 4 * BANDS), like.new_zeros(self.heads)

    def _by_tap(self) -> Tensor:
        """The first layer's weights for what it reads of each pixel, (D, K*K, C + E)."""
        weight, area = self.imnet.linears()[0].weight, (2 * self.radius + 1) ** 2
        return weight[:, : area * (self.dim + self.freq_dims)].unflatten(1, (area, -1))


def _most(axis: Axis, n: int, *, corners: bool) -> int:
    """Positions of an axis that name one of n feature pixels at most, or have it as a corner."""
    apart = axis.step * n
    # the positions of a whole output may meet both edges of a pixel, but never where they then are too many
    regular = axis.start % axis.step == 0 and axis.unit % axis.step == 0
    most = -(-axis.unit // apart) + (not regular)
    if not corners:
        return most
    # the last pixel is both corners of a position at its centre, where an odd scale has one
    divisor = math.gcd(axis.unit, apart)
    return 2 * most + (axis.unit // divisor % 2 == apart // divisor % 2 == 1)


def _pieces(axis: Axis, n: int, size: int, least: int) -> list[tuple[int, int, int]]:
    """An axis cut between feature pixels: (start, stop) of about ``size`` positions, and how many pixels."""
    low, high = axis.on_map(0, axis.size, n)
    pixels = high + 1 - low
    count = max(1, min(pixels // least, round(axis.size / size)))
    if count == 1 or torch.compiler.is_compiling():
        return [(0, axis.size, pixels)]
    edges = [low + i * pixels // count for i in range(count + 1)]
    cuts = [bisect_left(range(axis.size), edge, key=lambda i: axis.nearest(i, n)) for edge in edges]
    return [(cuts[i], cuts[i + 1], edges[i + 1] - edges[i]) for i in range(count)]
