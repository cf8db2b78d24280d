"""LIT's variants: the hoisted order is the authors' formula, in every setting of the ablation tables."""

import math

import pytest
import torch
import torch.nn.functional as F

from clit_zoo.decoders import build_decoder, lit, waves
from clit_zoo.geometry import Coords, Pixels, Raster, pixel_centres, raster_coords
from clit_zoo.model import SuperResolver
from clit_zoo.zoo.config import ModelConfig

SIZES = [((5, 7), (5, 7)), ((1, 9), (4, 36)), ((1, 1), (5, 5)), ((4, 5), (17, 29)), ((6, 3), (18, 15))]
SETTINGS = {
    "G 3x3": {},
    "G 5x5": {"radius": 2},
    "+e": {"local_ensemble": True},
    "-c": {"cell_decode": False},
    "-a": {"radius": 0},
    "-a +e": {"radius": 0, "local_ensemble": True},
    "without the branch": {"freq_dims": 0},
}
SMALL = {"dim": 8, "heads": 2, "radius": 1, "freq_dims": 8, "hidden_dims": [12, 10]}


def build(**settings):
    torch.manual_seed(0)
    return build_decoder("lit", 6, **SMALL | settings).double().eval()


def features(h, w):
    return torch.randn(2, 6, h, w, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def listed(size):
    y, x = (pixel_centres(n) for n in size)
    coords = torch.stack(torch.meshgrid(y, x, indexing="ij"), -1).view(1, -1, 2).expand(2, -1, -1)
    return Coords(coords, torch.tensor([[2 / n for n in size]], dtype=torch.float64).expand(2, 2))


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("size, target", SIZES)
@torch.no_grad()
def test_hoisted_is_the_formula(size, target, setting, monkeypatch):
    decoder, x, where = build(**SETTINGS[setting]), features(*size), Pixels.whole(target)
    image = torch.zeros(2, 3, *size, dtype=torch.float64)  # whose interpolation is float32's in one of them
    prepared, expected = decoder.prepare(x, image), decoder.reference(x, image, where)
    torch.testing.assert_close(decoder.decode(prepared, where), expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(decoder.decode(prepared, listed(target)), expected, atol=1e-6, rtol=0)
    monkeypatch.setattr(lit, "BLOCK", 64)
    monkeypatch.setattr(lit, "POINTS", 7)
    monkeypatch.setattr(waves, "PIXELS", 2)
    told = []
    parts = decoder.decode(prepared, listed(target), progress=told.append)
    torch.testing.assert_close(parts, expected, atol=1e-6, rtol=0)
    assert told == sorted(told) and told[-1] == 1
    torch.testing.assert_close(decoder.decode(prepared, where), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("corners", [False, True])
@torch.no_grad()
def test_the_formula_against_one_written_from_the_paper(corners):
    """By grid_sample, position by position; a scale a/b with even a has no ambiguous position."""
    decoder, (h, w), target = build(local_ensemble=corners), (4, 6), (16, 20)
    x, w_ = features(h, w), decoder.state_dict()
    q, k, v, freq = (
        F.conv2d(x, w_[f"conv_{name}.weight"], w_[f"conv_{name}.bias"], padding=1)
        for name in ("q", "k", "v", "freq")
    )
    size, at = torch.tensor([h, w], dtype=torch.float64), listed(target).coords.unsqueeze(2)

    def sample(x, at, mode):
        return F.grid_sample(x, at.flip(-1), mode, align_corners=False).permute(0, 2, 3, 1)

    centres = torch.stack(torch.meshgrid(pixel_centres(h), pixel_centres(w), indexing="ij"))
    taps = torch.stack(torch.meshgrid(*[torch.arange(-1.0, 2)] * 2, indexing="ij"), -1).view(9, 2) * 2 / size
    wave = 2 ** torch.linspace(0, 10, 2, dtype=torch.float32).double() - 1
    bands = 2 ** torch.linspace(0, 10, 16, dtype=torch.float32).double() - 1
    colors, areas = [], []
    for shift in [(-1, -1), (-1, 1), (1, -1), (1, 1)] if corners else [(0, 0)]:
        moved = at + torch.tensor(shift) / size + 1e-6 * corners
        moved = moved.clamp(-1 + 1e-6, 1 - 1e-6)
        middle = sample(centres.expand(2, -1, -1, -1), moved, "nearest")
        areas.append(((at - middle) * size).prod(-1).abs() + 1e-9)
        around = middle + taps
        delta = (at - around) * size
        query = sample(q, moved, "nearest" if corners else "bilinear").unflatten(-1, (2, 4))
        keys, values = (sample(m, around, "nearest").unflatten(-1, (2, 4)) for m in (k, v))
        angles = (delta.unsqueeze(-1) * bands).flatten(-2)
        bias = F.linear(torch.cat((angles.sin(), angles.cos()), -1), w_["pb_encoder.proj.weight"])
        logits = (query * keys).sum(-1) / 2 + bias + w_["pb_encoder.proj.bias"]
        scaled = (values * logits.softmax(2).unsqueeze(-1)).flatten(3)
        window = sample(freq, around, "nearest").unflatten(2, (3, 3))
        # the transform as sums of waves over the window
        unit = torch.exp(-2j * math.pi * torch.arange(3).view(3, 1) * torch.arange(3) / 3).to(
            torch.complex128
        )
        found = torch.einsum("ay,bx,nqyxe->nqabe", unit, unit, window.to(unit.dtype)).flatten(2, 3) / 3
        turned = found * torch.exp(1j * (delta.unsqueeze(-1) * wave).flatten(-2))
        pairs = torch.stack((turned.real, turned.imag), -1).flatten(-2)
        cell = (torch.tensor([2 / n for n in target], dtype=torch.float64) * size).expand(2, at.shape[1], 2)
        colors.append(decoder.imnet(torch.cat((torch.cat((scaled, pairs), -1).flatten(2), cell), -1)))
    expected = sum(c * a for c, a in zip(colors, reversed(areas), strict=True)) / sum(areas)
    image = torch.zeros(2, 3, h, w, dtype=torch.float64)
    found = decoder.reference(x, image, Pixels.whole(target))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)  # offsets are kept in float32


@torch.no_grad()
def test_the_last_pixels_centre_keeps_its_interpolation():
    """At odd scales the authors' four areas all fall to 1e-9 there; positions beside it tell the limit."""
    decoder, x = build(local_ensemble=True), features(6, 6)
    with torch.no_grad():  # without the high frequencies, whose waves are 6e-4 pixels long
        decoder.conv_freq.weight.zero_(), decoder.pb_encoder.proj.weight.zero_()
        decoder.conv_freq.bias.zero_()
    row, eps = (2 * 5 + 1) / 6 - 1, 1e-4
    coords = torch.tensor([[[row, 0.1], [row - eps, 0.1], [row + eps, 0.1]]], dtype=torch.float64)
    prepared = decoder.prepare(x[:1], torch.zeros(1, 3, 6, 6, dtype=torch.float64))
    at, before, after = decoder.decode(prepared, Coords(coords, torch.ones(1, 2, dtype=torch.float64)))[0]
    # at 0 the two columns count alike, as the plain mean of the corners has them everywhere
    mean = decoder.decode(prepared, Coords(coords[:, :1] - torch.tensor([0, 0.1]), torch.ones(1, 2).double()))
    wrong = (mean[0, 0] - at).abs().max()
    assert wrong > 1e-4 and max((at - before).abs().max(), (at - after).abs().max()) < 0.05 * wrong
    # of a whole picture, where that is row and column 16 of 18
    whole = decoder.decode(prepared, Pixels.whole((18, 18))).unflatten(1, (18, 18))
    image = torch.zeros(1, 3, 6, 6, dtype=torch.float64)
    literal = decoder.reference(x[:1], image, Pixels.whole((18, 18))).unflatten(1, (18, 18))
    torch.testing.assert_close(whole[:, 16], literal[:, 16], atol=1e-12, rtol=0)


@pytest.mark.parametrize("setting", SETTINGS)
def test_it_trains_on_every_kind_of_position(setting):
    cell = torch.tensor([[0.1, 0.2], [0.05, 0.1]], dtype=torch.float64)
    raster = Raster(torch.rand(2, 1, 4, 5, 2, generator=torch.Generator().manual_seed(1)) - 0.5, cell)
    x, image = features(4, 5), torch.zeros(2, 3, 4, 5, dtype=torch.float64)
    found, grads = [], []
    for where in (raster, Coords(raster_coords(raster.offset), cell), Pixels.whole((9, 11))):
        decoder = build(**SETTINGS[setting])
        out = decoder.decode(decoder.prepare(x, image), where)
        out.square().sum().backward()
        found.append(out.detach())
        grads.append([p.grad for p in decoder.parameters()])
    torch.testing.assert_close(*found[:2], atol=1e-5, rtol=0)
    for (name, _), a, b, c in zip(decoder.named_parameters(), *grads, strict=True):
        # the projection's bias adds the same to all taps' logits
        assert (a.abs().max() > 0 and c.abs().max() > 0) or name == "pb_encoder.proj.bias", name
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3 * float(b.abs().max()) + 1e-9)


# the whole op behind autograd's tracer is tried with CLIT: test_compiled.py
@pytest.mark.parametrize("backend", ["eager", pytest.param("aot_eager", marks=pytest.mark.slow)])
@pytest.mark.parametrize("setting", ["G 3x3", "+e"])
@torch.no_grad()
def test_it_compiles_and_exports(setting, backend):
    torch._dynamo.reset()  # it gives up on a function that other tests had compiled often
    config = ModelConfig(
        "x", {"name": "edsr", "blocks": 1, "channels": 8}, {"name": "lit", **SMALL | SETTINGS[setting]}
    )
    model, image = SuperResolver(config).eval(), torch.rand(2, 3, 7, 5)
    wanted = model(image, (18, 13))
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    torch.testing.assert_close(compiled(image, (18, 13)), wanted, atol=1e-5, rtol=0)
    where = listed((3, 4))
    query = torch.compile(model.query, fullgraph=True, backend=backend)
    given = image, where.coords.float(), where.cell.float()
    torch.testing.assert_close(query(*given), model.query(*given), atol=1e-5, rtol=0)
    program = torch.export.export(model, (image, (18, 13)))
    other = torch.rand(2, 3, 7, 5)
    torch.testing.assert_close(program.module()(other, (18, 13)), model(other, (18, 13)), atol=1e-5, rtol=0)


@torch.no_grad()
def test_attention_is_a_share_for_each_pixel():
    for settings in ({}, {"local_ensemble": True}, {"radius": 0}):
        decoder = build(**settings)
        (weights,) = decoder.attention(decoder.prepare(features(5, 7), None), listed((3, 4)))
        assert weights.shape == (2, 12, 2, *[2 * decoder.radius + 1] * 2)
        torch.testing.assert_close(weights.sum((-1, -2)), torch.ones(2, 12, 2, dtype=torch.float64))


def test_parameter_names_are_those_of_the_authors():
    found = {name: tuple(t.shape) for name, t in build_decoder("lit", 64).state_dict().items()}
    convs = {f"conv_{name}.weight": (256, 64, 3, 3) for name in "qkv"} | {"conv_freq.weight": (32, 64, 3, 3)}
    assert found.items() >= convs.items() and "conv_ch.weight" not in found
    assert found["imnet.layers.0.weight"] == (256, 49 * (256 + 64) + 2)
    assert found["pb_encoder.proj.weight"] == (8, 64)
    without = build_decoder("lit", 64, radius=0, freq_dims=0, cell_decode=False).state_dict()
    assert [name for name in without if "imnet" not in name] == ["conv_v.weight", "conv_v.bias"]
    assert without["imnet.layers.0.weight"].shape == (256, 256)
