"""The CLIT decoder: bands, stages, single positions and parameter names."""

import sys

import pytest
import torch
from torch import Tensor

from clit_zoo.decoders import build_decoder
from clit_zoo.geometry import Coords, Pixels, Raster, pixel_centres, raster_coords

BANDS = sys.modules["clit_zoo.decoders.bands"]
CASES = {
    "x1": ((5, 7), (5, 7), 1),
    "x1, three stages": ((5, 7), (5, 7), 3),
    "x2.5, ties": ((6, 4), (15, 10), 1),
    "one pixel x 5": ((1, 1), (5, 5), 2),
    "x4": ((4, 5), (16, 20), 3),
    "x6, two stages": ((4, 5), (24, 30), 3),
    "x10 by one stage": ((3, 2), (30, 20), 1),
    "x5.3 and x1.5": ((3, 6), (16, 9), 2),
    "x18, three stages": ((2, 3), (36, 54), 3),
    "x80, above 4**3": ((1, 1), (80, 80), 3),
}
"""Name -> input size, output size, stages of the model."""


def build(stages: int, radius: int = 1) -> torch.nn.Module:
    torch.manual_seed(3)
    decoder = build_decoder("clit", 6, dim=8, heads=2, radius=radius, stages=stages, hidden_dims=[12, 10])
    with torch.no_grad():
        for p in decoder.parameters():
            p.mul_(2)  # so that no part is lost beside the image
    return decoder.eval()


def inputs(name: str, batch: int = 2) -> tuple[Tensor, Tensor, tuple[int, int], int]:
    (h, w), size, stages = CASES[name]
    generator = torch.Generator().manual_seed(5)
    feature = torch.randn(batch, 6, h, w, generator=generator)
    return feature, torch.rand(batch, 3, h, w, generator=generator) * 2 - 1, size, stages


def enlarge(decoder, feature: Tensor, image: Tensor, size: tuple[int, int], **options) -> Tensor:
    """(B, 3, H, W) of a whole picture."""
    found = decoder.decode(decoder.prepare(feature, image), Pixels.whole(size), **options)
    return found.transpose(1, 2).unflatten(2, size)


def assert_close(got: Tensor, expected: Tensor) -> None:
    spread = float(expected.max() - expected.min())
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5 * max(spread, float(expected.abs().max())))


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_bands_make_the_whole(name, monkeypatch):
    feature, image, size, stages = inputs(name)
    decoder = build(stages, radius=2)
    whole = enlarge(decoder, feature, image, size)
    for budget in (1, 3_000, 30_000):
        monkeypatch.setattr(BANDS, "BAND_BYTES", budget)
        shares: list[float] = []
        assert_close(enlarge(decoder, feature, image, size, progress=shares.append), whole)
        assert shares == sorted(set(shares)) and shares[-1] == 1
        if budget == 1:  # one band for each row of the last stage's map
            assert len(shares) == decoder.plan(*feature.shape[2:], Pixels.whole(size))[-1][0]


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_torch_is_the_published_order_of_work(name):
    feature, image, size, stages = inputs(name)
    decoder = build(stages)
    decoder.backend = "torch"
    hoisted = enlarge(decoder, feature, image, size)
    decoder.backend = "reference"
    reference = enlarge(decoder, feature, image, size)
    assert_close(hoisted, reference)
    wide = enlarge(decoder.double(), feature.double(), image.double(), size)
    assert_close(reference.double(), wide)


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_positions_at_pixel_centres_are_the_grid(name):
    feature, image, size, stages = inputs(name)
    decoder = build(stages)
    y, x = (pixel_centres(n) for n in size)
    coords = torch.stack(torch.meshgrid(y, x, indexing="ij"), -1).flatten(0, 1).expand(2, -1, -1)
    cell = torch.tensor([[2 / size[0], 2 / size[1]]]).expand(2, 2)
    maps = tuple(decoder.plan(*feature.shape[2:], Pixels.whole(size)))
    found = decoder.decode(decoder.prepare(feature, image), Coords(coords, cell, maps))
    assert_close(found.transpose(1, 2).unflatten(2, size), enlarge(decoder, feature, image, size))


@pytest.mark.parametrize("maps", [((4, 5),), ((4, 5), (16, 20))])
def test_a_raster_is_a_list_of_positions(maps):
    feature, image, _, _ = inputs("x4")
    decoder = build(2)
    cell = torch.tensor([[0.1, 0.2], [0.05, 0.1]])
    raster = Raster(torch.rand(2, 2, 4, 5, 2, generator=torch.Generator().manual_seed(1)) - 0.5, cell, maps)
    found, grads = [], []
    for where in (raster, Coords(raster_coords(raster.offset), cell, maps)):
        out = decoder.decode(decoder.prepare(feature, image), where)
        found.append(out.detach())
        grads.append(torch.autograd.grad(out.square().sum(), decoder.conv_vs[0].weight)[0])
    assert_close(*found)
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-4 * float(grads[1].abs().max()))


@torch.no_grad()
def test_the_cascade_adds_three_quarters_of_the_stage_before():
    """With the last layer of stage 2 silenced, the residual is its bias plus 0.75 of stage 1's."""
    feature, image, size, _ = inputs("x6, two stages")
    decoder = build(2)
    decoder.imnets[1].layers[-1].weight.zero_()
    bias = decoder.imnets[1].layers[-1].bias
    whole = enlarge(decoder, feature, image, size)
    coarse = build(1)
    coarse.load_state_dict({k: v for k, v in decoder.state_dict().items() if k in coarse.state_dict()})
    base = torch.nn.functional.interpolate(image, size, mode="bilinear", align_corners=False)
    expected = base + 0.75 * (enlarge(coarse, feature, image, size) - base) + bias.view(1, 3, 1, 1)
    assert_close(whole, expected)


def test_parameter_names_are_those_of_the_authors():
    decoder = build_decoder("clit", 64, dim=32, heads=4, radius=3, stages=2, hidden_dims=[256] * 4)
    conv = {"weight": (32, 32, 3, 3), "bias": (32,)}
    widths = [(256, 49 * 32 + 2), (256, 256), (256, 256), (256, 256), (3, 256)]
    expected = {"conv_ch.weight": (32, 64, 3, 3), "conv_ch.bias": (32,)}
    expected |= {
        f"conv_{m}s.{i}.{part}": shape for m in "qkv" for i in (0, 1) for part, shape in conv.items()
    }
    expected |= {"pb_encoder.proj.weight": (4, 64), "pb_encoder.proj.bias": (4,)}
    for i in (0, 1):
        for n, (out, fan) in enumerate(widths):
            layer = f"imnets.{i}.layers.{2 * n}"
            expected |= {f"{layer}.weight": (out, fan), f"{layer}.bias": (out,)}
    assert {name: tuple(p.shape) for name, p in decoder.state_dict().items()} == expected


@torch.no_grad()
def test_later_stages_hold_bands_only(monkeypatch):
    """At x32 no q/k/v map of a later stage ever exists for more than a few rows."""
    monkeypatch.setattr(BANDS, "BAND_BYTES", 100_000)
    largest = 0
    project = BANDS.BandedMap._project

    def spied(self, top, bottom):
        nonlocal largest
        result = project(self, top, bottom)
        largest = max(largest, result.numel())
        return result

    monkeypatch.setattr(BANDS.BandedMap, "_project", spied)
    feature, image = torch.randn(1, 6, 8, 8), torch.rand(1, 3, 8, 8)
    enlarge(build(3), feature, image, (256, 256))
    assert 0 < largest < 3 * 8 * 128 * 128 / 4


@torch.no_grad()
def test_a_map_by_rows_is_the_whole_map():
    """And of a window's columns, with no more rows than were asked for last."""
    base = torch.randn(2, 8, 50, 60).contiguous(memory_format=torch.channels_last)
    weight, bias = torch.randn(24, 8, 3, 3), torch.randn(24)
    for h, w in ((50, 60), (170, 120)):
        whole = BANDS.BandedMap(base, (h, w), (0, w - 1), 2, weight, bias).rows(0, h - 1)[1]
        by_rows = BANDS.BandedMap(base, (h, w), (20, 33), 2, weight, bias)
        columns = slice(by_rows.left, by_rows.left + by_rows.width)
        assert columns.start <= 18 and columns.stop >= 36 and by_rows.width < w
        for first, last in ((0, 0), (1, 2), (2, 2), (4, 4), (40, 41), (h - 1, h - 1)):
            top, parts = by_rows.rows(first, last)
            bottom = top + parts[0].shape[2]
            assert top == max(first - 2, 0) and bottom >= min(last + 3, h)
            for part, expected in zip(parts, whole, strict=True):
                assert torch.equal(part, expected[:, :, top:bottom, columns])
            assert by_rows.kept.shape[2] == bottom - top
