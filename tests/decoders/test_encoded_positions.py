"""UltraSR and IPE: LIIF whose MLP reads more of a position than its coordinates."""

import math

import pytest
import torch
import torch.nn.functional as F

from clit_zoo.decoders import build_decoder
from clit_zoo.geometry import Coords, Pixels, Raster, pixel_centres
from clit_zoo.zoo import registry

SIZES = [((5, 7), (5, 7)), ((6, 4), (15, 10)), ((1, 9), (4, 36)), ((1, 1), (5, 5)), ((4, 5), (33, 59))]
SETTINGS = [
    ("ultrasr", {}),
    ("ultrasr", {"feat_unfold": False, "cell_decode": False}),
    ("ultrasr", {"local_ensemble": False}),
    ("ipe", {}),
    ("ipe", {"local_ensemble": False}),
]


def build(name, **settings):
    torch.manual_seed(0)
    return build_decoder(name, 6, hidden_dims=[16, 12, 8], bands=4, **settings).double()


def features(h, w):
    return torch.randn(2, 6, h, w, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name, settings", SETTINGS)
@pytest.mark.parametrize("size, target", SIZES)
@torch.no_grad()
def test_hoisted_is_the_formula(size, target, name, settings):
    decoder, x = build(name, **settings), features(*size)
    where = Pixels.whole(target)
    prepared, expected = decoder.prepare(x, x), decoder.reference(x, where)
    torch.testing.assert_close(decoder.decode(prepared, where), expected, atol=1e-12, rtol=0)
    y, x_ = (pixel_centres(n) for n in target)
    coords = torch.stack(torch.meshgrid(y, x_, indexing="ij"), -1).view(1, -1, 2).expand(2, -1, -1)
    cell = torch.tensor([[2 / target[0], 2 / target[1]]], dtype=torch.float64).expand(2, 2)
    listed = decoder.decode(prepared, Coords(coords, cell))
    torch.testing.assert_close(listed, expected, atol=1e-5, rtol=0)  # offsets are kept in float32


def ultrasr_numbers(delta, half):
    waves = [2 ** (6 * i / 3) for i in range(4)]
    return torch.stack([delta, *((w * delta).sin() for w in waves), *((w * delta).cos() for w in waves)], -1)


def ipe_numbers(delta, half):
    """The means by sums over the pixel, at 2,001 positions."""
    inside = delta.unsqueeze(-1) + half * torch.linspace(-1, 1, 2002, dtype=torch.float64)[:-1] + half / 2001
    means = [fn(2.0**i * inside).mean(-1) for fn in (torch.sin, torch.cos) for i in range(4)]
    return torch.stack([delta, *means], -1)


@pytest.mark.parametrize("name, numbers", [("ultrasr", ultrasr_numbers), ("ipe", ipe_numbers)])
@torch.no_grad()
def test_the_formula_at_one_position(name, numbers):
    """Pixel (7, 5) of 5x6 enlarged to 20x12: between rows 1 and 2 and in column 2, written out."""
    decoder, x = build(name), features(5, 6)
    unfolded = F.unfold(x, 3, padding=1).view(2, 54, 5, 6)
    position, cell = ((2 * 7 + 1) / 4 - 1) / 2, (2 / 4, 2 / 2)
    across = ((2 * 5 + 1) / 2 - 1) / 2
    total = 0
    for row in (1, 2):
        for col in (2, 3):
            delta = [torch.tensor(2 * d, dtype=torch.float64) for d in (position - row, across - col)]
            given = torch.cat([numbers(d, c / 2) for d, c in zip(delta, cell, strict=True)]).expand(2, -1)
            value = torch.cat((unfolded[:, :, row, col], given), -1)
            if name == "ultrasr":
                value = torch.cat((value, torch.tensor(cell, dtype=torch.float64).expand(2, 2)), -1)
            layers = decoder.imnet.linears()
            for i, layer in enumerate(layers):
                if i and name == "ultrasr":
                    value = torch.cat((value, given), -1)
                value = layer(value) if layer is layers[-1] else layer(value).relu()
            weight = (1 - abs(position - row)) * (1 - abs(across - col))
            total = total + weight * value
    out = decoder.decode(decoder.prepare(x, x), Pixels.whole((20, 12))).unflatten(1, (20, 12))
    torch.testing.assert_close(out[:, 7, 5], total, atol=1e-6, rtol=0)


@torch.no_grad()
def test_small_pixels_have_the_waves_themselves():
    decoder, delta = build("ipe"), torch.linspace(-2, 2, 9, dtype=torch.float64)
    found = decoder.encode(delta, torch.tensor([1e-6], dtype=torch.float64))
    waves = [fn(2**i * delta) for fn in (torch.sin, torch.cos) for i in range(4)]
    torch.testing.assert_close(found, torch.stack([delta, *waves], -1))
    coarse = decoder.encode(delta, torch.tensor([2 * math.pi], dtype=torch.float64))
    assert coarse[:, 1:].abs().max() < 1e-12, "a pixel of a whole period has a mean of zero"


@pytest.mark.parametrize("name, count", [("ultrasr", 397_721), ("ipe", 356_611)])
def test_every_parameter_learns(name, count):
    decoder, x = build(name), features(4, 5)
    cell = torch.full((2, 2), 0.1)
    given = (
        Coords(torch.rand(2, 9, 2, dtype=torch.float64) * 2 - 1, cell),
        Raster(torch.rand(2, 1, 4, 5, 2) - 0.5, cell),
        Pixels.whole((9, 11)),
    )
    for where in given:
        decoder.zero_grad()
        decoder.decode(decoder.prepare(x, x), where).square().sum().backward()
        assert all(p.grad.abs().max() > 0 for p in decoder.parameters())
    assert sum(p.numel() for p in build_decoder(name, 64).parameters()) == count


def test_wherever_the_name_appears_it_is_called_reconstructed():
    rows = [registry.get(name) for name in registry.list_models() if name.endswith(("-ultrasr", "-ipe"))]
    assert len(rows) == 6
    for entry in rows:
        assert "reconstructed" in entry.summary and "reconstructed" in entry.config.papers[1]
