"""CiaoSR: the decoder is the published formula, written anew here, in another order of sums."""

import pytest
import torch
import torch.nn.functional as F

from clit_zoo.decoders import build_decoder
from clit_zoo.decoders.ciaosr import CiaoSR
from clit_zoo.decoders.cross_scale import CrossScaleAttention, spans
from clit_zoo.geometry import Coords, Pixels, Raster, pixel_centres
from clit_zoo.model import SuperResolver
from clit_zoo.zoo.config import ModelConfig

C = 6
# Scales a/b of even a, where no position is half-way between pixels; (2, 9) has the widest corners.
SIZES = [((5, 6), (20, 16)), ((1, 9), (4, 36)), ((7, 1), (28, 6)), ((6, 8), (16, 112)), ((2, 9), (8, 24))]
ODD = [((5, 7), (5, 7)), ((6, 4), (9, 6)), ((1, 1), (5, 5)), ((3, 11), (37, 13))]


def build(**settings) -> CiaoSR:
    torch.manual_seed(0)
    decoder = build_decoder("ciaosr", C, **{"hidden_dims": [16, 12, 8]} | settings).double()
    for p in decoder.parameters():
        p.data.mul_(2)  # so that attention is not even, and the picture hides no part
    return decoder


def maps(h, w, batch=2):
    generator = torch.Generator().manual_seed(1)
    return (torch.randn(batch, c, h, w, dtype=torch.float64, generator=generator) for c in (C, 3))


def centres(h, w):
    return torch.stack(torch.meshgrid(pixel_centres(h), pixel_centres(w), indexing="ij"), -1)


def nonlocal_map(weights: dict[str, torch.Tensor], f: torch.Tensor) -> torch.Tensor:
    """Section "cross-scale non-local" of the facts, patch by patch."""
    b, c, h, w = f.shape
    x = F.pad(f, (0, w % 2, 0, 0), "reflect" if w > 1 else "replicate")
    x = F.pad(x, (0, 0, 0, h % 2), "reflect" if h > 1 else "replicate")
    height, width = x.shape[2:]

    def single(name, x):
        y = F.conv2d(x, weights[f"{name}.0.weight"], weights[f"{name}.0.bias"])
        return torch.where(y < 0, weights[f"{name}.1.weight"] * y, y)

    half = F.interpolate(x, scale_factor=0.5, mode="bilinear", align_corners=False)
    m, r, e = single("conv_match_1", x), single("conv_match_2", half), single("conv_assembly", x)
    m, r, e = F.pad(m, (1, 1, 1, 1)), F.pad(r, (1, 1, 1, 1)), F.pad(e, (2, 2, 2, 2))
    grid = [(i, j) for i in range(height // 2) for j in range(width // 2)]
    keys = torch.stack([r[:, :, i : i + 3, j : j + 3].flatten(1) for i, j in grid], 1)
    keys = keys / keys.pow(2).sum(-1, keepdim=True).sqrt().clamp(min=1e-4)
    patches = torch.stack([e[:, :, 2 * i : 2 * i + 6, 2 * j : 2 * j + 6] for i, j in grid], 1)
    canvas = f.new_zeros(b, c, 2 * height + 4, 2 * width + 4)
    for i in range(height):
        for j in range(width):
            query = m[:, :, i : i + 3, j : j + 3].flatten(1)
            share = torch.softmax(10 * torch.einsum("blk,bk->bl", keys, query), 1)
            found = torch.einsum("bl,blcyx->bcyx", share, patches)
            canvas[:, :, 2 * i : 2 * i + 6, 2 * j : 2 * j + 6] += found
    down = F.conv2d(canvas[:, :, 2:-2, 2:-2], weights["down.weight"], weights["down.bias"], 2, 1)
    return down[:, :, :h, :w] / 6


def formula(decoder: CiaoSR, f, image, target):
    """Position by position, by grid_sample: nothing of the decoder but its MLPs and weights."""
    b, _, h, w = f.shape
    size = torch.tensor([h, w], dtype=torch.float64)
    cell = 2 / torch.tensor(target, dtype=torch.float64)
    where = centres(*target).view(1, -1, 2).expand(b, -1, -1)
    u = F.unfold(f, 3, padding=1).view(b, 9 * C, h, w)
    weights = {name.removeprefix("cs_attn."): t for name, t in decoder.state_dict().items()}
    v = torch.cat((u, nonlocal_map(weights, f)), 1)
    own = centres(h, w).permute(2, 0, 1).expand(b, -1, -1, -1)

    def nearest(x, at):
        return F.grid_sample(x, at.flip(-1).unsqueeze(1), "nearest", align_corners=False)[:, :, 0].mT

    query, logits, values = nearest(u, where), [], []
    step = (1 - cell) / (size - 1)
    for vy in (-1, 1):
        for vx in (-1, 1):
            shift = torch.where(size > 1, step * torch.tensor([vy, vx]), 9.0 * torch.tensor([vy, vx]))
            at = (where + shift + 1e-6).clamp(-1 + 1e-6, 1 - 1e-6)
            pose = (where - nearest(own, at)) * size
            pose = torch.cat((pose, (cell * size).expand_as(pose)), -1)
            key, value = nearest(u, at), nearest(v, at)
            logits.append((query * key * decoder.imnet_k(torch.cat((key, pose), -1))).sum(-1))
            values.append(value * decoder.imnet_v(torch.cat((value, pose), -1)))
    shares = torch.softmax(torch.stack(logits), 0).unsqueeze(-1)
    at = where.flip(-1).unsqueeze(1)
    skip = F.grid_sample(image, at, "bilinear", padding_mode="border", align_corners=False)[:, :, 0].mT
    return decoder.imnet_q((torch.stack(values) * shares).sum(0)) + skip


@pytest.mark.parametrize("size, target", SIZES)
@torch.no_grad()
def test_the_formula_against_one_written_from_the_facts(size, target):
    decoder, (f, image) = build(), maps(*size)
    expected = formula(decoder, f, image, target)
    where = Pixels.whole(target)
    prepared = decoder.prepare(f, image)
    # offsets are kept in float32
    torch.testing.assert_close(decoder.decode(prepared, where), expected, atol=2e-6, rtol=0)
    torch.testing.assert_close(decoder.reference(prepared, where), expected, atol=2e-6, rtol=0)
    assert (expected - formula(decoder, f.roll(1, 1), image, target)).abs().max() > 0.1


@pytest.mark.parametrize("size, target", SIZES + ODD)
@torch.no_grad()
def test_the_fast_order_is_the_formula(size, target):
    decoder, (f, image) = build(), maps(*size)
    where, prepared = Pixels.whole(target), decoder.prepare(f, image)
    decoder.backend = "reference"
    expected = decoder.decode(decoder.prepare(f, image), where)
    torch.testing.assert_close(decoder.decode(prepared, where), expected, atol=1e-12, rtol=0)
    coords = centres(*target).view(1, -1, 2).expand(2, -1, -1)
    cell = torch.tensor([[2 / target[0], 2 / target[1]]], dtype=torch.float64).expand(2, 2)
    listed = decoder.decode(prepared, Coords(coords, cell))
    torch.testing.assert_close(listed, expected, atol=1e-5, rtol=0)  # offsets are kept in float32


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (7, 1), (2, 2), (5, 7), (8, 6)])
@torch.no_grad()
def test_the_non_local_part_against_one_written_from_the_facts(size, monkeypatch):
    decoder, (f, _) = build(), maps(*size)
    attention: CrossScaleAttention = decoder.cs_attn
    expected = nonlocal_map(attention.state_dict(), f)
    torch.testing.assert_close(attention(f, literal=True), expected, atol=1e-13, rtol=0)
    torch.testing.assert_close(attention(f), expected, atol=1e-13, rtol=0)
    monkeypatch.setattr("clit_zoo.decoders.cross_scale.CHUNK", 1)
    torch.testing.assert_close(attention(f), expected, atol=1e-13, rtol=0)


@torch.no_grad()
def test_the_non_local_part_goes_in_tiles():
    assert spans(192, 192, 0, 192) == [(0, 192)] and spans(5, 192, 0, 5) == [(0, 5)]
    # the authors': 32 pixels shared, the last flush
    assert spans(400, 192, 0, 400) == [(0, 192), (160, 352), (208, 400)]
    assert spans(400, 192, 100, 290) == [(60, 252)]
    decoder, (f, _) = build(tile=16), maps(16, 21)
    left, right = (decoder.cs_attn(f[..., a:b]) for a, b in ((0, 16), (5, 21)))
    expected = torch.cat((left[..., :5], (left[..., 5:] + right[..., :11]) / 2, right[..., 11:]), 3)
    torch.testing.assert_close(decoder.cs_attn(f), expected)
    assert (build(tile=32).cs_attn(f) - expected).abs().max() > 1e-6


def test_every_parameter_learns_and_names_are_the_authors():
    decoder, (f, image) = build(), maps(4, 5)
    cell = torch.full((2, 2), 0.1, dtype=torch.float64)
    listed = Coords(torch.rand(2, 9, 2, dtype=torch.float64) * 2 - 1, cell)
    for given in (listed, Raster(torch.rand(2, 1, 4, 5, 2) - 0.5, cell), Pixels.whole((9, 11))):
        decoder.zero_grad()
        decoder.decode(decoder.prepare(f, image), given).square().sum().backward()
        assert all(p.grad.abs().max() > 0 for p in decoder.parameters())
    with torch.device("meta"):
        full, wide = (build_decoder("ciaosr", channels) for channels in (64, 180))
    assert sum(p.numel() for p in full.parameters()) == 1_428_614
    assert sum(p.numel() for p in wide.parameters()) == 3_167_918
    names = [f"imnet_{m}.layers.{i}" for m in "qkv" for i in (0, 2, 4, 6, 8)] + ["cs_attn.down"]
    matched = [f"cs_attn.conv_{kind}" for kind in ("match_1", "match_2", "assembly")]
    expected = [f"{n}.{k}" for n in [*names, *(f"{m}.0" for m in matched)] for k in ("weight", "bias")]
    assert sorted(full.state_dict()) == sorted([*expected, *(f"{m}.1.weight" for m in matched)])


@pytest.mark.parametrize("where", ["list", "window"])
def test_gradients_are_those_of_the_formula(where):
    """The non-local part is put together in place, and pairs are read by index."""
    decoder, (f, image) = build(), maps(3, 4)
    given = Pixels.whole((12, 16))
    if where == "list":
        cell = torch.full((2, 2), 0.1, dtype=torch.float64)
        given = Coords(torch.rand(2, 9, 2, dtype=torch.float64) * 2 - 1, cell)
    grads = []
    for backend in ("auto", "reference"):
        decoder.backend = backend
        out = decoder.decode(decoder.prepare(f, image), given)
        grads.append(torch.autograd.grad(out.square().sum(), list(decoder.parameters())))
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-10)


@torch.no_grad()
def test_it_has_its_own_normalisation():
    config = ModelConfig("x", {"name": "edsr", "blocks": 1, "channels": 8}, {"name": "ciaosr"})
    model = SuperResolver(config)
    image, read = torch.rand(1, 3, 5, 6), []
    model.encoder.register_forward_pre_hook(lambda _, given: read.append(given[0]))
    model(image, (13, 20))
    mean = torch.tensor([0.4488, 0.4371, 0.4040]).view(3, 1, 1)
    torch.testing.assert_close(read[0], image - mean)
    model.decoder.imnet_q.layers[-1].weight.zero_()
    model.decoder.imnet_q.layers[-1].bias.zero_()
    wanted = F.interpolate(image, (13, 20), mode="bilinear")
    torch.testing.assert_close(model(image, (13, 20)), wanted, atol=1e-5, rtol=0)


@torch.no_grad()
def test_each_image_has_its_own_cell():
    """Corners and pose follow it; a list takes one for each picture."""
    decoder, (f, image) = build(), maps(5, 6)
    coords = torch.rand(1, 40, 2, dtype=torch.float64).expand(2, -1, -1) * 2 - 1
    cell = torch.tensor([[0.1, 0.2], [0.3, 0.05]], dtype=torch.float64)
    both = decoder.decode(decoder.prepare(f, image), Coords(coords, cell))
    for i in range(2):
        one = decoder.prepare(f[i : i + 1], image[i : i + 1])
        alone = decoder.decode(one, Coords(coords[:1], cell[i : i + 1]))
        torch.testing.assert_close(both[i : i + 1], alone)


@pytest.mark.slow
@torch.no_grad()
def test_it_compiles_to_one_graph_and_exports():
    """There a window's logits are those of a list: a graph cannot depend on which pixels it meets."""
    decoder = {"name": "ciaosr", "hidden_dims": [12, 8]}
    model = SuperResolver(ModelConfig("x", {"name": "edsr", "blocks": 1, "channels": 8}, decoder)).eval()
    image, size = torch.rand(1, 3, 11, 9), (50, 61)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(image, size), model(image, size))
    program = torch.export.export(model, (image, size))
    other = torch.rand(1, 3, 11, 9)
    torch.testing.assert_close(program.module()(other, size), model(other, size))
