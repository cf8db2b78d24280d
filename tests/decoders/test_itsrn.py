"""ITSRN: both orders of the sums are the formula, and its corners are the whole picture's."""

from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F

from clit_zoo.axis import Axis
from clit_zoo.decoders import build_decoder, predicted
from clit_zoo.decoders.itsrn import itsrn_corners
from clit_zoo.geometry import Coords, Frame, Pixels, pixel_centres

SIZES = [
    ((5, 7), (5, 7)),
    ((6, 4), (15, 10)),
    ((1, 9), (4, 36)),
    ((1, 1), (5, 5)),
    ((2, 2), (16, 14)),
    ((101, 3), (374, 9)),
    ((50, 55), (90, 121)),
]
ORDERS = {"by phase": (1 << 30, 0.001), "by pixel": (0, 1)}


def build():
    torch.manual_seed(0)
    return build_decoder("itsrn", 6, hidden_dims=[16, 12], merge_dim=10).double()


def features(h, w):
    return torch.randn(2, 6, h, w, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def listed(target):
    """The pixels of an output as a list, and their cell."""
    y, x = (pixel_centres(n) for n in target)
    coords = torch.stack(torch.meshgrid(y, x, indexing="ij"), -1).view(1, -1, 2).expand(2, -1, -1)
    return Coords(coords, torch.tensor([[2 / target[0], 2 / target[1]]], dtype=torch.float64).expand(2, 2))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("size, target", SIZES)
@torch.no_grad()
def test_every_order_is_the_formula(size, target, order, monkeypatch):
    monkeypatch.setattr(predicted, "MOST_PHASES", ORDERS[order][0])
    monkeypatch.setattr(predicted, "PIXELS_A_PHASE", ORDERS[order][1])
    decoder, x, where = build(), features(*size), Pixels.whole(target)
    expected = decoder.reference(x, where)
    found = decoder.decode(decoder.prepare(x, x), where)
    torch.testing.assert_close(found, expected, atol=1e-13, rtol=0)


@pytest.mark.parametrize("most", [0, 1 << 16], ids=["for each position", "for each pixel"])
@pytest.mark.parametrize("size, target", SIZES)
@torch.no_grad()
def test_lists_are_the_formula(size, target, most, monkeypatch):
    monkeypatch.setattr(predicted, "MOST_LOOKED_UP", most)
    decoder, x, where = build(), features(*size), listed(target)
    found = decoder.decode(decoder.prepare(x, x), where)
    torch.testing.assert_close(found, decoder.reference(x, where), atol=1e-13, rtol=0)
    # offsets are kept in float32
    torch.testing.assert_close(found, decoder.reference(x, Pixels.whole(target)), atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_formula_against_one_written_from_the_paper():
    """By grid_sample, position by position; a scale a/b with even a has no ambiguous position."""
    decoder, x, (h, w), target = build(), features(5, 6), (5, 6), (20, 16)
    unfolded = F.unfold(x, 3, padding=1).view(2, 54, h, w)
    coords, shape = listed(target).coords, torch.tensor([h, w], dtype=torch.float64)
    centres = torch.stack(torch.meshgrid(pixel_centres(h), pixel_centres(w), indexing="ij"))
    share = 1 / torch.tensor(target, dtype=torch.float64)
    values = []
    for sides in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
        shift = torch.tensor(sides) * (1 - share) / (shape - 1) + 1e-6
        moved = (coords + shift).clamp(-1 + 1e-6, 1 - 1e-6).flip(-1).unsqueeze(1)
        read, at = (
            F.grid_sample(m, moved, "nearest", align_corners=False)[:, :, 0].transpose(1, 2)
            for m in (unfolded, centres.expand(2, -1, -1, -1))
        )
        delta = (coords - at) * shape
        weights = decoder.imnet(torch.cat((delta, (share * shape).expand_as(delta)), -1))
        value = (read.unsqueeze(-2) @ weights.unflatten(-1, (-1, 3))).squeeze(-2)
        values.append(value + decoder.Score(delta))
    expected = decoder.Weight(torch.stack(values, -1)).squeeze(-1)
    found = decoder.reference(x, Pixels.whole(target))
    torch.testing.assert_close(found, expected, atol=1e-13, rtol=0)


@pytest.mark.parametrize("n, m", [(1, 5), (2, 9), (48, 192), (101, 374), (37, 37)])
def test_corners_are_found_in_whole_numbers(n, m):
    lines = itsrn_corners(Axis.whole(m), n, n)
    reach = (n - Fraction(n, m)) / (2 * max(n - 1, 1))
    for line, sign in zip(lines.corners, (-1, 1), strict=True):
        for i in range(m):
            position = Fraction((2 * i + 1) * n - m, 2 * m)
            nearest = (position + sign * reach + Fraction(n, 2_000_000) + Fraction(1, 2)).__floor__()
            pixel = min(max(nearest, 0), n - 1)
            assert line.pixel[i] == pixel
            assert lines.offsets[line.phase[i]] == float(2 * (position - pixel))
    # clamped corners have offsets of their own
    assert len(lines.offsets) > m // 48 and max(map(abs, lines.offsets)) <= 3


@torch.no_grad()
def test_a_parts_corners_are_the_whole_pictures():
    """At x12, 9 rows and 90 have other corners: alone, the part would not give the picture's colours."""
    decoder, x, whole = build(), features(90, 5), Pixels.whole((1080, 20))
    expected = decoder.decode(decoder.prepare(x, x), whole).unflatten(1, (1080, 20))[:, 120:168]
    part = Pixels(whole.rows.part(120, 168).within(90, 8, 17), whole.cols)
    given = x[:, :, 8:17]
    found = decoder.decode(decoder.prepare(given, given, Frame(8, 0, (90, 5))), part).unflatten(1, (48, 20))
    torch.testing.assert_close(found, expected, atol=1e-13, rtol=0)
    alone = decoder.decode(decoder.prepare(given, given), part).unflatten(1, (48, 20))
    assert (alone - expected).abs().max() > 1e-3


def test_every_parameter_learns_and_names_are_the_authors():
    decoder, x = build(), features(4, 5)
    few = Coords(torch.rand(2, 9, 2, dtype=torch.float64) * 2 - 1, torch.full((2, 2), 0.1))
    for given in (few, listed((9, 11)), Pixels.whole((9, 11)), Pixels.whole((8, 10))):
        decoder.zero_grad()
        decoder.decode(decoder.prepare(x, x), given).square().sum().backward()
        assert all(p.grad.abs().max() > 0 for p in decoder.parameters())
    full = build_decoder("itsrn", 64)
    assert sum(p.numel() for p in full.parameters()) == 645_314
    layers = {"imnet": (0, 2, 4, 6, 8), "Weight": (0, 2), "Score": (0, 2)}
    names = {f"{m}.layers.{i}.{k}" for m, at in layers.items() for i in at for k in ("weight", "bias")}
    assert set(full.state_dict()) == names
