"""CiaoSR: continuous implicit attention-in-attention (Cao et al., CVPR 2023, arXiv:2212.04362).

A position attends to the four feature pixels p_t around it (``wide_corners``). With u the 3x3 features around
a pixel, v = [u, n] and n the map's cross-scale non-local attention:

    K_t = u(p_t) * MLP_k([u(p_t), pose_t]),  V_t = v(p_t) * MLP_v([v(p_t), pose_t]),  pose_t = [dy, dx, cell]
    output = MLP_q(sum over t of softmax_t(<u(nearest), K_t>) V_t) + bilinear(input)

The same numbers come with 1.7 times fewer multiplications in another order. First layers are linear: their
share of the features belongs to the feature pixel, and that of the position to its row and column, as in
LIIF. A logit is linear in MLP_k's last hidden layer h, <u(q), u(p) * (W h + b)> = <h, (u(q) * u(p)) W> +
<u(q) * u(p), b>, and there are at most nine pairs (q, p) for each feature pixel. Written from published
facts; parameter names are those of the authors' code, which is under CC BY-NC 4.0.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clit_kernels.position_bias import has_float64
from clit_kernels.queries import gather_pixels, tap_offsets

from ..geometry import Frame, Pixels, Size, Where
from .base import Decoder, Progress
from .corners import Neighbour, wide_corners
from .cross_scale import CrossScaleAttention
from .mlp import MLP
from .positions import Place, by_blocks, read, skip

BLOCK = 1 << 13
"""Positions in a block: 21 MB for each map of 640 channels."""

LEAST_PIXELS = 16
"""Rows and columns whose pairs are multiplied at least, for sums in the whole's order; see ``Axis.grown``."""

PAIRS_FROM = 9 / 4
"""Positions for each feature pixel from which its nine pairs are fewer than the positions' four each."""


class Prepared(NamedTuple):
    """``features`` (B, C, h, w): the encoder's map; ``similar`` (B, C, h, w): its non-local attention.

    ``image`` (B, 3, h, w); ``whole``: size of the picture that it may be a part of. ``keys``, ``values`` (B,
    h, w, D): the first layers' share of each feature pixel; None where the formula itself computes.
    """

    features: Tensor
    similar: Tensor
    image: Tensor
    whole: Size
    keys: Tensor | None = None
    values: Tensor | None = None


class Corner(NamedTuple):
    """A block's corner: its pixels along y and x, and the positions relative to them."""

    y: Neighbour
    x: Neighbour


class CiaoSR(nn.Module, Decoder):
    """Continuous implicit attention-in-attention network.

    Args:
        in_channels: channels C of the encoder's map.
        hidden_dims: widths of the hidden layers of each of the three MLPs.
        tile: rows and columns of the map within which the non-local attention looks.
    """

    mean, std = (0.4488, 0.4371, 0.4040), 1.0

    def __init__(
        self, in_channels: int, *, hidden_dims: Sequence[int] = (256, 256, 256, 256), tile: int = 192
    ):
        super().__init__()
        self.reach = tile
        self.channels, unfolded = in_channels, 9 * in_channels

        def mlp(fan_in: int, fan_out: int) -> MLP:
            return MLP(fan_in, hidden_dims, fan_out, lambda: nn.ReLU(inplace=True))

        self.imnet_q = mlp(unfolded + in_channels, 3)
        self.imnet_k = mlp(unfolded + 4, unfolded)
        self.imnet_v = mlp(unfolded + in_channels + 4, unfolded + in_channels)
        self.cs_attn = CrossScaleAttention(in_channels, tile)

    def prepare(self, features: Tensor, image: Tensor, frame: Frame | None = None) -> Prepared:
        """The non-local attention and the first layers' share of the features; see ``Decoder``."""
        literal, whole = self.backend == "reference", (image.shape[2], image.shape[3])
        similar = self.cs_attn(features, frame, literal=literal)
        prepared = Prepared(features, similar, image, whole if frame is None else frame.whole)
        if literal:
            return prepared
        unfolded = 9 * self.channels
        key, value = (mlp.linears()[0].weight for mlp in (self.imnet_k, self.imnet_v))
        kernel = torch.cat((key[:, :unfolded], value[:, :unfolded])).unflatten(1, (self.channels, 3, 3))
        keys, values = F.conv2d(features, kernel, padding=1).split((len(key), len(value)), 1)
        values = values + F.conv2d(similar, value[:, unfolded : unfolded + self.channels, None, None])
        keys, values = (x.permute(0, 2, 3, 1).contiguous() for x in (keys, values))
        return prepared._replace(keys=keys, values=values)

    def decode(self, prepared: Prepared, where: Where, *, progress: Progress | None = None) -> Tensor:
        """Colours (B, Q, 3) at positions; see ``Decoder``."""
        _, _, image, whole, keys, values = prepared
        if keys is None or values is None:
            return self.reference(prepared, where)
        batch, size = len(image), (image.shape[2], image.shape[3])
        cells = where.cells(size, batch, image.device)
        paired = (
            isinstance(where, Pixels)
            and not torch.compiler.is_compiling()
            and where.rows.scale(size[0]) * where.cols.scale(size[1]) > PAIRS_FROM
        )

        def colors(y: Place, x: Place) -> Tensor:
            corners = self._corners(y, x, size, whole, cells)
            near: Near = Region(prepared, y, x, paired) if y.index.dim() == 3 else Near(prepared, y, x)
            logits = []
            for corner in corners:
                hidden = self.imnet_k.layers[1:-1](self._first(self.imnet_k, keys, cells, corner))
                logits.append(near.logit(hidden, self.imnet_k.linears()[-1], corner))
            last, total = _with_bias(self.imnet_v.linears()[-1]), torch.zeros((), device=image.device)
            for share, corner in zip(_softmax(logits), corners, strict=True):
                hidden = self.imnet_v.layers[1:-1](self._first(self.imnet_v, values, cells, corner))
                share = share.to(hidden.dtype).unsqueeze(-1)
                value = torch.cat((hidden * share, share), -1) @ last.T
                total = torch.addcmul(total.to(value.dtype), near.at(corner), value)
            return self.imnet_q(total) + skip(image, y, x)

        return by_blocks(where, size, batch, image.device, colors, block=BLOCK, progress=progress)

    def reference(self, prepared: Prepared, where: Where) -> Tensor:
        """The formula as the paper states it: each position's whole inputs through the whole MLPs.

        Args:
            prepared: what ``prepare`` returned, in float64 for a truth to test against; no share is read.
            where: as for ``decode``.

        Returns:
            (B, Q, 3), as ``decode`` gives.
        """
        features, similar, image, whole = prepared[:4]
        batch, size = len(image), (image.shape[2], image.shape[3])
        unfolded = F.unfold(features, 3, padding=1).unflatten(2, size)
        seen, count = torch.cat((unfolded, similar), 1).permute(0, 2, 3, 1), unfolded.shape[1]
        cells = where.cells(size, batch, image.device)

        def colors(y: Place, x: Place) -> Tensor:
            query, logits, values = read(seen, y.index, x.index)[..., :count], [], []
            for corner in self._corners(y, x, size, whole, cells):
                value = read(seen, corner.y.pixel, corner.x.pixel)
                key, shape = value[..., :count], value.shape[:-1]
                delta = [side.delta.to(value.dtype).expand(shape).unsqueeze(-1) for side in corner]
                cell = cells.to(value.dtype).view(batch, *(1,) * (len(shape) - 1), 2).expand(*shape, 2)
                pose = torch.cat((*delta, cell), -1)
                logits.append((query * key * self.imnet_k(torch.cat((key, pose), -1))).sum(-1))
                values.append(value * self.imnet_v(torch.cat((value, pose), -1)))
            weights = torch.softmax(torch.stack(logits, -1), -1).unsqueeze(-1)
            return self.imnet_q((torch.stack(values, -2) * weights).sum(-2)) + skip(image, y, x)

        return by_blocks(where, size, batch, image.device, colors, block=BLOCK)

    def _corners(self, y: Place, x: Place, size: Size, whole: Size, cells: Tensor) -> list[Corner]:
        """The four around a block's positions."""
        sides = []
        for axis, place in enumerate((y, x)):
            cell = cells[0, axis] if place.index.dim() == 3 else cells[:, axis : axis + 1]
            sides.append(wide_corners(*place, size[axis], cell, whole[axis]))
        return [Corner(low, left) for low in sides[0] for left in sides[1]]

    def _first(self, mlp: MLP, hidden: Tensor, cells: Tensor, corner: Corner) -> Tensor:
        """An MLP's first layer for a corner, before its activation; ``hidden`` has the features' share."""
        linear = mlp.linears()[0]
        wide = torch.promote_types(linear.weight.dtype, torch.float32)
        pose, bias = linear.weight[:, -4:].to(wide), linear.bias.to(wide)
        cell = cells.to(wide) @ pose[:, 2:].T + bias
        row, col = (side.delta.unsqueeze(-1) * pose[:, axis] for axis, side in enumerate(corner))
        first = read(hidden, corner.y.pixel, corner.x.pixel)
        for part in (row + cell.view(len(cell), *(1,) * (row.dim() - 2), -1), col):
            first += part.to(first.dtype)
        return first


class Near:
    """What a block's positions read of the maps themselves, gathered pixel by pixel: for a list of them."""

    def __init__(self, prepared: Prepared, y: Place, x: Place):
        self.features, self.similar = prepared.features, prepared.similar
        self.nearest = Corner(Neighbour(*y), Neighbour(*x))
        self.query: Tensor | None = None

    def at(self, corner: Corner) -> Tensor:
        """v, that is the 3x3 features around a corner and the similar ones there: (..., 10 C)."""
        index = torch.stack((corner.y.pixel, corner.x.pixel), -1)
        taps = gather_pixels(self.features, index.unsqueeze(2) + tap_offsets(1, index.device))
        return torch.cat((taps.transpose(2, 3).flatten(2), gather_pixels(self.similar, index)), -1)

    def logit(self, hidden: Tensor, last: nn.Linear, corner: Corner) -> Tensor:
        """<u(nearest), K> (...) of a corner, from the last hidden layer there."""
        if self.query is None:
            self.query = self.at(self.nearest)[..., : last.out_features]
        both = self.query * self.at(corner)[..., : last.out_features]
        return _dot(both, last(hidden))


class Region(Near):
    """The same for a window: of the part of the maps that it reads, each pixel's 3x3 features once.

    With ``paired``, a logit's products of features with weights are made once for each pair of pixels.
    """

    def __init__(self, prepared: Prepared, y: Place, x: Place, paired: bool):
        super().__init__(prepared, y, x)
        self.spans = [_span(place.index, n) for place, n in zip((y, x), self.features.shape[2:], strict=True)]
        self.paired = paired
        # the corners lie a pixel further, and their 3x3 features two
        features = self._cut(self.features, 2)
        unfolded = F.unfold(features, 3).unflatten(2, [n - 2 for n in features.shape[2:]])
        self.seen = torch.cat((unfolded, self._cut(self.similar, 1)), 1).permute(0, 2, 3, 1).contiguous()
        self.products: Tensor | None = None

    def at(self, corner: Corner) -> Tensor:
        """v at a corner; see ``Near``."""
        (top, _), (left, _) = self.spans
        return read(self.seen, corner.y.pixel - (top - 1), corner.x.pixel - (left - 1))

    def logit(self, hidden: Tensor, last: nn.Linear, corner: Corner) -> Tensor:
        """A corner's logit; see ``Near``."""
        if not self.paired:
            return super().logit(hidden, last, corner)
        if self.products is None:
            self.products = self._products(last)
        row, col = (
            3 * (near.pixel - start) + side.pixel - near.pixel + 1
            for near, side, (start, _) in zip(self.nearest, corner, self.spans, strict=True)
        )
        factor = read(self.products, row, col)
        return _dot(hidden, factor[..., :-1]) + factor[..., -1]

    def _products(self, last: nn.Linear) -> Tensor:
        """(u(q) * u(p)) [W, b] for pixels q and their neighbours p: (B, 3 rows, 3 columns, D + 1)."""
        weight, keys = _with_bias(last), self.seen[..., : last.out_features]
        rows, cols = (stop - start for start, stop in self.spans)
        query = keys[:, 1:-1, 1:-1]

        def pairs(i: int, j: int) -> Tensor:
            return (query * keys[:, i : i + rows, j : j + cols]) @ weight

        found = [torch.stack([pairs(i, j) for j in range(3)], 3) for i in range(3)]
        return torch.stack(found, 2).flatten(3, 4).flatten(1, 2)

    def _cut(self, x: Tensor, margin: int) -> Tensor:
        """The part of a map that belongs to the spans, with so much around it; zero outside the map."""
        (top, bottom), (left, right) = self.spans
        h, w = x.shape[2:]
        part = x[:, :, max(top - margin, 0) : bottom + margin, max(left - margin, 0) : right + margin]
        beyond = (margin - left, right + margin - w, margin - top, bottom + margin - h)
        return F.pad(part, [max(n, 0) for n in beyond])


def _span(index: Tensor, n: int) -> tuple[int, int]:
    """First and last + 1 of the pixels that a block is nearest to, and more where they are few."""
    if torch.compiler.is_compiling():  # a graph cannot depend on them
        return 0, n
    start, stop = int(index.flatten()[0]), int(index.flatten()[-1]) + 1
    stop = min(max(stop, start + LEAST_PIXELS), n)
    return max(min(start, stop - LEAST_PIXELS), 0), stop


def _with_bias(linear: nn.Linear) -> Tensor:
    """[W, b] (out, in + 1)."""
    return torch.cat((linear.weight, linear.bias.unsqueeze(1)), 1)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """<a, b> (...), summed in float32 at least."""
    return (a * b).sum(-1, dtype=torch.promote_types(a.dtype, torch.float32))


def _softmax(logits: list[Tensor]) -> tuple[Tensor, ...]:
    """Each corner's share (...), in float64: exponentials are rounded otherwise at the end of a row."""
    wide = torch.float64 if has_float64(logits[0].device) else torch.float32
    return torch.softmax(torch.stack(logits).to(wide), 0).to(logits[0].dtype).unbind()
