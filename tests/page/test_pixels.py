"""From a picture to an answer's bytes: windows in steps, sizes below the picture's own, kinds of samples."""

import io
import math
from dataclasses import replace

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from clit_zoo import imaging, tiles
from clit_zoo.page import iiif, pixels


def joined(parts):
    return torch.cat([part.color for part in parts], 2)


def test_a_window_in_bands_is_the_window(tiny, noise, monkeypatch):
    picture = imaging.decode(noise(20, 30))
    view = tiny.open(picture)
    whole = tiny.upscale(picture, size=(74, 111)).color
    monkeypatch.setattr(tiles, "CHUNK_PIXELS", 500)
    parts = list(pixels.window(picture, view, (0, 0, 30, 20), (74, 111)))
    assert len(parts) > 10 and torch.equal(joined(parts), whole)
    box = (8 * 30 / 111, 5 * 20 / 74, 101 * 30 / 111, 70 * 20 / 74)
    assert torch.equal(joined(pixels.window(picture, view, box, (65, 93))), whole[:, :, 5:70, 8:101])


def test_boxes_that_are_larger_by_a_rounding(tiny, noise):
    picture = imaging.decode(noise(20, 30))
    view = tiny.open(picture)
    for top in (0.3, 1 / 3, 2.7182818):
        for more in (0, 1e-9, -1e-9):
            # rows at ×1, columns enlarged: none may be asked for less
            parts = list(pixels.window(picture, view, (0.1, top, 29.9, top + 17 + more), (17, 60)))
            wanted = tiny.upscale(picture, size=(17, 60), box=(0.1, top, 29.9, math.nextafter(top + 17, 0)))
            torch.testing.assert_close(joined(parts), wanted.color, rtol=0, atol=1e-5)


def test_the_picture_itself_at_its_own_size(tiny, noise):
    picture = imaging.decode(noise(20, 30))
    for view in (None, tiny.open(picture)):
        (part,) = pixels.window(picture, view, (3, 2, 25, 19), (17, 22))
        torch.testing.assert_close(part.color, picture.color[:, :, 2:19, 3:25], rtol=0, atol=1e-6)


def test_what_is_smaller_on_one_side_is_interpolated_in_bands(tiny, noise, monkeypatch):
    picture = imaging.decode(noise(20, 30))
    whole = pixels.resized(picture, (0, 0, 30, 20), (50, 10))
    monkeypatch.setattr(pixels, "BAND_PIXELS", 100)
    parts = list(pixels.window(picture, tiny.open(picture), (0, 0, 30, 20), (50, 10)))
    assert len(parts) > 4
    torch.testing.assert_close(joined(parts), whole.color, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("side", "limit"), [(9, 2e-2), (37, 1e-5), (150, 1e-5), (400, 1e-5)])
def test_reduced_tiles_meet_without_a_seam(noise, side, limit):
    """Against Pillow's reduction of the whole; below a sixth of the size, whole pixels are averaged first."""
    picture = imaging.decode(noise(150, 150))
    planes = [
        Image.fromarray(plane.numpy()).resize((side, side), Image.Resampling.BICUBIC)
        for plane in picture.color[0]
    ]
    whole = np.stack([np.asarray(plane) for plane in planes], 2).clip(0, 1)
    middle = side // 2
    edge = 150 * middle / side
    halves = [
        pixels.resized(picture, (left, 0, right, 150), (side, width)).color
        for left, right, width in ((0, edge, middle), (edge, 150, side - middle))
    ]
    found = torch.cat(halves, 3)[0].permute(1, 2, 0).numpy()
    assert np.abs(found - whole).max() < limit


def test_hidden_colours_do_not_bleed(noise):
    color = noise(40, 40)
    color[:, 20:] = 1
    alpha = np.ones((40, 40, 1), np.float32)
    alpha[:, 20:] = 0
    picture = imaging.decode(np.concatenate([color * 0.2, alpha], 2))
    found = pixels.resized(picture, (0, 0, 40, 40), (10, 10))
    assert found.alpha.shape == (1, 1, 10, 10)
    visible = found.color[(found.alpha > 0.01).expand_as(found.color)]
    assert visible.max() < 0.25


def ask(form="png", quality="default", mirrored=False, turns=0):
    return iiif.Ask((0, 0, 1, 1), (8, 12), mirrored, turns, quality, form)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("form", iiif.FORMATS)
@pytest.mark.parametrize("quality", iiif.QUALITIES)
def test_every_kind_in_every_format(noise, channels, form, quality):
    data = pixels.encoded([imaging.decode(noise(8, 12, channels, np.uint8))], ask(form, quality))
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert image.size == (12, 8)
        if quality == "bitonal" and form == "png":
            assert image.mode == "1"
        if quality == "gray" and form != "webp":
            assert image.mode in ("L", "LA")


def test_turned_and_mirrored(noise):
    picture = imaging.decode(noise(8, 12, dtype=np.uint8))
    plain = np.asarray(Image.open(io.BytesIO(pixels.encoded([picture], ask()))))
    for turns in range(4):
        for mirrored in (False, True):
            data = pixels.encoded([picture], ask(mirrored=mirrored, turns=turns))
            first = plain[:, ::-1] if mirrored else plain
            assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), np.rot90(first, -turns))


def test_tiff_keeps_the_depth_and_all_keep_the_profile(noise):
    icc = b"\0" * 16 + b"RGB " + b"\0" * 108
    for dtype in (np.uint8, np.uint16, np.float32):
        picture = imaging.decode(noise(8, 12, dtype=dtype))
        picture = replace(picture, metadata=picture.metadata._replace(icc=icc))
        file = io.BytesIO(pixels.encoded([picture], ask("tif")))
        assert np.array_equal(tifffile.imread(file), noise(8, 12, dtype=dtype))
        for form in ("jpg", "png", "webp"):
            with Image.open(io.BytesIO(pixels.encoded([picture], ask(form)))) as image:
                assert image.info["icc_profile"] == icc
