"""Bilinear resampling by nearest pixel and offset: exact positions, separable on grids."""

from typing import Literal

import torch
from torch import Tensor

from clit_kernels import Grid, Points
from clit_kernels.queries import gather_pixels

Padding = Literal["zeros", "border"]


def resample_axis(x: Tensor, dim: int, index: Tensor, offset: Tensor, padding: Padding) -> Tensor:
    """Linear interpolation of ``x`` along ``dim`` at positions ``index + offset`` (R,)."""
    n = x.shape[dim]
    low = index - (offset < 0).long()
    fraction = offset + (offset < 0).to(offset.dtype)
    lines = x.movedim(dim, 0).contiguous()  # copied line by line: number by number takes 8 times as long
    total: Tensor | None = None
    for pixel, weight in ((low, 1 - fraction), (low + 1, fraction)):
        if padding == "zeros":
            weight = weight * ((pixel >= 0) & (pixel < n)).to(weight.dtype)
        read, weight = lines.index_select(0, pixel.clamp(0, n - 1)), weight.to(x.dtype)
        weight = weight.view(-1, *[1] * (x.dim() - 1))
        total = read * weight if total is None else torch.addcmul(total, read, weight)
    assert total is not None
    return total.movedim(0, dim)


def border_columns(image: Tensor, grid: Grid) -> Tensor:
    """``image`` (B, 3, h, w) at a grid's columns, (B, h, S, 3), for ``border_rows`` of its bands.

    Columns come first because there are fewer rows to do it for, and only once.
    """
    columns = resample_axis(image.permute(0, 2, 3, 1), 2, grid.col, grid.col_offset, "border")
    return columns.contiguous()


def border_rows(columns: Tensor, grid: Grid) -> Tensor:
    """What ``border_columns`` found at a grid's rows: the image there, (B, Q, 3), bilinearly."""
    return resample_axis(columns, 1, grid.row, grid.row_offset, "border").flatten(1, 2)


def sample_border(x: Tensor, points: Points) -> Tensor:
    """``x`` (B, C, h, w) at points -> (B, N, C); positions outside take the border's value."""
    h, w = x.shape[-2:]
    below = (points.offset < 0).long()
    low = points.index - below
    fraction = (points.offset + below.to(points.offset.dtype)).to(x.dtype)
    limit = torch.tensor((h - 1, w - 1), device=x.device)
    total = torch.zeros((), dtype=x.dtype, device=x.device)
    for dy in (0, 1):
        for dx in (0, 1):
            corner = low + torch.tensor((dy, dx), device=x.device)
            value = gather_pixels(x, corner.clamp(min=0).minimum(limit))
            weight_y = fraction[..., 0] if dy else 1 - fraction[..., 0]
            weight_x = fraction[..., 1] if dx else 1 - fraction[..., 1]
            total = total + value * (weight_y * weight_x).unsqueeze(-1)
    return total
