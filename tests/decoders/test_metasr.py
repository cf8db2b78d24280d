"""Meta-SR: both orders of the sums are the formula, and the formula is LIIF's form of it and the original."""

import math
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F

from clit_zoo.axis import Axis
from clit_zoo.decoders import build_decoder, metasr, predicted
from clit_zoo.errors import ConfigError
from clit_zoo.geometry import Coords, Pixels, pixel_centres
from clit_zoo.model import SuperResolver
from clit_zoo.zoo.config import ModelConfig

SIZES = [
    ((5, 7), (5, 7)),
    ((6, 4), (15, 10)),
    ((1, 9), (4, 36)),
    ((1, 1), (5, 5)),
    ((4, 5), (33, 59)),
    ((101, 3), (374, 9)),
    ((60, 55), (108, 121)),
]
ORDERS = {"by phase": (1 << 30, 0.001), "by pixel": (0, 1)}


def build(**settings):
    torch.manual_seed(0)
    return build_decoder("metasr", 6, hidden_dims=[16], **settings).double()


def features(h, w):
    return torch.randn(2, 6, h, w, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def listed(h, w, target):
    """The pixels of an output as a list, and their cell."""
    y, x = (pixel_centres(n) for n in target)
    coords = torch.stack(torch.meshgrid(y, x, indexing="ij"), -1).view(1, -1, 2).expand(2, -1, -1)
    return Coords(coords, torch.tensor([[2 / target[0], 2 / target[1]]], dtype=torch.float64).expand(2, 2))


@pytest.mark.parametrize("original", [False, True])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("size, target", SIZES)
@torch.no_grad()
def test_every_order_is_the_formula(size, target, order, original, monkeypatch):
    monkeypatch.setattr(predicted, "MOST_PHASES", ORDERS[order][0])
    monkeypatch.setattr(predicted, "PIXELS_A_PHASE", ORDERS[order][1])
    decoder, x, where = build(original=original), features(*size), Pixels.whole(target)
    expected = decoder.reference(x, where)
    found = decoder.decode(decoder.prepare(x, x), where)
    torch.testing.assert_close(found, expected, atol=1e-13, rtol=0)


@pytest.mark.parametrize("most", [0, 1 << 16], ids=["for each position", "for each pixel"])
@pytest.mark.parametrize("size, target", SIZES)
@torch.no_grad()
def test_lists_are_the_formula(size, target, most, monkeypatch):
    monkeypatch.setattr(predicted, "MOST_LOOKED_UP", most)
    decoder, x, where = build(), features(*size), listed(*size, target)
    found = decoder.decode(decoder.prepare(x, x), where)
    torch.testing.assert_close(found, decoder.reference(x, where), atol=1e-13, rtol=0)
    # offsets are kept in float32
    torch.testing.assert_close(found, decoder.reference(x, Pixels.whole(target)), atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_formula_against_one_written_anew():
    """Output pixel i of m reads the pixel floor(i n / m) of n, a third of them in the original's order."""
    for original in (False, True):
        decoder, x, (h, w), (rows, cols) = build(original=original), features(5, 6), (5, 6), (12, 20)
        around = F.pad(x, (1, 1, 1, 1))
        expected = torch.empty(2, rows, cols, 3, dtype=torch.float64)
        for i in range(rows):
            for j in range(cols):
                (y, dy), (col, dx) = divmod(Fraction(i * h, rows), 1), divmod(Fraction(j * w, cols), 1)
                given = [h / rows, dy, dx] if original else [dy, dx, h / rows]
                weights = decoder.imnet(torch.tensor([float(v) for v in given], dtype=torch.float64))
                seen = around[:, :, y : y + 3, col : col + 3].flatten(1)
                expected[:, i, j] = seen @ weights.view(-1, 3)
        found = decoder.reference(x, Pixels.whole((rows, cols)))
        torch.testing.assert_close(found, expected.flatten(1, 2), atol=1e-13, rtol=0)


def test_corners_follow_from_whole_numbers():
    for n, m in ((100, 230), (101, 374), (4096, 11059)):
        lines = metasr.upper_left(Axis.whole(m), n)
        assert lines.corners[0].pixel == [i * n // m for i in range(m)]
        assert len(lines.offsets) == Axis.whole(m).phases(n) == m // math.gcd(n, m)
    # as the first authors compute them, they come out below a whole number
    floats = torch.arange(230).float().mul(1 / 2.3).floor().long().tolist()
    assert [i for i in range(230) if floats[i] != i * 100 // 230] == [69, 138]


def test_all_windows_and_tiles_at_a_scale_have_one_order():
    whole = Pixels.whole((250, 225))
    window, tile = Pixels.window(100, 90, (20, 30, 22, 31), 2.5), whole.rows.within(100, 8, 80)
    assert [axis.phases(n) for axis, n in zip((*whole, *window), (100, 90) * 2, strict=True)] == [5] * 4
    assert tile.phases(72) == 5


def test_every_parameter_learns_and_the_size_is_the_papers():
    decoder, x = build(), features(4, 5)
    few = Coords(torch.rand(2, 9, 2, dtype=torch.float64) * 2 - 1, torch.full((2, 2), 0.1))
    for given in (few, listed(4, 5, (9, 11)), Pixels.whole((9, 11)), Pixels.whole((8, 10))):
        decoder.zero_grad()
        decoder.decode(decoder.prepare(x, x), given).square().sum().backward()
        assert all(p.grad.abs().max() > 0 for p in decoder.parameters())
    full = build_decoder("metasr", 64)
    assert sum(p.numel() for p in full.parameters()) == 445_120
    assert list(full.state_dict()) == [f"imnet.layers.{i}.{k}" for i in (0, 2) for k in ("weight", "bias")]


def test_the_originals_means_are_trained_layers():
    """Colours go through 255, ``sub_mean`` and ``add_mean``; at first these two undo each other."""
    config = ModelConfig(
        "x", {"name": "edsr", "blocks": 1, "channels": 8}, {"name": "metasr", "original": True}
    )
    model, image = SuperResolver(config), torch.rand(2, 3, 5, 6)
    shift = model.decoder.normalisation
    colors = shift.normalise(image).flatten(2).transpose(1, 2)
    torch.testing.assert_close(colors[0, 0], 255 * (image[0, :, 0, 0] - torch.tensor(metasr.MEAN)))
    torch.testing.assert_close(shift.restore(colors), image.flatten(2).transpose(1, 2))
    model(image, (9, 10)).sum().backward()
    assert all(p.grad.abs().max() > 0 for p in shift.parameters())
    shapes = {name: tuple(p.shape) for name, p in shift.named_parameters()}
    assert shapes["sub_mean.weight"] == shapes["add_mean.weight"] == (3, 3, 1, 1) and len(shapes) == 4
    with torch.no_grad():
        whole, half = model(image, (9, 10)), model.to(torch.bfloat16)(image, (9, 10))
    assert half.dtype == torch.float32 and (half - whole).abs().max() < 0.02 * (whole.max() - whole.min())


@torch.no_grad()
def test_the_formula_is_a_backend_and_triton_is_refused():
    model = SuperResolver(ModelConfig("x", {"name": "edsr", "blocks": 1, "channels": 8}, {"name": "metasr"}))
    image = torch.rand(2, 3, 9, 11)
    for size in ((27, 33), (23, 40)):
        model.backend = "auto"
        fast = model(image, size)
        model.backend = "reference"
        torch.testing.assert_close(model(image, size), fast, atol=1e-5, rtol=0)
    model.backend = "triton"
    with pytest.raises(ConfigError, match="'triton' cannot serve this model: MetaSR computes in PyTorch"):
        model.check_backend()


@torch.no_grad()
def test_long_lists_and_large_windows_go_in_parts(monkeypatch):
    decoder, x = build(), features(30, 26)
    where = Coords(torch.rand(2, 900, 2, dtype=torch.float64) * 2 - 1, torch.full((2, 2), 0.1))
    prepared = decoder.prepare(x, x)
    windows = [Pixels.whole((90, 78)), Pixels.whole((97, 83)), where]
    whole = [decoder.decode(prepared, given) for given in windows]
    for name, value in {"LIST_PART": 64, "BLOCK_SIDE": 8, "MOST_BLOCK": 20}.items():
        monkeypatch.setattr(predicted, name, value)
    for given, expected, count in zip(windows, whole, (5, 5, 29), strict=True):
        told = []
        torch.testing.assert_close(decoder.decode(prepared, given, progress=told.append), expected)
        assert told == sorted(told) and told[-1] == 1 and len(told) == count
