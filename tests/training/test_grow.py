"""A grown model computes what the smaller one does, and its new blocks learn."""

import pytest
import torch
import torch.nn.functional as F

from clit_zoo.errors import ConfigError
from clit_zoo.model import SuperResolver
from clit_zoo.training.grow import begin_decoder, grow
from clit_zoo.zoo.config import ModelConfig

DECODER = {"name": "liif", "hidden_dims": [16]}
ENCODERS = {
    "edsr": {"name": "edsr", "channels": 8, "blocks": 2},
    "rdn": {"name": "rdn", "channels": 8, "blocks": 2, "layers": 2, "growth": 4},
}


@pytest.mark.parametrize("name", ENCODERS)
def test_outputs_are_equal_before_and_after(name):
    torch.manual_seed(0)
    small = SuperResolver(ModelConfig("small", ENCODERS[name], DECODER)).eval()
    config = ModelConfig("large", {**ENCODERS[name], "blocks": 5}, DECODER)
    large = grow(small, config).eval()
    image = torch.rand(1, 3, 9, 8)
    torch.testing.assert_close(large(image, (20, 17)), small(image, (20, 17)), rtol=0, atol=1e-6)
    large(image, (20, 17)).square().sum().backward()
    # an RDN's new dense blocks learn once the global fusion reads them, which it learns at once
    weights = dict(large.encoder.named_parameters())
    first = weights["GFF.0.weight"].grad[:, 16:] if name == "rdn" else weights["body.4.body.2.weight"].grad
    assert first.abs().max() > 0


def test_another_decoder_is_new_on_the_same_map():
    torch.manual_seed(0)
    small = SuperResolver(ModelConfig("small", ENCODERS["edsr"], DECODER))
    clit = {"name": "clit", "dim": 8, "heads": 2, "hidden_dims": [8]}
    large = grow(small, ModelConfig("large", {**ENCODERS["edsr"], "blocks": 3}, clit))
    image = torch.rand(1, 3, 9, 8)
    torch.testing.assert_close(large.encoder(image), small.encoder(image), rtol=0, atol=1e-6)


@pytest.mark.parametrize("change", [{"blocks": 1}, {"channels": 16}, {"name": "rdn"}])
def test_what_cannot_be_grown(change):
    small = SuperResolver(ModelConfig("small", ENCODERS["edsr"], DECODER))
    with pytest.raises(ConfigError, match="cannot be grown from small"):
        grow(small, ModelConfig("large", {**ENCODERS["edsr"], "blocks": 3, **change}, DECODER))


@pytest.mark.parametrize("name", ["liif", "ultrasr", "ipe", "metasr", "itsrn"])
@torch.no_grad()
def test_a_new_decoder_begins_near_an_interpolation(name):
    """What gives whole colours gives them at once, wherever it is asked."""
    torch.manual_seed(0)
    config = ModelConfig("x", ENCODERS["edsr"], {"name": name, "hidden_dims": [16, 12]})
    smooth = F.interpolate(torch.rand(3, 3, 5, 4), (40, 32), mode="bicubic").clamp(0, 1)
    expected = F.interpolate(smooth, (91, 70), mode="bilinear")
    model = SuperResolver(config).eval()
    before = (model(smooth, (91, 70)) - expected).abs().mean()
    begin_decoder(model, smooth)
    after = (model(smooth, (91, 70)) - expected).abs().mean()
    assert after < 0.03 < 0.2 < before


def test_a_decoder_that_adds_to_the_picture_begins_as_it_is():
    model = SuperResolver(ModelConfig("x", ENCODERS["edsr"], {"name": "lte", "dim": 16, "hidden_dims": [8]}))
    before = {name: p.clone() for name, p in model.named_parameters()}
    begin_decoder(model, torch.rand(2, 3, 9, 8))
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
