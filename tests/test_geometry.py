"""Sizes, plans and positions: pure functions."""

from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clit_zoo import geometry
from clit_zoo.errors import ScaleError
from clit_zoo.geometry import Points, Raster, axis_factors, output_size, plan

SIZES = [
    (1, 1),
    (1, 7),
    (5, 5),
    (100, 101),
    (7, 12),
    (8, 20),
    (5, 8),
    (16, 120),
    (48, 192),
    (3, 1000),
]


@pytest.mark.parametrize(
    "scale, expected",
    [
        (1, (1,)),
        (3.7, (3.7,)),
        (4, (4,)),
        (4.5, (4, 1.125)),
        (12, (4, 3)),
        (16, (4, 4)),
        (30, (4, 4, 1.875)),
        (64, (4, 4, 4)),
        (100, (4, 4, 6.25)),
    ],
)
def test_factors(scale, expected):
    assert axis_factors(scale, 3) == expected
    assert axis_factors(scale, 1) == (scale,)
    two = axis_factors(scale, 2)
    assert len(two) == min(len(expected), 2) and two[0] == min(scale, 4 if len(two) == 2 else scale)


@pytest.mark.parametrize(
    "size, target, stages, expected",
    [
        ((48, 48), (192, 192), 3, [(48, 48)]),
        ((48, 48), (576, 576), 3, [(48, 48), (192, 192)]),
        ((48, 48), (576, 576), 1, [(48, 48)]),
        ((48, 40), (1440, 1200), 3, [(48, 40), (192, 160), (768, 640)]),
        ((10, 10), (1000, 1000), 3, [(10, 10), (40, 40), (160, 160)]),  # above 4**3: the last takes the rest
        ((10, 20), (60, 40), 3, [(10, 20), (40, 20)]),  # each axis by itself
        ((10, 20), (15, 640), 3, [(10, 20), (10, 80), (10, 320)]),
        ((1, 1), (1, 1), 3, [(1, 1)]),
    ],
)
def test_plan(size, target, stages, expected):
    assert plan(*size, target, stages) == expected


def exact_positions(n, m):
    """Nearest pixel, offset and whether it is a tie, in exact arithmetic."""
    for i in range(m):
        where = Fraction((2 * i + 1) * n, 2 * m) - Fraction(1, 2)
        index = round(where)  # Python rounds ties to even
        yield index, float(where - index), abs(where - index) == Fraction(1, 2)


@pytest.mark.parametrize("n, m", SIZES)
def test_positions_are_exact(n, m):
    index, offset = geometry.axis_positions(n, m)
    expected = list(exact_positions(n, m))
    assert index.tolist() == [i for i, _, _ in expected]
    assert [geometry.nearest_pixel(i, n, m) for i in range(m)] == index.tolist()
    torch.testing.assert_close(offset, torch.tensor([o for _, o, _ in expected]), atol=1e-7, rtol=0)
    part = geometry.axis_positions(n, m, m // 3, m - m // 3)
    assert all(torch.equal(a, b[m // 3 : m - m // 3]) for a, b in zip(part, (index, offset), strict=True))


@pytest.mark.parametrize("n, m", SIZES)
def test_nearest_is_that_of_grid_sample(n, m):
    ramp = torch.arange(n, dtype=torch.float64).view(1, 1, 1, n)
    x = geometry.pixel_centres(m)
    where = torch.stack((x, torch.zeros_like(x)), -1).view(1, 1, m, 2)
    nearest = F.grid_sample(ramp, where, "nearest", "zeros", align_corners=False).flatten()
    ties = torch.tensor([tie for _, _, tie in exact_positions(n, m)])
    if (n, m) in ((8, 20), (16, 120)):  # powers of two, whose half-way coordinates are exact
        assert ties.any()
        ties = torch.zeros_like(ties)
    index, _ = geometry.axis_positions(n, m)
    assert torch.equal(index[~ties], nearest.long()[~ties])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n, m", SIZES)
def test_points_at_pixel_centres_are_the_grid(n, m, dtype):
    """Ties included, though the coordinates carry rounding noise."""
    x = geometry.pixel_centres(m).to(dtype)
    found = geometry.points(torch.stack((x, x.flip(0)), -1).unsqueeze(0), (n, n))
    index, offset = geometry.axis_positions(n, m)
    assert torch.equal(found.index[0, :, 0], index) and torch.equal(found.index[0, :, 1], index.flip(0))
    noise = 1e-7 if dtype == torch.float64 else 1e-7 * n
    torch.testing.assert_close(found.offset[0, :, 0], offset, atol=noise, rtol=0)
    assert found.offset.dtype == torch.float32 and found.offset.abs().max() <= 0.5 + 1e-5


def test_raster_coordinates_lead_back_to_the_raster():
    raster = Raster(torch.rand(2, 3, 5, 7, 2) * 0.98 - 0.49)
    points = geometry.points(geometry.raster_coords(raster), (5, 7))
    from_raster = geometry.raster_coords(raster).unflatten(1, (3, 5, 7))[1, 2, 4, 6]
    expected = (2 * (torch.tensor([4.0, 6.0]) + raster.offset[1, 2, 4, 6]) + 1) / torch.tensor([5.0, 7.0]) - 1
    torch.testing.assert_close(from_raster.float(), expected)
    assert isinstance(points, Points) and points.index[0, 8].tolist() == [1, 1]
    torch.testing.assert_close(points.offset, raster.offset.flatten(1, 3), atol=1e-6, rtol=0)


def test_grid_and_cells():
    grid = geometry.grid((5, 7), (12, 18), torch.device("cpu"), slice(3, 8))
    assert torch.equal(grid.row, geometry.axis_positions(5, 12)[0][3:8]) and grid.count == 5 * 18
    cells = geometry.cell_size((48, 24), (192, 240), 3, torch.device("cpu"))
    assert cells.shape == (3, 2) and torch.equal(cells[2], torch.tensor([0.5, 0.2]))


@pytest.mark.parametrize(
    "given, expected",
    [
        ({"scale": 1}, (10, 21)),
        ({"scale": 2.5}, (25, 52)),  # 52.5 rounds to even, as Python does
        ({"scale": (1, 3.1)}, (10, 65)),
        ({"scale": [17.3, 17.3]}, (173, 363)),
        ({"scale": 1000}, (10_000, 21_000)),
        ({"size": (10, 21)}, (10, 21)),
        ({"size": [33, 40]}, (33, 40)),
        ({"scale": np.float32(2.5)}, (25, 52)),
        ({"scale": np.array([2, 3])}, (20, 63)),
        ({"scale": torch.tensor(2.5)}, (25, 52)),
        ({"size": (np.int64(33), torch.tensor(40))}, (33, 40)),
        ({"size": torch.Size([33, 40])}, (33, 40)),
    ],
)
def test_output_size(given, expected):
    assert output_size(10, 21, **given) == expected


@pytest.mark.parametrize(
    "given, message",
    [
        ({}, "give a scale or a target size"),
        ({"scale": 2, "size": (20, 42)}, "give a scale or a target size"),
        ({"scale": 0.5}, "scale 0.5 is out of range: take a number from 1 to 1000"),
        ({"scale": 1001}, "scale 1001 is out of range"),
        ({"scale": float("nan")}, "scale nan is out of range"),
        ({"scale": float("inf")}, "scale inf is out of range"),
        ({"scale": (2, 0)}, "scale 0 is out of range"),
        ({"scale": (2, 2, 2)}, "scale must be a number or a pair"),
        ({"size": (20, 20)}, "size 20x20 .* is smaller than the 21x10 input"),
        ({"size": (20.5, 42)}, r"size must be two whole numbers .* got \(20.5, 42\)"),
        ({"size": (20,)}, "size must be two whole numbers"),
        ({"size": (True, 42)}, "size must be two whole numbers"),
        ({"size": 16}, "size must be two whole numbers .* got 16"),
        ({"size": "ab"}, "size must be two whole numbers .* got 'ab'"),
        ({"size": (float("nan"), 42)}, "size must be two whole numbers"),
        ({"size": (float("inf"), 42)}, "size must be two whole numbers"),
        ({"scale": True}, "scale must be a number or a pair"),
        ({"scale": "2"}, "scale must be a number or a pair .* got '2'"),
        ({"scale": np.float32("nan")}, "scale nan is out of range"),
        ({"size": (20, 42_000)}, "more than 1000 times"),
    ],
)
def test_output_sizes_refused(given, message):
    with pytest.raises(ScaleError, match=message):
        output_size(10, 21, **given)
