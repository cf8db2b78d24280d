"""A picture in tiles is the picture encoded whole: to the bit behind EDSR and RDN, near behind SwinIR."""

import numpy as np
import pytest
import torch

from clit_zoo import tiles
from clit_zoo.errors import ImageError
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

    return use


def small(encoder: str, decoder: str) -> SuperResolver:
    torch.manual_seed(0)
    return SuperResolver(ModelConfig("small", ENCODERS[encoder], DECODERS[decoder])).eval()


PAIRS = [
    # every encoder with one decoder, every decoder with one encoder
    pytest.param(e, d, s, marks=() if (d == "liif" or e == "edsr") and s == 2.3 else pytest.mark.slow)
    for e in ENCODERS
    for d in DECODERS
    for s in (1.5, 2.3, 5)
]


@pytest.mark.parametrize("encoder, decoder, scale", PAIRS)
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


@pytest.mark.parametrize("channels, bits", [(1, 8), (2, 16), (3, 16), (4, 8)])
def test_rows_are_the_rendered_picture(channels, bits, small_tiles):
    """Of the picture's own type; begun anew at any band, the rest comes out the same."""
    model = small("edsr", "clit")
    array = np.random.default_rng(0).integers(0, 2**bits, (H, W, channels)).astype(f"uint{bits}")
    array[20:60, 40:80, -1] = 2**bits - 1  # hidden pixels have the colours of tiles; there are few
    small_tiles(30)
    view, told = model.open(array), []
    whole, bands = view.render(3.3), list(view.rows(3.3, progress=told.append))
    assert len(bands) > 2 and {band.dtype for band in bands} == {array.dtype}
    assert told == sorted(told) and told[-1] == pytest.approx(1)
    np.testing.assert_array_equal(np.concatenate(bands), whole)
    done = len(bands[0]) + len(bands[1])
    np.testing.assert_array_equal(np.concatenate(list(view.rows(3.3, first=done))), whole[done:])


def test_large_outputs_come_in_low_bands_and_are_the_same(small_tiles, monkeypatch):
    model, array = small("edsr", "clit"), np.random.default_rng(0).random((H, W, 3), np.float32)
    small_tiles()
    high = list(model.open(array).rows(4))
    monkeypatch.setattr(tiles, "BAND_BYTES", 4 * W * 4 * 12 * 17)
    monkeypatch.setattr(tiles, "CHUNK_PIXELS", 44 * 4 * 50)
    low = list(model.open(array).rows(4))
    assert max(map(len, low)) < max(map(len, high))
    np.testing.assert_array_equal(np.concatenate(low), np.concatenate(high))


def test_rows_are_of_one_picture():
    with pytest.raises(ImageError, match="a batch of 2: open each"):
        next(small("edsr", "clit").open(torch.rand(2, 3, 5, 5)).rows(2))


def test_a_view_of_many_tiles_keeps_those_of_small_windows(small_tiles):
    small_tiles()
    view = small("edsr", "clit").open(torch.rand(1, 3, H, W))
    view.render(2)
    assert not view._tiles._kept
    for left in range(0, 100, 10):
        view.render(2, box=(left, 10, left + 30, 40))
    assert 1 < len(view._tiles._kept) <= tiles.KEPT_TILES


def test_an_encoder_that_reads_everything_is_not_cut(small_tiles):
    small_tiles()
    model = small("edsr", "clit")
    model.encoder.reach = None
    assert model.open(torch.rand(1, 3, H, W))._tiles.layout.whole
