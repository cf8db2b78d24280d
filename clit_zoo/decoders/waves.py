"""LIT's frequency branch (Chen et al., CVPR 2023), hoisted out of the positions.

Around a position's feature pixel, a K x K window of E/2 channels is Fourier transformed; each of its K x K
numbers is turned by a complex wave of the position relative to one pixel of the window; real and imaginary
parts are inputs of the MLP. A wave's frequency b is its channel's, half of them along y, half along x:

    hidden = sum over taps k, channels e of Re(W_ke G_ke exp(i b_e d_k)),  d_k = 2 (offset - k),  G = FFT(g)

The taps' share of the waves, the transform and W make one complex kernel for each channel, in which nothing
depends on the position (``kernels``). A map of E/2 complex vectors belongs to the feature pixel, and what is
left of a position is the sum of the E/4 numbers of its row with those vectors, and of its column's.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from clit_kernels import Grid, Points
from clit_kernels.grouping import crop, windows
from clit_kernels.position_bias import has_float64
from clit_kernels.queries import gather_pixels, tap_offsets

PIXELS = 256
"""Feature pixels whose vectors exist at once: 16 MB for the paper's sizes."""

LEAST_PIXELS = 16
"""Products of fewer rows differ in their last bits from those of more; see ``Axis.grown``."""

Span = tuple[int, int]
"""First and last pixel along an axis."""


def frequencies(count: int, device: torch.device) -> Tensor:
    """(count,) b = 2**linspace(0, 10, count) - 1, rounded to float32 as the authors' are."""
    wide = torch.float64 if has_float64(device) else torch.float32
    return (2.0 ** torch.linspace(0, 10, count, dtype=torch.float32, device="cpu") - 1).to(wide).to(device)


def kernels(weight: Tensor, radius: int) -> Tensor:
    """The branch's kernels, of the first layer's weights.

    Args:
        weight: (D, K*K, E) its columns for the branch, real and imaginary parts one after the other.

    Returns:
        (E, K*K, D): what meets a window's channels along y times the cosine of a position's waves, and the
        sine; then those along x.
    """
    bands, side = frequencies(weight.shape[2] // 4, weight.device), 2 * radius + 1
    pairs = weight.to(bands.dtype).unflatten(2, (-1, 2)).unflatten(1, (side, side))
    along_y, along_x = torch.complex(pairs[..., 0], -pairs[..., 1]).chunk(2, -1)  # (D, K, K, E/4)
    angles = -2 * torch.arange(-radius, radius + 1, device=weight.device).unsqueeze(1) * bands
    turns = torch.polar(torch.ones_like(angles), angles)  # (K, E/4)
    turned = torch.cat((along_y * turns.unsqueeze(1), along_x * turns), -1)
    y, x = torch.fft.fft2(turned, dim=(1, 2), norm="ortho").permute(3, 1, 2, 0).flatten(1, 2).chunk(2)
    return torch.cat((y.real, -y.imag, x.real, -x.imag)).to(weight.dtype)


def on_grid(maps: Tensor, kernels: Tensor, grid: Grid, spans: tuple[Span, Span], slots: Span) -> Tensor:
    """The branch's share (B, Q, D) of the hidden layer on a grid.

    Args:
        maps: (B, E/2, h, w), zero beyond its borders.
        kernels: as ``kernels`` gives them.
        grid: positions; offsets may be of any size.
        spans: feature pixels, along y and x, among which are all that the grid names.
        slots: how many of the grid's rows and columns at most name one of them.
    """
    (top, bottom), (left, right) = spans
    area, size = kernels.shape[1], (bottom + 1 - top, right + 1 - left)
    side = int(area**0.5)
    radius, batch = side // 2, maps.shape[0]
    y, x = maps.chunk(2, 1)
    padded = crop(
        torch.cat((y, y, x, x), 1), top - radius, bottom + radius + 1, left - radius, right + radius + 1
    )
    around = windows(padded, side).flatten(3, 4).flatten(0, 2)  # (P, K*K, E)
    rows = _Slots(grid.row - top, grid.row_offset, size[0], slots[0], len(kernels) // 4, maps.dtype)
    cols = _Slots(grid.col - left, grid.col_offset, size[1], slots[1], len(kernels) // 4, maps.dtype)
    down = rows.waves.unsqueeze(1).expand(-1, size[1], -1, -1).flatten(0, 1).repeat(batch, 1, 1)
    across = cols.waves.repeat(batch * size[0], 1, 1)
    found_y, found_x = [], []
    for start in range(0, around.shape[0], PIXELS):
        here = slice(start, start + PIXELS)
        part = around[here]
        count = part.shape[0]
        part = F.pad(part, (0, 0, 0, 0, 0, -count % LEAST_PIXELS))
        vectors = torch.bmm(part.permute(2, 0, 1), kernels)[:, :count].transpose(0, 1)  # (P, E, D)
        of_y, of_x = vectors.chunk(2, 1)
        found_y.append(torch.bmm(down[here], of_y))
        found_x.append(torch.bmm(across[here], of_x))
    by_row = torch.cat(found_y).unflatten(0, (batch, *size)).transpose(2, 3).flatten(1, 2)
    by_row = by_row.index_select(1, rows.slot).index_select(2, grid.col - left)
    by_col = torch.cat(found_x).unflatten(0, (batch, *size)).flatten(2, 3)
    by_col = by_col.index_select(2, cols.slot).index_select(1, grid.row - top)
    return (by_row + by_col).flatten(1, 2)


def at_points(maps: Tensor, kernels: Tensor, points: Points) -> Tensor:
    """The branch's share (B, N, D) of the hidden layer at a list of positions, by gathers.

    Args:
        maps, kernels: as ``on_grid`` takes them.
        points: positions; offsets may be of any size.
    """
    radius = int(kernels.shape[1] ** 0.5) // 2
    read = gather_pixels(maps, points.index.unsqueeze(2) + tap_offsets(radius, maps.device))
    offset = _waves(points.offset, len(kernels) // 4, maps.dtype).unsqueeze(2)  # (B, N, 1, 2, E/2)
    scaled = [
        part * wave
        for part, waves in zip(read.chunk(2, -1), offset.unbind(-2), strict=True)
        for wave in waves.chunk(2, -1)
    ]
    return F.linear(torch.cat(scaled, -1).flatten(2), kernels.permute(2, 1, 0).flatten(1))


def literal(window: Tensor, relative: Tensor) -> Tensor:
    """The branch as the paper has it: what the MLP reads.

    Args:
        window: (B, N, K*K, E/2) channels around each position.
        relative: (B, N, K*K, 2) the position relative to those pixels, in half pixels.

    Returns:
        (B, N, K*K, E).
    """
    side = int(window.shape[2] ** 0.5)
    found = torch.fft.fft2(window.unflatten(2, (side, side)), dim=(2, 3), norm="ortho").flatten(2, 3)
    angles = relative.unsqueeze(-1) * frequencies(window.shape[-1] // 2, window.device).to(relative.dtype)
    turned = found * torch.polar(torch.ones_like(angles), angles).flatten(-2)
    return torch.view_as_real(turned).flatten(-2)


class _Slots:
    """An axis' positions by the feature pixel they are nearest to, each pixel with as many slots.

    ``waves`` (n, slots, E/2): theirs, with others in spare slots; ``slot`` (R,): where a position stands.
    Sizes follow from numbers and not from tensors, which a tracer could not follow.
    """

    def __init__(self, index: Tensor, offset: Tensor, n: int, slots: int, bands: int, dtype: torch.dtype):
        starts = torch.searchsorted(index, torch.arange(n, device=index.device))
        taken = starts.unsqueeze(1) + torch.arange(slots, device=index.device)
        self.waves = _waves(offset[taken.clamp(max=index.shape[0] - 1)], bands, dtype)
        self.slot = index * slots + torch.arange(index.shape[0], device=index.device) - starts[index]


def _waves(offset: Tensor, bands: int, dtype: torch.dtype) -> Tensor:
    """Cosines and sines (..., 2 * bands) of a position's waves, ``offset`` (...) pixels from its pixel."""
    frequency = frequencies(bands, offset.device)
    angles = 2 * offset.to(frequency.dtype).unsqueeze(-1) * frequency
    return torch.cat((angles.cos(), angles.sin()), -1).to(dtype)
