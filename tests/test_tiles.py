"""A picture in tiles is the picture encoded whole: to the bit behind EDSR and RDN, near behind SwinIR."""

import pytest
import torch

from clit_zoo import tiles
from clit_zoo.model import SuperResolver
from clit_zoo.zoo.config import ModelConfig

ENCODERS = {
    "edsr": {"name": "edsr", "channels": 8, "blocks": 2},
    "rdn": {"name": "rdn", "channels": 8, "blocks": 2, "layers": 2, "growth": 8},
    "swinir": {
        "name": "swinir", "channels": 12, "depths": [2, 1], "heads": [2, 2], "window": 4, "out_channels": 8
    },
}  # fmt: skip
DECODERS = {
    "clit": {"name": "clit", "dim": 16, "heads": 2, "radius": 2, "stages": 3, "hidden_dims": [24, 16]},
    "liif": {"name": "liif", "hidden_dims": [24, 16]},
    "metasr": {"name": "metasr", "hidden_dims": [24]},
    "itsrn": {"name": "itsrn", "hidden_dims": [24, 16], "merge_dim": 12},
    "ciaosr": {"name": "ciaosr", "hidden_dims": [24, 16], "tile": 16},
    "lte": {"name": "lte", "dim": 12, "hidden_dims": [24, 16]},
}
H, W = 90, 131


@pytest.fixture
def small_tiles(monkeypatch):
    def use(side: int = 44) -> None:
        monkeypatch.setattr(tiles, "WHOLE_PIXELS", 1000)
        monkeypatch.setattr(tiles, "TILE_SIDE", side)
        monkeypatch.setattr(tiles, "KEPT_PIXELS", 3 * side**2)

    return use


def small(encoder: str, decoder: str) -> SuperResolver:
    torch.manual_seed(0)
    return SuperResolver(ModelConfig("small", ENCODERS[encoder], DECODERS[decoder])).eval()


@pytest.mark.parametrize("scale", [1.5, 3.7, 5])
@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_tiles_are_the_whole(encoder, decoder, scale, small_tiles):
    model, picture = small(encoder, decoder), torch.rand(1, 3, H, W)
    whole = model.open(picture).render(scale)
    small_tiles()
    view, told = model.open(picture), []
    # attention's products are summed in an order that depends on how many windows there are
    limit = 1e-6 if encoder == "swinir" else 0
    torch.testing.assert_close(view.render(scale, progress=told.append), whole, rtol=0, atol=limit)
    assert told == sorted(told) and told[-1] == pytest.approx(1)
    rows, cols = whole.shape[-2:]
    box = (20 * W / cols, 30 * H / rows, (cols - 9) * W / cols, 120 * H / rows)
    crop = whole[..., 30:120, 20 : cols - 9]
    torch.testing.assert_close(view.render(scale, box=box), crop, rtol=0, atol=limit)


def test_what_a_view_of_many_tiles_holds(small_tiles):
    small_tiles()
    view = small("edsr", "clit").open(torch.rand(1, 3, H, W))
    view.render(2)
    assert len(view._tiles._kept) <= 3 < (len(view._tiles.edges[0]) - 1) * (len(view._tiles.edges[1]) - 1)


def test_an_encoder_that_reads_everything_is_not_cut(small_tiles):
    small_tiles()
    model = small("edsr", "clit")
    model.encoder.reach = None
    assert model.open(torch.rand(1, 3, H, W))._tiles.edges == [[0, H], [0, W]]
