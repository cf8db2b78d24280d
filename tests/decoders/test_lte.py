"""LTE is the authors' formula."""

import math

import pytest
import torch
import torch.nn.functional as F

from clit_zoo.decoders import build_decoder
from clit_zoo.errors import ConfigError
from clit_zoo.geometry import Coords, Pixels, Raster, pixel_centres
from clit_zoo.zoo.config import ModelConfig


def build(**settings):
    torch.manual_seed(0)
    decoder = build_decoder("lte", 6, dim=16, hidden_dims=[16, 16], **settings).double()
    with torch.no_grad():
        for p in (*decoder.freq.parameters(), *decoder.phase.parameters()):
            p.mul_(8)  # many waves to a pixel
    return decoder


def maps(h, w):
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randn(2, c, h, w, dtype=torch.float64, generator=generator) for c in (6, 3))


def centres(size):
    y, x = (pixel_centres(n) for n in size)
    return torch.stack(torch.meshgrid(y, x, indexing="ij"), -1).view(1, -1, 2).expand(2, -1, -1)


def formula(decoder, features, image, coords, cell):
    """As the authors write it, by grid_sample and areas: coords (2, Q, 2), cell (2,) of the output."""
    size = torch.tensor(features.shape[-2:], dtype=torch.float64)
    amplitudes, frequencies = decoder.coef(features), decoder.freq(features)
    grid = centres(size.long().tolist()).transpose(1, 2).unflatten(2, features.shape[-2:])
    colors, areas = [], []
    for vy in (-1, 1):
        for vx in (-1, 1):
            moved = coords + torch.tensor([vy, vx]) / size + 1e-6
            moved = moved.clamp(-1 + 1e-6, 1 - 1e-6).flip(-1).unsqueeze(1)
            a, f, at = (
                F.grid_sample(m, moved, "nearest", align_corners=False)[:, :, 0].transpose(1, 2)
                for m in (amplitudes, frequencies, grid)
            )
            delta = (coords - at) * size
            f = f.unflatten(-1, (2, -1)) if decoder.plus else f.unflatten(-1, (-1, 2)).transpose(-1, -2)
            angle = math.pi * ((f * delta.unsqueeze(-1)).sum(-2) + decoder.phase(cell * size))
            seen = a * torch.cat((angle.cos(), angle.sin()), -1)
            if decoder.plus:
                colors.append(decoder.layers(seen.transpose(1, 2).unsqueeze(-1)).squeeze(-1).transpose(1, 2))
            else:
                colors.append(decoder.imnet(seen))
            areas.append(delta.prod(-1).abs() + 1e-9)
    total = sum(areas)
    blended = sum(c * (a / total).unsqueeze(-1) for c, a in zip(colors, reversed(areas), strict=True))
    skip = F.grid_sample(image, coords.flip(-1).unsqueeze(1), padding_mode="border", align_corners=False)
    return blended + skip[:, :, 0].transpose(1, 2)


@pytest.mark.parametrize("plus", [False, True])
@pytest.mark.parametrize(
    "size, target",
    [((5, 6), (20, 16)), ((1, 5), (4, 14)), ((1, 1), (6, 6)), ((4, 4), (48, 32)), ((40, 60), (100, 150))],
)
@torch.no_grad()
def test_the_formula_against_the_authors_way(size, target, plus):
    """A scale a/b with even a has no ambiguous position. Above x4 their scripts enlarge the cell."""
    decoder, (x, image) = build(plus=plus), maps(*size)
    cell = torch.tensor([2 / m * max(m / n / 4, 1) for n, m in zip(size, target)], dtype=torch.float64)
    found = decoder.decode(decoder.prepare(x, image), Pixels.whole(target))
    expected = formula(decoder, x, image, centres(target), cell)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)  # offsets are kept in float32
    listed = torch.tensor([[2 / target[0], 2 / target[1]]], dtype=torch.float64).expand(2, 2)
    found = decoder.decode(decoder.prepare(x, image), Coords(centres(target), listed))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_cell_is_clipped_where_asked():
    where, (x, image) = Pixels.whole((60, 60)), maps(5, 5)
    clipped, free, wide = (
        decoder.decode(decoder.prepare(x, image), where)
        for decoder in (build(), build(max_scale_cell=1000.0), build(max_scale_cell=12.0))
    )
    assert torch.equal(free, wide) and (free - clipped).abs().max() > 0.01
    expected = formula(build(), x, image, centres((60, 60)), torch.tensor([2 / 60, 2 / 60]).double())
    torch.testing.assert_close(free, expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_last_pixels_centre_keeps_its_interpolation():
    """At odd scales the authors' four areas all fall to 1e-9 there; positions beside it tell the limit."""
    decoder, (x, image) = build(), maps(6, 6)
    row, eps = (2 * 5 + 1) / 6 - 1, 1e-6
    coords = torch.tensor([[row + d, 0.1] for d in (0, -eps, eps)], dtype=torch.float64).expand(2, -1, -1)
    cell = torch.ones(2, 2, dtype=torch.float64)
    at, before, after = decoder.decode(decoder.prepare(x, image), Coords(coords, cell)).unbind(1)
    assert (at - before).abs().max() < 1e-3 and (at - after).abs().max() < 1e-3


@pytest.mark.parametrize("plus", [False, True])
def test_every_parameter_learns_and_names_are_the_authors(plus):
    decoder, (x, image) = build(plus=plus), maps(4, 5)
    cell = torch.full((2, 2), 0.1)
    given = (
        Coords(torch.rand(2, 9, 2, dtype=torch.float64) * 2 - 1, cell),
        Raster(torch.rand(2, 1, 4, 5, 2) - 0.5, cell),
        Pixels.whole((9, 11)),
    )
    for where in given:
        decoder.zero_grad()
        decoder.decode(decoder.prepare(x, image), where).square().sum().backward()
        assert all(p.grad.abs().max() > 0 for p in decoder.parameters())
    full = build_decoder("lte", 64, plus=plus).state_dict()
    assert sum(p.numel() for p in full.values()) == 493_827
    prefix = "layers" if plus else "imnet.layers"
    names = ["coef", "freq", *(f"{prefix}.{i}" for i in (0, 2, 4, 6))]
    assert set(full) == {f"{n}.{k}" for n in names for k in ("weight", "bias")} | {"phase.weight"}


@torch.no_grad()
def test_angles_are_not_rounded_to_half_precision():
    """Neither in a model of bfloat16 nor under autocast: hundreds of radians would be off by a radian."""
    decoder, (x, image) = build().float(), (m.float() for m in maps(5, 6))
    truth = decoder.prepare(x, image).frequencies
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(decoder.prepare(x, image).frequencies, truth)
    half = decoder.bfloat16().prepare(x.bfloat16(), image)
    assert half.frequencies.dtype == torch.float32 and half.amplitudes.dtype == torch.bfloat16


def test_a_wave_is_a_cosine_and_a_sine():
    with pytest.raises(ConfigError, match=r"decoder\.dim is 15; allowed is a multiple of 2"):
        ModelConfig("x", {"name": "edsr"}, {"name": "lte", "dim": 15})
