"""What the ops are called with: each takes one tuple of arguments, whatever the backend."""

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from torch import Tensor

from .queries import Points, Queries, constant


class StageWeights(NamedTuple):
    """What one stage of CLIT owns besides the convolutions of its q, k and v maps.

    Attributes:
        proj_weight, proj_bias: (H, 64), (H,) projection of the position encoding.
        mlp_weights, mlp_biases: Linear layers with exact GELU between them. The first is (D, K*K*C + 2), its
            inputs ordered tap, head, channel, then cell (y, x).
        heads: H.
        radius: the window has K = 2 * radius + 1 pixels a side.
    """

    proj_weight: Tensor
    proj_bias: Tensor
    mlp_weights: Sequence[Tensor]
    mlp_biases: Sequence[Tensor]
    heads: int
    radius: int

    @property
    def area(self) -> int:
        """K*K, the taps of a window."""
        return (2 * self.radius + 1) ** 2

    def tensors(self) -> list[Tensor]:
        """All tensors, in a fixed order."""
        return [self.proj_weight, self.proj_bias, *self.mlp_weights, *self.mlp_biases]


class AttentionCall(NamedTuple):
    """Arguments of ``local_attention``.

    Attributes:
        q, k: (B, C, h, w) query and key maps of one dtype; C is a multiple of ``heads``.
        queries: ``Grid``, ``Points`` or ``Raster`` on those maps; Q queries per image. A grid's pixels lie on
            the map; points may lie anywhere and meet zero keys outside.
        proj_weight, proj_bias, heads, radius: as in ``StageWeights``.
        nearest: read q at the pixel that a query names instead of bilinearly: LIT's local ensemble, where
            offsets from that pixel go up to 1.
    """

    q: Tensor
    k: Tensor
    queries: Queries
    proj_weight: Tensor
    proj_bias: Tensor
    heads: int
    radius: int
    nearest: bool = False


class DecodeCall(NamedTuple):
    """Arguments of ``coordinate_decode``.

    Attributes:
        attention: (B, Q, H, K*K) weights, as ``local_attention`` returns them.
        v: (B, C, h, w) value map; C is a multiple of H.
        queries: the ones that ``attention`` was made for.
        mlp_weights, mlp_biases: as in ``StageWeights``.
        cell: (B, 2) size (y, x) of an output pixel in half feature pixels.
        previous: (B, Q, out) residual of the stage before, added ``gain`` times.
        gain: CLIT's 0.75.
        base: (B, Q, out) added as it is: the bilinear skip, in the last stage.
    """

    attention: Tensor
    v: Tensor
    queries: Queries
    mlp_weights: Sequence[Tensor]
    mlp_biases: Sequence[Tensor]
    cell: Tensor
    previous: Tensor | None = None
    gain: float = 0.75
    base: Tensor | None = None


class StageCall(NamedTuple):
    """Arguments of ``decode_stage``.

    Attributes:
        q, k, v: (B, C, h, w) maps of one dtype.
        queries: ``Grid``, ``Points`` or ``Raster`` on those maps; Q queries per image.
        weights: the position bias' projection and the MLP.
        cell, previous, gain, base: as in ``DecodeCall``.
        nearest: as in ``AttentionCall``.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    queries: Queries
    weights: StageWeights
    cell: Tensor
    previous: Tensor | None = None
    gain: float = 0.75
    base: Tensor | None = None
    nearest: bool = False

    def attention(self) -> AttentionCall:
        """The call of ``local_attention`` that the stage begins with."""
        proj_weight, proj_bias, _, _, heads, radius = self.weights
        return AttentionCall(
            self.q, self.k, self.queries, proj_weight, proj_bias, heads, radius, self.nearest
        )

    def decoding(self, attention: Tensor) -> DecodeCall:
        """The call of ``coordinate_decode`` that follows, with the weights (B, Q, H, K*K) of the first."""
        _, _, mlp_weights, mlp_biases, _, _ = self.weights
        _, _, v, queries, _, cell, previous, gain, base, _ = self
        return DecodeCall(attention, v, queries, mlp_weights, mlp_biases, cell, previous, gain, base)

    def part(self, points: Points, start: int, stop: int) -> "StageCall":
        """The call for queries [start, stop) only; ``points`` are all of the call's queries as a list."""
        here = slice(start, stop)
        previous, base = (None if t is None else t[:, here] for t in (self.previous, self.base))
        queries = Points(points.index[:, here], points.offset[:, here])
        return self._replace(queries=queries, previous=previous, base=base)


Call = TypeVar("Call", DecodeCall, StageCall)


def fixed(call: Call) -> Call:
    """The same call with positions and cells that no gradient reaches."""
    return call._replace(queries=constant(call.queries), cell=call.cell.detach())
