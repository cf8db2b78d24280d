"""Sizes, plans and positions: pure functions."""

import random
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import clit_kernels
from clit_kernels import Points
from clit_zoo import geometry
from clit_zoo.axis import MOST_GROWN, Axis
from clit_zoo.errors import ScaleError
from clit_zoo.geometry import Coords, Pixels, Raster, axis_factors, output_size, plan

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
    assert plan(*size, (target[0] / size[0], target[1] / size[1]), stages) == expected


def exact_positions(n, m):
    """Nearest pixel, offset and whether it is a tie, in exact arithmetic."""
    for i in range(m):
        where = Fraction((2 * i + 1) * n, 2 * m) - Fraction(1, 2)
        index = round(where)  # Python rounds ties to even
        yield index, float(where - index), abs(where - index) == Fraction(1, 2)


@pytest.mark.parametrize("n, m", SIZES)
def test_positions_are_exact(n, m):
    index, offset = Axis.whole(m).on(n)
    expected = list(exact_positions(n, m))
    assert index.tolist() == [i for i, _, _ in expected]
    assert [Axis.whole(m).nearest(i, n) for i in range(m)] == index.tolist()
    torch.testing.assert_close(offset, torch.tensor([o for _, o, _ in expected]), atol=1e-7, rtol=0)
    part = Axis.whole(m).part(m // 3, m - m // 3).on(n)
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
    index, _ = Axis.whole(m).on(n)
    assert torch.equal(index[~ties], nearest.long()[~ties])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n, m", SIZES)
def test_points_at_pixel_centres_are_the_grid(n, m, dtype):
    """Ties included, though the coordinates carry rounding noise."""
    x = geometry.pixel_centres(m).to(dtype)
    found = geometry.points(torch.stack((x, x.flip(0)), -1).unsqueeze(0), (n, n))
    index, offset = Axis.whole(m).on(n)
    assert torch.equal(found.index[0, :, 0], index) and torch.equal(found.index[0, :, 1], index.flip(0))
    noise = 1e-7 if dtype == torch.float64 else 1e-7 * n
    torch.testing.assert_close(found.offset[0, :, 0], offset, atol=noise, rtol=0)
    assert found.offset.dtype == torch.float32 and found.offset.abs().max() <= 0.5 + 1e-5


def test_raster_coordinates_lead_back_to_the_raster():
    raster = Raster(torch.rand(2, 3, 5, 7, 2) * 0.98 - 0.49, torch.ones(2, 2))
    assert isinstance(raster.on((5, 7)), clit_kernels.Raster)
    coords = geometry.raster_coords(raster.offset)
    expected = (2 * (torch.tensor([4.0, 6.0]) + raster.offset[1, 2, 4, 6]) + 1) / torch.tensor([5.0, 7.0]) - 1
    torch.testing.assert_close(coords.unflatten(1, (3, 5, 7))[1, 2, 4, 6].float(), expected)
    points = Coords(coords, raster.cell).on((5, 7))
    assert isinstance(points, Points) and points.index[0, 8].tolist() == [1, 1]
    torch.testing.assert_close(points.offset, raster.offset.flatten(1, 3), atol=1e-6, rtol=0)
    other = raster.on((10, 14))
    assert torch.equal(other.index, Coords(coords, raster.cell).on((10, 14)).index)


def test_cells_are_the_same_however_they_are_given():
    device, cell = torch.device("cpu"), torch.tensor([[2 / 192, 2 / 240]]).expand(3, 2)
    for where in (Pixels.whole((192, 240)), Coords(torch.zeros(3, 1, 2), cell)):
        cells = where.cells((48, 24), 3, device)
        assert cells.shape == (3, 2)
        torch.testing.assert_close(cells[2], torch.tensor([0.5, 0.2]))


@pytest.mark.parametrize("h, w, size", [(5, 7, (12, 18)), (100, 70, (370, 259)), (3, 1, (3, 999))])
def test_a_window_on_the_wholes_grid_is_its_part(h, w, size):
    """Found again from edges that were rounded to floats, by scale and by its own size."""
    whole, (H, W) = Pixels.whole(size).on((2 * h, w)), size
    generator = random.Random(0)
    for _ in range(20):
        top, bottom = sorted(generator.sample(range(H + 1), 2))
        left, right = sorted(generator.sample(range(W + 1), 2))
        box = (left * w / W, top * h / H, right * w / W, bottom * h / H)
        for given in ({"scale": (H / h, W / w)}, {"size": (bottom - top, right - left)}):
            window = Pixels.window(h, w, box, **given)
            assert window.size == (bottom - top, right - left)
            assert window.rows.scale(h) == H / h and window.cols.scale(w) == W / w
            parts = [slice(top, bottom)] * 2 + [slice(left, right)] * 2
            found = window.on((2 * h, w))
            assert all(torch.equal(a, b[part]) for a, b, part in zip(found, whole, parts, strict=False))
            assert found.scale == whole.scale


def test_any_other_window_is_shown_from_edge_to_edge():
    window = Pixels.window(100, 100, (10.25, 20.5, 43.75, 70.125), size=(333, 77))
    for axis, low, high, m in ((window.rows, 20.5, 70.125, 333), (window.cols, 10.25, 43.75, 77)):
        index, offset = axis.on(100)
        expected = low + (torch.arange(m, dtype=torch.float64) + 0.5) * (high - low) / m - 0.5
        torch.testing.assert_close(index + offset.double(), expected, atol=1e-6, rtol=0)
        assert axis.scale(100) == pytest.approx(m / (high - low))
        assert [axis.nearest(i, 100) for i in range(m)] == index.tolist()


@pytest.mark.parametrize(
    ("box", "given", "words"),
    [
        ((0, 0, 10, 10), {}, "give a scale or a target size"),
        ((0, 0, 10, 10), {"scale": 0.5}, "scale 0.5 is out of range"),
        ((0, 0, 10, 10), {"size": (9, 20)}, "size 20x9 .* smaller than the 10x10"),
        ((5, 0, 5, 10), {"scale": 2}, "empty or reaches beyond the 30x20 input"),
        ((0, 0, 10, 20.01), {"scale": 2}, "empty or reaches beyond"),
        ((-1, 0, 10, 10), {"scale": 2}, "empty or reaches beyond"),
        ((0, 0, float("nan"), 10), {"scale": 2}, "empty or reaches beyond"),
        ((0, 0, 10), {"scale": 2}, r"box must be \(left, top, right, bottom\)"),
        ("0,0,1,1", {"scale": 2}, "box must be"),
        ((1.0, 1.0, 1.001, 1.001), {"size": (20, 20)}, "more than 1000 times"),
    ],
)
def test_windows_refused(box, given, words):
    with pytest.raises(ScaleError, match=words):
        Pixels.window(20, 30, box, **given)


@pytest.mark.parametrize("n, m", [*SIZES, (100, 105)])
def test_a_grown_axis_holds_whole_pixels_of_the_map(n, m):
    whole = Axis.whole(m)
    for start in range(0, m, max(1, m // 7)):
        grown, before = whole.part(start, start + 1).grown(4, n)
        first, last = grown.start, grown.start + grown.size
        assert first == start - before and 0 <= first <= start < last <= m
        assert grown.size >= min(4, m)
        if m / n > MOST_GROWN:
            assert grown.size <= 4
            continue
        assert first == 0 or whole.nearest(first - 1, n) != whole.nearest(first, n)
        assert last == m or whole.nearest(last, n) != whole.nearest(last - 1, n)
        assert whole.nearest(last - 1, n) - whole.nearest(first, n) >= min(1, n - 1)


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
