"""A grid's queries gathered by the feature pixel they are nearest to.

All queries nearest to one feature pixel share its K x K window. Every feature row gets the same number of
slots, and so does every column: a pixel has my x mx. Unused slots repeat the row's last output row.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class AxisSlots(NamedTuple):
    """One axis of a grid, by feature pixel.

    ``first``: the first feature pixel; ``slots`` (n, m): positions on the axis for each of n feature pixels;
    ``slot_of`` (R,): where position i stands in the flattened slots; ``starts``: the n + 1 positions at which
    the feature pixels' own ones begin; ``full``: no slot is unused.
    """

    first: int
    slots: Tensor
    slot_of: Tensor
    starts: list[int]
    full: bool


def group_axis(index: Tensor, scale: float | None = None) -> AxisSlots:
    """Group an axis' nearest feature pixels ``index`` (R,), which must not decrease.

    ``scale``: queries for each feature pixel of the whole axis; no pixel has more than that, rounded up.
    """
    first = int(index[0])
    pixel = index - first
    counts = torch.bincount(pixel)
    most = max(int(counts.max()), 0 if scale is None else math.ceil(scale))
    starts = counts.cumsum(0) - counts
    ahead = torch.arange(most, device=index.device)
    within = torch.minimum(ahead, (counts - 1).clamp(min=0).unsqueeze(1))
    slots = (starts.unsqueeze(1) + within).clamp(max=index.shape[0] - 1)
    slot_of = pixel * most + torch.arange(index.shape[0], device=index.device) - starts[pixel]
    edges = [*starts.tolist(), index.shape[0]]
    return AxisSlots(first, slots, slot_of, edges, bool((counts == most).all()))


def crop(feature: Tensor, top: int, bottom: int, left: int, right: int) -> Tensor:
    """Rows [top, bottom) and columns [left, right) of ``feature`` (B, C, h, w), zero outside -> NHWC."""
    h, w = feature.shape[-2:]
    return F.pad(feature.permute(0, 2, 3, 1), (0, 0, -left, right - w, -top, bottom - h))


def windows(cropped: Tensor, side: int) -> Tensor:
    """All side x side windows of ``cropped`` (B, h, w, C): a view (B, h-side+1, w-side+1, side, side, C)."""
    if cropped.requires_grad and torch.is_grad_enabled():
        return _Windows.apply(cropped, side)
    return _unfolded(cropped, side)


def _unfolded(cropped: Tensor, side: int) -> Tensor:
    return cropped.unfold(1, side, 1).unfold(2, side, 1).movedim(3, -1)


class _Windows(torch.autograd.Function):
    """``_unfolded`` whose backward adds one shifted map per tap.

    torch's own backward of ``unfold`` walks element by element: 270 ms of a 1.9 s training step of the light
    model on one CPU thread, against 45 ms so.
    """

    @staticmethod
    def forward(ctx, cropped: Tensor, side: int) -> Tensor:
        ctx.side = side
        return _unfolded(cropped, side)

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple[Tensor, None]:
        grad, side = grads[0], ctx.side
        h, w = grad.shape[1:3]
        total = grad.new_zeros(grad.shape[0], h + side - 1, w + side - 1, grad.shape[-1])
        for y in range(side):
            for x in range(side):
                total[:, y : y + h, x : x + w] += grad[:, :, :, y, x]
        return total, None
