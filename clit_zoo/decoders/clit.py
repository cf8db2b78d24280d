"""CLIT: a cascade of local implicit transformers (Chen et al., CVPR 2023). LIT is CLIT with one stage.

Parameter names are those of the authors' checkpoints. Stage i has three 3x3 convolutions and an MLP; all
stages share ``conv_ch`` and the position bias. Stage 1 works on the encoder's map, stage i > 1 on that map
resampled to the plan's size (``geometry.plan``); every stage is queried at the final coordinates:

    R = MLP_1,  R <- MLP_i + 0.75 R,  output = R + bilinear(input)
"""

from collections.abc import Callable, Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from clit_kernels import Points, Queries, Raster, StageWeights, local_attention
from clit_kernels.position_bias import BANDS

from .. import geometry
from ..geometry import Size
from .bands import BandedMap, cut_rows
from .blocks import block_maps
from .compiled import decode_stage
from .sampling import resample_grid, sample_border

GAIN = 0.75
"""Weight of the residual of the stage before (equation 9's lambda)."""


class PositionBias(nn.Module):
    """Holds the projection of the position encoding, under the authors' name."""

    def __init__(self, heads: int):
        super().__init__()
        self.proj = nn.Linear(4 * BANDS, heads)


class MLP(nn.Module):
    """Holds the decoder's Linear layers, under the authors' names: GELUs stand at the odd indices."""

    def __init__(self, in_features: int, hidden_dims: Sequence[int], out_features: int):
        super().__init__()
        layers: list[nn.Module] = []
        for width in hidden_dims:
            layers += [nn.Linear(in_features, width), nn.GELU()]
            in_features = width
        self.layers = nn.Sequential(*layers, nn.Linear(in_features, out_features))

    def linears(self) -> list[nn.Linear]:
        """The Linear layers in order."""
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]


class CLIT(nn.Module):
    """Cascaded local implicit transformer.

    Args:
        in_channels: channels of the encoder's map.
        dim: channels C of q, k and v.
        heads: attention heads H; divides ``dim``.
        radius: the window has K = 2 * radius + 1 feature pixels a side.
        stages: 1 is LIT, 2 and 3 the paper's CLIT.
        hidden_dims: widths of the MLP's hidden layers.
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
        area = (2 * radius + 1) ** 2
        self.conv_ch = nn.Conv2d(in_channels, dim, 3, padding=1)
        self.conv_vs = nn.ModuleList(nn.Conv2d(dim, dim, 3, padding=1) for _ in range(stages))
        self.conv_qs = nn.ModuleList(nn.Conv2d(dim, dim, 3, padding=1) for _ in range(stages))
        self.conv_ks = nn.ModuleList(nn.Conv2d(dim, dim, 3, padding=1) for _ in range(stages))
        self.pb_encoder = PositionBias(heads)
        self.imnets = nn.ModuleList(MLP(area * dim + 2, hidden_dims, 3) for _ in range(stages))

    def forward(
        self,
        feature: Tensor,
        image: Tensor,
        size: Size,
        *,
        backend: str = "auto",
        progress: Callable[[float], None] | None = None,
    ) -> Tensor:
        """Decode every pixel of an output of ``size``, band by band.

        Args:
            feature: (B, in_channels, h, w) the encoder's map of ``image``.
            image: (B, 3, h, w), normalised.
            size: (H, W) of the output.
            backend: as ``clit_kernels`` takes it; "reference" keeps whole maps, as the authors' code does.
            progress: called with the share done, in (0, 1], after each band.

        Returns:
            (B, 3, H, W), normalised as ``image`` is.
        """
        batch, _, h, w = feature.shape
        device = feature.device
        base = self.conv_ch(feature)
        sizes = geometry.plan(h, w, size, self.stages)
        projections = [self._projection(i) for i in range(len(sizes))]
        maps = [BandedMap(base, s, self.radius, *p) for s, p in zip(sizes, projections, strict=True)]
        cells = [geometry.cell_size(s, size, batch, device) for s in sizes]
        grids = [geometry.grid(s, size, device) for s in sizes]
        on_image = geometry.grid((h, w), size, device)
        out = image.new_empty(batch, 3, *size)
        whole = backend == "reference"
        for start, stop in cut_rows(maps, size[0], base, whole=whole):
            bilinear = resample_grid(image, on_image.rows(start, stop), "border")
            skips = _last(bilinear.flatten(2).transpose(1, 2), len(sizes))
            found: Tensor | None = None
            for i, (stage_map, grid) in enumerate(zip(maps, grids, strict=True)):
                ends = (geometry.nearest_pixel(y, stage_map.size[0], size[0]) for y in (start, stop - 1))
                top, (q, k, v) = stage_map.rows(*ends)
                found = decode_stage(
                    q, k, v, grid.rows(start, stop).shifted(top), self.stage_weights(i), cells[i],
                    previous=found, gain=GAIN, base=skips[i], backend=backend,
                )  # fmt: skip
                del q, k, v  # or the map could not let go of them for the next band
            assert found is not None
            out[:, :, start:stop] = found.transpose(1, 2).unflatten(2, (stop - start, size[1]))
            if progress is not None:
                progress(stop / size[0])
        return out

    def query(
        self,
        feature: Tensor,
        image: Tensor,
        coords: Tensor,
        cell: Tensor,
        sizes: Sequence[Size],
        *,
        raster: Raster | None = None,
        backend: str = "auto",
    ) -> Tensor:
        """Decode a list of positions; what training uses.

        Args:
            feature, image: as in ``forward``.
            coords: (B, N, 2) positions (y, x) in [-1, 1].
            cell: (B, 2) size of an output pixel in the same units: (2 / H, 2 / W).
            sizes: map size of each stage to pass, the first being the feature's own.
            raster: the same positions as a raster on the feature map, where they are one.
            backend: as ``clit_kernels`` takes it.

        Returns:
            (B, N, 3), normalised as ``image`` is.
        """
        base = self.conv_ch(feature)
        bilinear = sample_border(image, geometry.points(coords, (image.shape[2], image.shape[3])))
        found: Tensor | None = None
        for i, (stage_size, skip) in enumerate(zip(sizes, _last(bilinear, len(sizes)), strict=True)):
            queries: Queries = geometry.points(coords, stage_size)
            if raster is not None and stage_size == tuple(feature.shape[-2:]):
                queries = raster
            q, k, v = self._maps(i, base, stage_size)
            found = decode_stage(
                q, k, v, queries, self.stage_weights(i), _scaled(cell, stage_size),
                previous=found, gain=GAIN, base=skip, backend=backend,
            )  # fmt: skip
        assert found is not None
        return found

    def query_blocks(
        self,
        feature: Tensor,
        image: Tensor,
        coords: Tensor,
        cell: Tensor,
        sizes: Sequence[Size],
        span: float,
        *,
        backend: str = "auto",
    ) -> Tensor:
        """``query`` at positions that come in small blocks: later stages' maps are made around them only.

        Args:
            feature, image, cell, sizes, backend: as in ``query``.
            coords: (B, n, Q, 2) positions (y, x) in [-1, 1] of n blocks.
            span: largest extent of a block, as a share of the picture.

        Returns:
            (B, n * Q, 3), normalised as ``image`` is.
        """
        base = self.conv_ch(feature)
        blocks, per_block = coords.shape[1:3]
        flat = coords.flatten(1, 2)
        bilinear = sample_border(image, geometry.points(flat, (image.shape[2], image.shape[3])))
        found: Tensor | None = None
        for i, (stage_size, skip) in enumerate(zip(sizes, _last(bilinear, len(sizes)), strict=True)):
            points, cells = geometry.points(flat, stage_size), _scaled(cell, stage_size)
            stage = self.stage_weights(i)
            if stage_size == tuple(feature.shape[-2:]):
                q, k, v = self._maps(i, base, stage_size)
                found = decode_stage(
                    q, k, v, points, stage, cells, previous=found, gain=GAIN, base=skip, backend=backend
                )
                continue
            by_block = Points(*(t.unflatten(1, (blocks, per_block)) for t in points))
            (q, k, v), local = block_maps(base, stage_size, by_block, span, self.radius, *self._projection(i))
            before, skip = (
                None if t is None else t.unflatten(1, (blocks, per_block)).flatten(0, 1)
                for t in (found, skip)
            )
            found = decode_stage(
                q, k, v, local, stage, cells.repeat_interleave(blocks, 0),
                previous=before, gain=GAIN, base=skip, backend=backend,
            ).unflatten(0, (-1, blocks)).flatten(1, 2)  # fmt: skip
        assert found is not None
        return found

    def attention(
        self, feature: Tensor, coords: Tensor, sizes: Sequence[Size], *, backend: str = "auto"
    ) -> list[Tensor]:
        """Where each stage looks: its attention weights (Figure 7 of the paper).

        Args:
            feature: (B, in_channels, h, w) the encoder's map.
            coords: (B, N, 2) positions (y, x) in [-1, 1].
            sizes: map size of each stage to pass, see ``geometry.plan``.
            backend: as ``clit_kernels`` takes it.

        Returns:
            For each stage (B, N, heads, K, K) weights that sum to 1 over the K x K pixels around a position.
        """
        base = self.conv_ch(feature)
        side, proj = 2 * self.radius + 1, self.pb_encoder.proj
        maps = []
        for i, stage_size in enumerate(sizes):
            single = Points(*(t.unsqueeze(2) for t in geometry.points(coords, stage_size)))
            (q, k, _), local = block_maps(base, stage_size, single, 0.0, self.radius, *self._projection(i))
            weights = local_attention(
                q, k, local, proj.weight, proj.bias, heads=self.heads, radius=self.radius, backend=backend
            )
            maps.append(weights.reshape(*coords.shape[:2], self.heads, side, side))
        return maps

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

    def stage_parameters(self, first: int) -> Iterator[nn.Parameter]:
        """The parameters of the stages from number ``first`` on, counted from 0, without what all share."""
        for stages in self._per_stage():
            for module in stages[first:]:
                yield from module.parameters()

    @torch.no_grad()
    def copy_stage(self, source: int, target: int, *, output: float = 1.0) -> None:
        """Overwrite a stage's weights with another's, those of the MLP's last layer times ``output``."""
        for stages in self._per_stage():
            stages[target].load_state_dict(stages[source].state_dict())
        mlp = cast(MLP, self.imnets[target])
        for p in mlp.linears()[-1].parameters():
            p.mul_(output)

    def _per_stage(self) -> tuple[nn.ModuleList, ...]:
        return self.conv_qs, self.conv_ks, self.conv_vs, self.imnets

    def _maps(self, i: int, base: Tensor, size: Size) -> tuple[Tensor, ...]:
        """Stage i's whole q, k and v maps."""
        return BandedMap(base, size, self.radius, *self._projection(i)).rows(0, size[0] - 1)[1]

    def _projection(self, i: int) -> tuple[Tensor, Tensor]:
        """Stage i's three convolutions as one: weight (3C, C, 3, 3) and bias (3C,), for q, k, v."""
        convs = [cast(nn.Conv2d, stages[i]) for stages in (self.conv_qs, self.conv_ks, self.conv_vs)]
        biases = [cast(Tensor, conv.bias) for conv in convs]
        return torch.cat([conv.weight for conv in convs]), torch.cat(biases)


def _scaled(cell: Tensor, size: Size) -> Tensor:
    """Cells (B, 2) of a picture spanning [-1, 1], in half feature pixels."""
    return cell * torch.tensor(size, dtype=cell.dtype, device=cell.device)


def _last(skip: Tensor, stages: int) -> list[Tensor | None]:
    """What each stage adds besides the residual before it: nothing, and in the end the bilinear image."""
    return [*[None] * (stages - 1), skip]
