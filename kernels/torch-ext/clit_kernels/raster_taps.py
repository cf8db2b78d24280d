"""Products of a raster's positions with the pixels around each, one tap at a time.

A raster has M positions at every feature pixel, so one tap of all of them is a shifted view of the padded
map: nothing is gathered forwards or scattered backwards. Work goes image by image, in rows that stay in a
core's cache: against all images at once, that took ``project`` from 1.67 to 1.28 s and ``contract`` from 0.40
to 0.31 s (4 patches of the published size there and back, bfloat16, one CPU thread).

* ``x`` (B, M, h, w, C): one vector for each position.
* ``padded`` (B, h + 2r, w + 2r, C): a map with r zeros around.
* ``weights`` (K*K, B, M, h, w, H): a number for each tap, row-major, position and head; C is a multiple of H.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 1 << 18
"""Numbers of one tap, or of all taps where they are held together, that are worked on at once: 0.5 MB."""


def contract(x: Tensor, padded: Tensor, heads: int) -> Tensor:
    """<x, tap> within each head, for all taps: weights (K*K, B, M, h, w, H)."""
    return _Contract.apply(x, padded, heads)


def blend(weights: Tensor, padded: Tensor) -> Tensor:
    """Sum over taps of weight times tap: (B, M, h, w, C). The weights get no gradient."""
    return _Blend.apply(weights, padded)


def project(weights: Tensor, padded: Tensor, matrix: Tensor) -> Tensor:
    """``matrix`` (D, K*K*C) times all taps, each times its weight: (B, M, h, w, D).

    The K*K*C numbers of a position exist for one image at a time, forwards and backwards.
    """
    return _Project.apply(weights, padded, matrix)


def _blocks(shape: Sequence[int], numbers: int) -> Iterator[tuple[int, slice]]:
    """The images and rows of positions (B, M, h, w) with so many numbers each, in blocks."""
    batch, m, h, w = shape
    step = max(1, BLOCK // (m * w * numbers))
    for b in range(batch):
        for y in range(0, h, step):
            yield b, slice(y, min(y + step, h))


def _taps(padded: Tensor, rows: slice, w: int) -> Iterator[Tensor]:
    """Views (rows, w, C) of one image's map (h + 2r, w + 2r, C), shifted by each tap."""
    side = padded.shape[1] - w + 1
    for y in range(side):
        for x in range(side):
            yield padded[rows.start + y : rows.stop + y, x : x + w]


def _membership(heads: int, padded: Tensor) -> Tensor:
    """(H, C) ones where a channel belongs to a head.

    A product with it widens weights to channels, or sums channels to heads: 4 and 3 times faster in bfloat16
    on a CPU than broadcasting and summing.
    """
    ones = torch.eye(heads, dtype=padded.dtype, device=padded.device)
    return ones.repeat_interleave(padded.shape[-1] // heads, 1)


def _add_product(into: Tensor, a: Tensor, b: Tensor) -> None:
    """Add a * b (M, rows, w, C), summed over M, to the shifted view ``into`` (rows, w, C)."""
    if max(a.shape[0], b.shape[0]) == 1:
        into.addcmul_(a[0], b[0])
    else:
        into.add_((a * b).sum(0))


class _Contract(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, padded: Tensor, heads: int) -> Tensor:
        ctx.save_for_backward(x, padded)
        ctx.heads = heads
        to_heads, w = _membership(heads, padded).T, x.shape[3]
        weights = x.new_empty((padded.shape[2] - w + 1) ** 2, *x.shape[:4], heads)
        for b, rows in _blocks(x.shape[:4], x.shape[4]):
            here = x[b, :, rows]
            product = torch.empty_like(here)
            for weight, tap in zip(weights[:, b, :, rows], _taps(padded[b], rows, w), strict=True):
                weight.copy_(torch.mul(here, tap, out=product) @ to_heads)
        return weights

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, padded = ctx.saved_tensors
        to_channels, w = _membership(ctx.heads, padded), x.shape[3]
        grad_x, grad_padded = torch.zeros_like(x), torch.zeros_like(padded)
        with torch.autocast(grad.device.type, enabled=False):
            for b, rows in _blocks(x.shape[:4], x.shape[4]):
                here, grad_here = x[b, :, rows], grad_x[b, :, rows]
                taps, into = (_taps(t[b], rows, w) for t in (padded, grad_padded))
                for weight, tap, grad_tap in zip(grad[:, b, :, rows], taps, into, strict=True):
                    wide = weight @ to_channels
                    grad_here.addcmul_(wide, tap)
                    _add_product(grad_tap, wide, here)
        return grad_x, grad_padded, None


class _Blend(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weights: Tensor, padded: Tensor) -> Tensor:
        ctx.save_for_backward(weights, padded)
        shape, channels = weights.shape[1:-1], padded.shape[-1]
        total = padded.new_zeros(*shape, channels)
        for b, rows in _blocks(shape, channels):
            here = total[b, :, rows]
            for weight, tap in zip(weights[:, b, :, rows], _taps(padded[b], rows, shape[3]), strict=True):
                here.addcmul_(weight, tap)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[None, Tensor]:
        weights, padded = ctx.saved_tensors
        grad_padded = torch.zeros_like(padded)
        for b, rows in _blocks(grad.shape[:4], grad.shape[4]):
            into = _taps(grad_padded[b], rows, grad.shape[3])
            for weight, grad_tap in zip(weights[:, b, :, rows], into, strict=True):
                _add_product(grad_tap, weight, grad[b, :, rows])
        return None, grad_padded


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weights: Tensor, padded: Tensor, matrix: Tensor) -> Tensor:
        ctx.save_for_backward(weights, padded, matrix)
        out = padded.new_empty(*weights.shape[1:-1], len(matrix))
        scaled = None
        for b in range(len(out)):
            scaled = _scaled(weights[:, b], padded[b], scaled)
            torch.mm(scaled.flatten(-2).flatten(0, -2), matrix.T, out=out[b].flatten(0, -2))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        weights, padded, matrix = ctx.saved_tensors
        taps, (m, h, w, heads) = len(weights), weights.shape[2:]
        to_channels, side = _membership(heads, padded), padded.shape[2] - w + 1
        grad_weights, grad_padded = torch.empty_like(weights), torch.zeros_like(padded)
        # of all images together in one product, as autograd has it, sums would be kept in float32 too
        grad_matrix = torch.zeros_like(matrix, dtype=torch.promote_types(matrix.dtype, torch.float32))
        scaled = None
        with torch.autocast(grad.device.type, enabled=False):
            for b in range(len(grad)):
                scaled = _scaled(weights[:, b], padded[b], scaled)
                flat, given = scaled.flatten(-2).flatten(0, -2), grad[b].flatten(0, -2)
                grad_matrix += given.T @ flat
                torch.mm(given, matrix, out=flat)  # in its place
                for _, rows in _blocks((1, m, h, w), taps * padded.shape[-1]):
                    here = scaled[:, rows]
                    products = here.unflatten(3, (side, side)) * _windows(padded[b], rows, side)
                    grad_weights[:, b, :, rows] = (products.flatten(3, 4) @ to_channels.T).movedim(3, 0)
                    here *= _wide(weights[:, b, :, rows], to_channels)
                    summed = here[0] if m == 1 else here.sum(0)
                    for product, grad_tap in zip(summed.unbind(2), _taps(grad_padded[b], rows, w)):
                        grad_tap += product
        return grad_weights, grad_padded, grad_matrix.to(matrix.dtype)


def _scaled(weights: Tensor, padded: Tensor, buffer: Tensor | None) -> Tensor:
    """One image's taps times their weights (K*K, M, h, w, H): (M, h, w, K*K, C), in ``buffer`` if given."""
    taps, m, h, w, heads = weights.shape
    to_channels, side = _membership(heads, padded), padded.shape[1] - w + 1
    out = padded.new_empty(m, h, w, taps, padded.shape[-1]) if buffer is None else buffer
    for _, rows in _blocks((1, m, h, w), taps * padded.shape[-1]):
        wide = _wide(weights[:, :, rows], to_channels).unflatten(3, (side, side))
        torch.mul(wide, _windows(padded, rows, side), out=out[:, rows].unflatten(3, (side, side)))
    return out


def _wide(weights: Tensor, to_channels: Tensor) -> Tensor:
    """Weights (K*K, M, rows, w, H) for every channel: (M, rows, w, K*K, C)."""
    return weights.movedim(0, 3).contiguous() @ to_channels


def _windows(padded: Tensor, rows: slice, side: int) -> Tensor:
    """The windows (rows, w, K, K, C) of one image's rows, a view."""
    part = padded[rows.start : rows.stop + side - 1].unfold(0, side, 1).unfold(1, side, 1)
    return part.permute(0, 1, 3, 4, 2)
