"""LIIF: the hoisted order is the paper's formula, with its limit where the authors' weights break down."""

import pytest
import torch
import torch.nn.functional as F

from clit_zoo.decoders import build_decoder, positions
from clit_zoo.geometry import Coords, Pixels, pixel_centres

SIZES = [
    ((5, 7), (5, 7)),
    ((6, 4), (15, 10)),
    ((1, 9), (4, 36)),
    ((1, 1), (5, 5)),
    ((4, 5), (33, 59)),
    ((6, 6), (18, 30)),
]
SETTINGS = {
    "": {},
    "-u": {"feat_unfold": False},
    "-e": {"local_ensemble": False},
    "-c": {"cell_decode": False},
}


def build(**settings):
    torch.manual_seed(0)
    return build_decoder("liif", 6, hidden_dims=[16, 12, 8], **settings).double()


def features(h, w):
    return torch.randn(2, 6, h, w, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("size, target", SIZES)
@torch.no_grad()
def test_hoisted_is_the_formula(size, target, setting):
    decoder, x = build(**SETTINGS[setting]), features(*size)
    where = Pixels.whole(target)
    prepared, expected = decoder.prepare(x, x), decoder.reference(x, where)
    torch.testing.assert_close(decoder.decode(prepared, where), expected, atol=1e-13, rtol=0)
    y, x_ = (pixel_centres(n) for n in target)
    coords = torch.stack(torch.meshgrid(y, x_, indexing="ij"), -1).view(1, -1, 2).expand(2, -1, -1)
    cell = torch.tensor([[2 / target[0], 2 / target[1]]], dtype=torch.float64).expand(2, 2)
    listed = decoder.decode(prepared, Coords(coords, cell))
    torch.testing.assert_close(listed, expected, atol=1e-5, rtol=0)  # offsets are kept in float32


@torch.no_grad()
def test_the_formula_against_one_written_from_the_paper():
    """By grid_sample and areas, position by position; a scale a/b with even a has no ambiguous position."""
    decoder, x, (h, w), target = build(), features(5, 6), (5, 6), (20, 16)
    unfolded = F.unfold(x, 3, padding=1).view(2, 54, h, w)
    y, x_ = (pixel_centres(n) for n in target)
    coords = torch.stack(torch.meshgrid(y, x_, indexing="ij"), -1).view(1, -1, 2).expand(2, -1, -1)
    centres = torch.stack(torch.meshgrid(pixel_centres(h), pixel_centres(w), indexing="ij"))
    size = torch.tensor([h, w], dtype=torch.float64)
    colors, areas = [], []
    for vy in (-1, 1):
        for vx in (-1, 1):
            shift = torch.tensor([vy / h, vx / w], dtype=torch.float64) + 1e-6
            moved = (coords + shift).clamp(-1 + 1e-6, 1 - 1e-6).flip(-1).unsqueeze(1)
            read, at = (
                F.grid_sample(m, moved, "nearest", align_corners=False)[:, :, 0].transpose(1, 2)
                for m in (unfolded, centres.expand(2, -1, -1, -1))
            )
            delta = (coords - at) * size
            cell = (torch.tensor([2 / target[0], 2 / target[1]]) * size).expand_as(delta)
            colors.append(decoder.imnet(torch.cat((read, delta, cell), -1)))
            areas.append(delta.prod(-1).abs() + 1e-9)
    total = sum(areas)
    expected = sum(c * (a / total).unsqueeze(-1) for c, a in zip(colors, reversed(areas), strict=True))
    found = decoder.decode(decoder.prepare(x, x), Pixels.whole(target))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@torch.no_grad()
def test_the_last_pixels_centre_keeps_its_interpolation():
    """At odd scales the authors' four areas all fall to 1e-9 there; positions beside it tell the limit."""
    decoder, x = build(cell_decode=False), features(6, 6)
    row, eps = (2 * 5 + 1) / 6 - 1, 1e-4
    coords = torch.tensor([[[row, 0.1], [row - eps, 0.1], [row + eps, 0.1]]], dtype=torch.float64)
    at, before, after = decoder.decode(
        decoder.prepare(x[:1], x), Coords(coords, torch.ones(1, 2, dtype=torch.float64))
    )[0]
    assert (at - before).abs().max() < 1e-3 and (at - after).abs().max() < 1e-3


def test_every_parameter_learns_and_names_are_the_authors():
    decoder, x = build(), features(4, 5)
    where = Coords(torch.rand(2, 9, 2, dtype=torch.float64) * 2 - 1, torch.full((2, 2), 0.1))
    for given in (where, Pixels.whole((9, 11))):
        decoder.zero_grad()
        decoder.decode(decoder.prepare(x, x), given).square().sum().backward()
        assert all(p.grad.abs().max() > 0 for p in decoder.parameters())
    full = build_decoder("liif", 64)
    assert sum(p.numel() for p in full.parameters()) == 346_883
    assert list(full.state_dict()) == [
        f"imnet.layers.{i}.{k}" for i in (0, 2, 4, 6, 8) for k in ("weight", "bias")
    ]


@torch.no_grad()
def test_long_lists_of_positions_go_in_parts(monkeypatch):
    decoder, x = build(), features(5, 6)
    where = Coords(torch.rand(2, 700, 2, dtype=torch.float64) * 2 - 1, torch.full((2, 2), 0.1))
    whole = decoder.decode(decoder.prepare(x, x), where)
    monkeypatch.setattr(positions, "BLOCK", 64)
    told = []
    parts = decoder.decode(decoder.prepare(x, x), where, progress=told.append)
    torch.testing.assert_close(parts, whole)
    assert told[-1] == 1 and len(told) == 22
