"""Bilinear resampling, against torch's grid_sample."""

import pytest
import torch
import torch.nn.functional as F

from clit_zoo import geometry
from clit_zoo.decoders.bands import BandedMap
from clit_zoo.decoders.sampling import resample_axis, sample_border
from clit_zoo.geometry import Pixels

SIZES = [((1, 1), (4, 3)), ((5, 3), (5, 3)), ((5, 3), (12, 8)), ((2, 7), (9, 8))]


def sampled(x, coords, padding):
    """grid_sample of (B, C, h, w) at (B, N, 2) positions (y, x) -> (B, C, N)."""
    return F.grid_sample(x, coords.flip(-1).unsqueeze(1), "bilinear", padding, align_corners=False)[:, :, 0]


def centres(size):
    y, x = (geometry.pixel_centres(n) for n in size)
    return torch.stack(torch.meshgrid(y, x, indexing="ij"), -1).flatten(0, 1).expand(2, -1, -1)


@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("size, target", SIZES)
def test_grids(size, target, padding):
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    grid = Pixels.whole(target).on(size)
    rows = resample_axis(x, 2, grid.row, grid.row_offset, padding)
    got = resample_axis(rows, 3, grid.col, grid.col_offset, padding)
    expected = sampled(x, centres(target), padding).unflatten(2, target)
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)


def test_points_beyond_the_border_take_its_value():
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    coords = torch.rand(2, 50, 2, dtype=torch.float64) * 3 - 1.5
    got = sample_border(x, geometry.points(coords, (4, 5)))
    torch.testing.assert_close(got.transpose(1, 2), sampled(x, coords, "border"), atol=1e-6, rtol=0)


@pytest.mark.parametrize("size, target", SIZES)
def test_a_later_stage_works_on_the_map_resampled_with_zero_padding(size, target):
    """Through convolutions that change nothing, q, k and v are that map."""
    base = torch.randn(2, 3, *size)
    weight = torch.zeros(9, 3, 3, 3)
    weight[:, :, 1, 1] = torch.eye(3).repeat(3, 1)
    expected = sampled(base.double(), centres(target), "zeros").unflatten(2, target)
    for part in BandedMap(base, target, (0, target[1] - 1), 1, weight, torch.zeros(9)).rows(0, target[0] - 1)[
        1
    ]:
        torch.testing.assert_close(part.double(), expected, atol=1e-5, rtol=0)
