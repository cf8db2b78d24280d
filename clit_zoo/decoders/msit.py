"""MSIT: multi-scale implicit transformer (Zhu, Zhang, Zheng and Weng, 2024, arXiv:2403.06536).

A trunk works on the encoder's map; its last part is CLIT's stage, with one map as queries and keys:

    f = MSNO(conv_ch(x)),  q = MSSA(f),  v = conv_v(f),  output = stage(q, q, v) + bilinear(input)

MSNO multiplies a map with what it sees around each pixel: 16 groups of channels, each convolved with a kernel
of its own size, 3 to 33 pixels, after every channel has taken one or two neighbours' values (FEM). MSSA sees
around a pixel with 4 sizes, 3 to 9.

The paper re-parameterises those convolutions for training (RIM: a kernel W that stays as it is, and a small
one that is learnt on W's own plane); what they compute is a plain convolution (``convert.rim`` folds a
checkpoint's kernels). Here they are plain, to be trained as in the paper's first stage; parameter names are
otherwise the authors'.

FEM reads beyond one border from the opposite one, and the largest kernel reads 16 pixels around, of maps that
the first parts made: the trunk sees the whole picture, so a picture is one tile whatever its size. It takes
about 5 KB for each pixel beside the encoder.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clit_kernels import AttentionCall, Queries, StageCall, StageWeights, local_attention
from clit_kernels.backends import why_not_maps
from clit_kernels.queries import as_points

from ..geometry import Coords, Frame, Pixels, Where
from .banded import Band, by_bands
from .bands import BandedMap, Span
from .base import Decoder, Progress
from .clit import PositionBias
from .compiled import decode_stage
from .mlp import MLP
from .sampling import sample_border

STRIP = 16
"""Rows of a map that are widened to twice the channels at once: those maps would be the trunk's largest."""

FEM_TAKES = (
    ((0, 1),), ((0, -1),), ((1, 0),), ((-1, 0),),
    ((0, 1), (-1, 1)), ((0, -1), (1, -1)), ((1, 0), (1, 1)), ((-1, 0), (-1, -1)),
)  # fmt: skip
"""For a channel's number modulo 8, the neighbours (rows down, columns right) whose sum it becomes."""


class Prepared(NamedTuple):
    """``base`` and ``q`` (B, C, h, w): the trunk's map, and queries and keys; ``image`` (B, 3, h, w)."""

    base: Tensor
    q: Tensor
    image: Tensor


class MSIT(nn.Module, Decoder):
    """Multi-scale implicit transformer.

    Args:
        in_channels: channels of the encoder's map.
        dim: channels C of all maps.
        heads: attention heads; divides ``dim``.
        radius: the window has K = 2 * radius + 1 feature pixels a side.
        kernels: MSNO's kernel sizes 3, 5, 7, …, each for an equal share of the channels.
        query_kernels: MSSA's, likewise.
        fem: mix neighbours before MSNO's convolutions; ``dim`` is then a multiple of 8.
        hidden_dims: widths of the MLP's hidden layers.

    Attributes:
        reach: None, as all is read: a picture is one tile, however large.
        backend: who computes the stage, as in ``CLIT``.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        dim: int = 256,
        heads: int = 8,
        radius: int = 3,
        kernels: int = 16,
        query_kernels: int = 4,
        fem: bool = True,
        hidden_dims: Sequence[int] = (256, 256, 256, 256),
    ):
        super().__init__()
        self.heads, self.radius = heads, radius
        self.reach = None
        self.conv_ch = nn.Conv2d(in_channels, dim, 1)
        self.amsno = MSNO(dim, kernels, fem)
        self.multi_conv_qs = nn.ModuleList([MSSA(dim, query_kernels)])
        self.conv_vs = nn.ModuleList([nn.Conv2d(dim, dim, 3, padding=1)])
        self.pb_encoder = PositionBias(heads)
        self.imnets = nn.ModuleList([MLP((2 * radius + 1) ** 2 * dim + 2, hidden_dims, 3)])

    def prepare(self, features: Tensor, image: Tensor, frame: Frame | None = None) -> Prepared:
        """The trunk; see ``Decoder``."""
        base = self.amsno(self.conv_ch(features))
        return Prepared(base, self.multi_conv_qs[0](base), image)

    def decode(self, prepared: Prepared, where: Where, *, progress: Progress | None = None) -> Tensor:
        """Colours (B, Q, 3) at positions; see ``Decoder``."""
        base, q, image = prepared
        (batch, _, h, w), device = base.shape, base.device
        cell, conv = where.cells((h, w), batch, device), cast(nn.Conv2d, self.conv_vs[0])
        if not isinstance(where, Pixels):
            queries = where.on((h, w), device)
            found = self._stage(q, conv(base), queries, cell, sample_border(image, as_points(queries, batch)))
            if progress is not None:
                progress(1.0)
            return found

        def maps(_: int, columns: Span) -> BandedMap:
            return BandedMap(base, (h, w), columns, self.radius, conv.weight, cast(Tensor, conv.bias), 1)

        def colors(band: Band) -> Tensor:
            (v,), top, left, grid = next(band.parts)
            part = q[:, :, top : top + v.shape[2], left : left + v.shape[3]]
            return self._stage(part, v, grid, cell, band.skip)

        whole = self.backend == "reference"
        return by_bands(where, image, [(h, w)], maps, colors, whole=whole, progress=progress)

    def attention(self, prepared: Prepared, where: Coords) -> list[Tensor]:
        """Where the stage looks: [(B, N, heads, K, K)], as ``CLIT.attention`` gives it."""
        q, proj, side = prepared.q, self.pb_encoder.proj, 2 * self.radius + 1
        queries = where.on((q.shape[2], q.shape[3]))
        call = AttentionCall(q, q, queries, proj.weight, proj.bias, self.heads, self.radius)
        return [local_attention(call, backend=self.backend).unflatten(-1, (side, side))]

    def why_not(self, backend: str, like: Tensor) -> str | None:
        """Why ``backend`` cannot serve tensors like this one; see ``Decoder``."""
        return why_not_maps(backend, like)

    def _stage(self, q: Tensor, v: Tensor, queries: Queries, cell: Tensor, skip: Tensor) -> Tensor:
        call = StageCall(q, q, v, queries, self.stage_weights(), cell, base=skip)
        return decode_stage(call, backend=self.backend)

    def stage_weights(self) -> StageWeights:
        """The stage's weights as ``clit_kernels`` takes them."""
        linears, proj = cast(MLP, self.imnets[0]).linears(), self.pb_encoder.proj
        weights, biases = [linear.weight for linear in linears], [linear.bias for linear in linears]
        return StageWeights(proj.weight, proj.bias, weights, biases, self.heads, self.radius)


class MSNO(nn.Module):
    """Multi-scale neural operator: ``proj(v(f) * sim(convolutions(FEM(s(f)))))``.

    Args:
        dim: channels of the map.
        kernels: groups of channels; the i-th is convolved with a kernel of 3 + 2 i pixels a side.
        fem: mix neighbours first.
    """

    def __init__(self, dim: int, kernels: int, fem: bool):
        super().__init__()
        self.fem = fem
        self.v = nn.Conv2d(dim, dim, 1, bias=False)
        self.s = nn.Conv2d(dim, dim, 1, bias=False)
        self.convs = _add_convs(self, "Ms_conv", dim, kernels)
        self.sim0 = nn.Conv2d(dim, 2 * dim, 1, groups=kernels)
        self.bn = BatchNorm(2 * dim)
        self.sim1 = nn.Conv2d(2 * dim, dim, 1)
        self.proj = nn.Conv2d(dim, dim, 1)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, h, w) -> the same shape."""
        s = self.s(x)
        seen = _convolve(self, self.convs, fem(s) if self.fem else s)

        def mixed(seen: Tensor, x: Tensor) -> Tensor:
            out: Tensor = self.proj(self.sim1(F.gelu(self.bn(self.sim0(seen)))) * self.v(x))
            return out

        return _by_strips(mixed, self.bn, seen, x)


class MSSA(nn.Module):
    """Multi-scale spatial aggregation, which makes queries and keys.

    Args:
        dim: channels of the map.
        kernels: groups of channels, as in ``MSNO``. ``proj1`` mixes neighbouring channels of one size.
    """

    def __init__(self, dim: int, kernels: int):
        super().__init__()
        self.proj0 = nn.Conv2d(dim, dim, 1)
        self.convs = _add_convs(self, "local_conv", dim, kernels)
        self.proj1 = nn.Conv2d(dim, 2 * dim, 1, groups=dim // kernels)
        self.bn = BatchNorm(2 * dim)
        self.proj2 = nn.Conv2d(2 * dim, dim, 1)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, h, w) -> the same shape."""

        def mixed(seen: Tensor) -> Tensor:
            out: Tensor = self.proj2(F.gelu(self.bn(self.proj1(seen))))
            return out

        return _by_strips(mixed, self.bn, _convolve(self, self.convs, self.proj0(x)))


class BatchNorm(nn.Module):
    """``nn.BatchNorm2d`` without its count of batches, which is no float and which nothing reads."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, h, w), by the batch's statistics in training and by the running ones in use."""
        given = (self.running_mean, self.running_var, self.weight, self.bias)
        return F.batch_norm(x, *given, training=self.training, momentum=0.1, eps=1e-5)


def fem(x: Tensor) -> Tensor:
    """Feature enhancement module: each channel of ``x`` (B, C, h, w) becomes neighbours' values, C = 8 n.

    Beyond a border lies the opposite one.
    """
    channels = x.unflatten(1, (-1, len(FEM_TAKES))).unbind(2)
    made = []
    for channel, takes in zip(channels, FEM_TAKES, strict=True):
        parts = [channel.roll((-down, -right), (2, 3)) for down, right in takes]
        made.append(parts[0] if len(parts) == 1 else parts[0] + parts[1])
    return torch.stack(made, 2).flatten(1, 2)


def _add_convs(module: nn.Module, name: str, dim: int, kernels: int) -> list[str]:
    """Give ``module`` convolutions of 3, 5, 7, … pixels, each for its share of the channels; their names."""
    names = [f"{name}_{i + 1}" for i in range(kernels)]
    for i, each in enumerate(names):
        module.add_module(each, nn.Conv2d(dim // kernels, dim // kernels, 3 + 2 * i, padding=1 + i))
    return names


def _convolve(module: nn.Module, names: list[str], x: Tensor) -> Tensor:
    """Each share of the channels by its convolution.

    With a pixel's channels side by side large kernels were 2 to 7 times as fast as otherwise: 16 channels and
    33 x 33 pixels, on one CPU thread, 33 against 5 to 18 billion multiplications a second.
    """
    parts = [part.contiguous(memory_format=torch.channels_last) for part in x.chunk(len(names), 1)]
    return torch.cat([module.get_submodule(n)(p) for n, p in zip(names, parts, strict=True)], 1)


def _by_strips(mixed: Callable[..., Tensor], bn: BatchNorm, *maps: Tensor) -> Tensor:
    """``mixed`` of maps, which looks at each pixel alone: a few rows at a time where nothing hinders it."""
    if bn.training or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return mixed(*maps)
    out = torch.empty_like(maps[0])
    for start in range(0, out.shape[2], STRIP):
        out[:, :, start : start + STRIP] = mixed(*(m[:, :, start : start + STRIP] for m in maps))
    return out


def _initialise(module: nn.Module) -> None:
    """Weights that keep a map's size, and no biases, as the authors begin."""
    for conv in module.modules():
        if isinstance(conv, nn.Conv2d):
            fan_out = math.prod(conv.kernel_size) * conv.out_channels // conv.groups
            nn.init.normal_(conv.weight, std=math.sqrt(2 / fan_out))
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)
