"""Where a model looks: ``View.attention`` against the formula on whole maps in float64, and on tiles."""

import pytest
import torch

from clit_kernels import AttentionCall, Points
from clit_kernels.local_attention.reference import local_attention_reference
from clit_zoo import tiles
from clit_zoo.errors import ConfigError, ScaleError
from clit_zoo.geometry import plan
from clit_zoo.model import SuperResolver
from clit_zoo.zoo.config import ModelConfig

CLIT = {"name": "clit", "dim": 16, "heads": 2, "radius": 2, "stages": 3, "hidden_dims": [24, 16]}
H, W = 90, 131
POINTS = [(0, 0), (W, H), (43.3, 61.8), (64.5, 0.2)]


def small(decoder):
    torch.manual_seed(0)
    return SuperResolver(ModelConfig("small", {"name": "edsr", "channels": 8, "blocks": 2}, decoder)).eval()


def by_the_formula(model, picture, x, y, scale):
    """Each stage's nearest feature pixel and weights, from whole maps in float64."""
    base = model.encode(picture).prepared.base
    decoder, proj = model.decoder, model.decoder.pb_encoder.proj
    for stage, (h, w) in enumerate(plan(H, W, (round(H * scale) / H, round(W * scale) / W), decoder.stages)):
        # the map's pixel i lies from i to i + 1 of h; half-way between two centres the even one is nearest
        place = torch.tensor([[[y / H * h - 0.5, x / W * w - 0.5]]], dtype=torch.float64)
        index = place.round()
        points = Points(index.long(), (place - index).float())
        q, k, _ = decoder._maps(stage, base, (h, w))
        call = AttentionCall(q, k, points, proj.weight, proj.bias, decoder.heads, decoder.radius)
        yield index[0, 0] / torch.tensor((h, w)), local_attention_reference(call, upcast=torch.float64)[0, 0]


@pytest.mark.parametrize("scale", [1, 3.7, pytest.param(20, marks=pytest.mark.slow)])
@torch.inference_mode()
def test_it_is_the_formula(scale):
    model, picture = small(CLIT), torch.rand(1, 3, H, W)
    view = model.open(picture)
    for x, y in POINTS:
        glances = view.attention(x, y, scale)
        for glance, (index, weights) in zip(
            glances, by_the_formula(model, picture, x, y, scale), strict=True
        ):
            torch.testing.assert_close(glance.weights.flatten(1).double(), weights, rtol=0, atol=1e-5)
            torch.testing.assert_close(glance.weights.sum((1, 2)), torch.ones(2))
            left, top, right, bottom = glance.box
            pixel = torch.tensor([(bottom - top) / 5, (right - left) / 5])
            place = (torch.tensor([top, left]) + 2 * pixel) / torch.tensor([H, W])
            torch.testing.assert_close(place.double(), index, rtol=0, atol=1e-6)
    assert len(glances) == {1: 1, 3.7: 1, 20: 3}[scale]


def test_on_tiles(monkeypatch):
    model, picture = small({**CLIT, "stages": 1}), torch.rand(1, 3, H, W)
    whole = model.open(picture)
    monkeypatch.setattr(tiles, "WHOLE_PIXELS", 1000)
    monkeypatch.setattr(tiles, "TILE_SIDE", 44)
    view = model.open(picture)
    assert view.nbytes == 0 == whole.nbytes
    for x, y in POINTS:
        ((box, weights),) = view.attention(x, y, 4)
        ((whole_box, whole_weights),) = whole.attention(x, y, 4)
        assert box == pytest.approx(whole_box)
        torch.testing.assert_close(weights, whole_weights, rtol=0, atol=1e-6)
    assert view.nbytes > 0


def test_what_cannot_be_shown():
    view = small({"name": "liif", "hidden_dims": [8]}).open(torch.rand(1, 3, 9, 9))
    with pytest.raises(ConfigError, match="no attention"):
        view.attention(1, 1)
    view = small(CLIT).open(torch.rand(1, 3, 9, 9))
    for x, y in [(-1, 3), (3, 9.1), (float("nan"), 3)]:
        with pytest.raises(ScaleError, match="not in the 9x9"):
            view.attention(x, y)
