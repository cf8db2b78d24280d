"""MSIT: the formula anew from the paper; what its trunk sees; parameter names."""

import math

import pytest
import torch
import torch.nn.functional as F

from clit_zoo import tiles
from clit_zoo.decoders import build_decoder
from clit_zoo.decoders.msit import BatchNorm, fem
from clit_zoo.geometry import Coords, Pixels, Raster, pixel_centres, raster_coords
from clit_zoo.model import SuperResolver
from clit_zoo.zoo.config import ModelConfig

SIZES = [((5, 7), (5, 7)), ((1, 9), (4, 36)), ((1, 1), (5, 5)), ((4, 5), (33, 59)), ((3, 2), (36, 24))]
SMALL = {"dim": 16, "heads": 2, "radius": 1, "kernels": 4, "query_kernels": 2, "hidden_dims": [12, 10]}
NORMED = [f"amsno.{name}.bias" for name in ("sim0", *(f"Ms_conv_{i + 1}" for i in range(4)))]
NORMED += [f"multi_conv_qs.0.{name}.bias" for name in ("proj0", "proj1", "local_conv_1", "local_conv_2")]
"""Parameters without an effect while a norm takes the batch's own mean."""


def build(**settings):
    torch.manual_seed(0)
    decoder = build_decoder("msit", 6, **SMALL | settings).double().eval()
    with torch.no_grad():
        for module in decoder.modules():
            if isinstance(module, BatchNorm):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
        for name, p in decoder.named_parameters():
            if name.endswith("bias"):
                p.normal_()
    return decoder


def inputs(h, w):
    draw = torch.Generator().manual_seed(1)
    shapes = (2, 6, h, w), (2, 3, h, w)
    return tuple(torch.randn(shape, dtype=torch.float64, generator=draw) for shape in shapes)


def listed(size):
    y, x = (pixel_centres(n) for n in size)
    coords = torch.stack(torch.meshgrid(y, x, indexing="ij"), -1).view(1, -1, 2).expand(2, -1, -1)
    return Coords(coords, torch.tensor([[2 / n for n in size]], dtype=torch.float64).expand(2, 2))


@pytest.mark.parametrize("size, target", SIZES)
@torch.no_grad()
def test_hoisted_is_the_formula(size, target):
    decoder, where = build(), Pixels.whole(target)
    prepared = decoder.prepare(*inputs(*size))
    found = {}
    for backend in ("torch", "reference"):
        decoder.backend = backend
        found[backend] = decoder.decode(prepared, where)
    torch.testing.assert_close(found["torch"], found["reference"], atol=1e-12, rtol=0)
    torch.testing.assert_close(decoder.decode(prepared, listed(target)), found["torch"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("mixes", [True, False])
@torch.no_grad()
def test_the_formula_against_one_written_from_the_paper(mixes):
    """Position by position, with grid_sample; a scale a/b with even a has no ambiguous position."""
    decoder, (h, w), target = build(fem=mixes), (4, 6), (16, 20)
    x, image = inputs(h, w)
    w_ = decoder.state_dict()

    def conv(x, name, **how):
        return F.conv2d(x, w_[f"{name}.weight"], w_.get(f"{name}.bias"), **how)

    def norm(x, name):
        mean, var, weight, bias = (
            w_[f"{name}.{k}"].view(-1, 1, 1) for k in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    def shares(x, name, count):
        parts = x.chunk(count, 1)
        return torch.cat([conv(p, f"{name}_{i + 1}", padding=1 + i) for i, p in enumerate(parts)], 1)

    f = conv(x, "conv_ch")
    s = conv(f, "amsno.s")
    if mixes:
        mask = torch.zeros(16, 1, 3, 3, dtype=torch.float64)
        mask[0::4, 0, 1, 2] = mask[1::4, 0, 1, 0] = mask[2::4, 0, 2, 1] = mask[3::4, 0, 0, 1] = 1
        mask[4::8, 0, 0, 2] = mask[5::8, 0, 2, 0] = mask[6::8, 0, 2, 2] = mask[7::8, 0, 0, 0] = 1
        s = F.conv2d(F.pad(s, (1, 1, 1, 1), mode="circular"), mask, groups=16)
    s = F.gelu(norm(conv(shares(s, "amsno.Ms_conv", 4), "amsno.sim0", groups=4), "amsno.bn"))
    f = conv(conv(s, "amsno.sim1") * conv(f, "amsno.v"), "amsno.proj")
    name = "multi_conv_qs.0"
    q = shares(conv(f, f"{name}.proj0"), f"{name}.local_conv", 2)
    q = conv(F.gelu(norm(conv(q, f"{name}.proj1", groups=8), f"{name}.bn")), f"{name}.proj2")
    v = conv(f, "conv_vs.0", padding=1)

    size, coords = torch.tensor([h, w], dtype=torch.float64), listed(target).coords

    def sample(x, at, mode, **how):
        return F.grid_sample(x, at.flip(-1), mode, align_corners=False, **how).permute(0, 2, 3, 1)

    at = coords.unsqueeze(2)
    centres = torch.stack(torch.meshgrid(pixel_centres(h), pixel_centres(w), indexing="ij"))
    taps = torch.stack(torch.meshgrid(*[torch.arange(-1.0, 2)] * 2, indexing="ij"), -1).view(9, 2) * 2 / size
    around = sample(centres.expand(2, -1, -1, -1), at, "nearest") + taps
    delta = (at - around) * size
    query, keys, values = (
        sample(m, p, mode).unflatten(-1, (2, 8))
        for m, p, mode in ((q, at, "bilinear"), (q, around, "nearest"), (v, around, "nearest"))
    )
    bands = 2 ** torch.linspace(0, 10, 16, dtype=torch.float32).double() - 1
    angles = (delta.unsqueeze(-1) * bands).flatten(-2)
    bias = F.linear(torch.cat((angles.sin(), angles.cos()), -1), w_["pb_encoder.proj.weight"])
    logits = (query * keys).sum(-1) / math.sqrt(8) + bias + w_["pb_encoder.proj.bias"]
    scaled = values * logits.softmax(2).unsqueeze(-1)
    cell = (torch.tensor([2 / n for n in target], dtype=torch.float64) * size).expand(2, at.shape[1], 2)
    expected = decoder.imnets[0](torch.cat((scaled.flatten(2), cell), -1))
    expected += sample(image, at, "bilinear", padding_mode="border")[:, :, 0]
    found = decoder.decode(decoder.prepare(x, image), Pixels.whole(target))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)  # offsets are kept in float32


def test_fem_takes_from_beyond_the_border():
    x = torch.zeros(1, 16, 3, 4)
    x[..., 0, 0] = 1
    # right, left, below, above; then with the pixel beside that one, clockwise
    expected = [{(0, 3)}, {(0, 1)}, {(2, 0)}, {(1, 0)}]
    expected += [{(0, 3), (1, 3)}, {(0, 1), (2, 1)}, {(2, 0), (2, 3)}, {(1, 0), (1, 1)}]
    for channel, places in zip(fem(x)[0], expected * 2, strict=True):
        assert {tuple(place) for place in channel.nonzero().tolist()} == places


@torch.no_grad()
def test_the_trunk_in_strips_is_the_trunk():
    decoder = build().float()
    x, image = (t.float() for t in inputs(37, 11))
    strips = decoder.prepare(x, image)
    with torch.enable_grad():
        whole = decoder.prepare(x, image)
    for a, b in zip(strips, whole, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_picture_is_one_tile(monkeypatch):
    monkeypatch.setattr(tiles, "WHOLE_PIXELS", 100)
    monkeypatch.setattr(tiles, "TILE_SIDE", 10)
    config = ModelConfig("x", {"name": "edsr", "blocks": 1, "channels": 8}, {"name": "msit", **SMALL})
    model, image = SuperResolver(config).eval(), torch.rand(1, 3, 23, 31)
    view = model.open(image)
    assert view._tiles.layout.whole
    torch.testing.assert_close(view.render(2), model(image, (46, 62)).clamp(0, 1))


def test_it_trains_on_a_raster_as_on_its_positions():
    cell = torch.tensor([[0.1, 0.2], [0.05, 0.1]], dtype=torch.float64)
    raster = Raster(torch.rand(2, 1, 4, 5, 2, generator=torch.Generator().manual_seed(1)) - 0.5, cell)
    found, grads = [], []
    for where in (raster, Coords(raster_coords(raster.offset), cell)):
        decoder = build().train()
        before = decoder.amsno.bn.running_mean.clone()
        out = decoder.decode(decoder.prepare(*inputs(4, 5)), where)
        out.square().sum().backward()
        found.append(out.detach())
        grads.append([p.grad for p in decoder.parameters()])
        assert not torch.equal(decoder.amsno.bn.running_mean, before)
    torch.testing.assert_close(*found, atol=1e-5, rtol=0)
    for (name, _), a, b in zip(decoder.named_parameters(), *grads, strict=True):
        # the projection's bias adds the same to all taps' logits, and what a norm subtracts has no effect
        assert a.abs().max() > 1e-6 or name in ("pb_encoder.proj.bias", *NORMED), name
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * float(b.abs().max()) + 1e-9)


@torch.no_grad()
def test_attention_is_a_share_for_each_pixel():
    decoder = build()
    weights = decoder.attention(decoder.prepare(*inputs(5, 7)), listed((3, 4)))
    assert [w.shape for w in weights] == [(2, 12, 2, 3, 3)]
    torch.testing.assert_close(weights[0].sum((-1, -2)), torch.ones(2, 12, 2, dtype=torch.float64))


@pytest.mark.slow
@torch.no_grad()
def test_it_compiles_and_exports():
    config = ModelConfig("x", {"name": "edsr", "blocks": 1, "channels": 8}, {"name": "msit", **SMALL})
    model, image = SuperResolver(config).eval(), torch.rand(2, 3, 7, 5)
    wanted = model(image, (18, 13))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(image, (18, 13)), wanted)
    where = listed((3, 4))
    query = torch.compile(model.query, fullgraph=True, backend="aot_eager")
    given = image, where.coords.float(), where.cell.float()
    torch.testing.assert_close(query(*given), model.query(*given))
    batch = {0: torch.export.Dim("batch", min=1, max=64)}
    program = torch.export.export(model, (image, (18, 13)), dynamic_shapes=(batch, (None, None)))
    other = torch.rand(3, 3, 7, 5)
    torch.testing.assert_close(program.module()(other, (18, 13)), model(other, (18, 13)))


def test_parameter_names_are_those_of_the_authors():
    found = {name: tuple(t.shape) for name, t in build_decoder("msit", 64).state_dict().items()}
    for i in range(16):
        assert found[f"amsno.Ms_conv_{i + 1}.weight"] == (16, 16, 3 + 2 * i, 3 + 2 * i)
    for i in range(4):
        assert found[f"multi_conv_qs.0.local_conv_{i + 1}.weight"] == (64, 64, 3 + 2 * i, 3 + 2 * i)
    assert found["amsno.sim0.weight"] == (512, 16, 1, 1)
    assert found["multi_conv_qs.0.proj1.weight"] == (512, 4, 1, 1)
    assert found["imnets.0.layers.0.weight"] == (256, 12_546) and "amsno.v.bias" not in found
    assert sum(math.prod(shape) for shape in found.values()) == 6_905_611
