"""Reading a map at queries, against torch's own grid_sample."""

import pytest
import torch
import torch.nn.functional as F
from op_cases import QUERIES, random_map, random_points, random_raster, rng, whole_grid

from clit_kernels import Points
from clit_kernels.queries import as_points, gather_pixels, sample_bilinear, tap_offsets


def sampled(feature, position, mode):
    """grid_sample of (B, C, h, w) at (B, N, 2) positions in pixels -> (B, N, C)."""
    h, w = feature.shape[-2:]
    grid = ((2 * position + 1) / torch.tensor((h, w)) - 1).flip(-1).unsqueeze(1)
    return F.grid_sample(feature, grid, mode, "zeros", align_corners=False)[:, :, 0].transpose(1, 2)


@pytest.mark.parametrize("name", QUERIES)
def test_bilinear_sample(name):
    size, queries = QUERIES[name]
    feature = random_map(5, size, 1, torch.float64)
    points = as_points(queries, 2)
    points = Points(points.index, points.offset.double())
    assert points.count == queries.count
    if points.count:
        expected = sampled(feature, points.index + points.offset, "bilinear")
        torch.testing.assert_close(sample_bilinear(feature, points), expected)


def test_gather_reads_zero_outside():
    feature = random_map(5, (4, 3), 1, torch.float64)
    points = random_points(2, 60, 4, 3)
    expected = sampled(feature, points.index.double(), "nearest")
    assert (expected == 0).all(-1).any() and (expected != 0).all(-1).any()
    torch.testing.assert_close(gather_pixels(feature, points.index), expected)


def test_taps_are_row_major():
    assert tap_offsets(1).tolist() == [[y, x] for y in (-1, 0, 1) for x in (-1, 0, 1)]
    assert tap_offsets(0).tolist() == [[0, 0]]


def test_a_grid_is_listed_row_by_row():
    grid = whole_grid("x2.5")
    points = as_points(grid, 2)
    at = 5 * grid.col.shape[0] + 6
    for image in (0, 1):
        assert points.index[image, at].tolist() == [grid.row[5], grid.col[6]]
        assert points.offset[image, at].tolist() == [grid.row_offset[5], grid.col_offset[6]]


def test_a_raster_is_listed_one_map_of_positions_after_another():
    raster = random_raster(2, 3, 4, 5)
    points = as_points(raster, 2)
    at = 2 * 20 + 3 * 5 + 1
    assert points.index[1, at].tolist() == [3, 1]
    assert torch.equal(points.offset[1, at], raster.offset[1, 2, 3, 1])


def test_part_of_a_grid_on_part_of_a_map():
    feature = torch.randn(2, 3, 5, 3, generator=rng(), dtype=torch.float64)
    grid = whole_grid("x2.5")
    part = grid.rows(5, 9).shifted(1, 0)
    assert part.count == 4 * 8
    whole = sample_bilinear(feature, as_points(grid, 2)).unflatten(1, (12, 8))
    cut = sample_bilinear(feature[:, :, 1:], as_points(part, 2)).unflatten(1, (4, 8))
    torch.testing.assert_close(cut, whole[:, 5:9])
