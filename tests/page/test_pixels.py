"""From a picture to an answer's bytes: windows in steps, sizes below the picture's own, kinds of samples."""

import io
from dataclasses import replace

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from clit_zoo import imaging
from clit_zoo.page import iiif, pixels
from clit_zoo.page.refusal import Refusal


def joined(parts):
    return torch.cat([part.color for part in parts], 2)


def test_a_window_in_steps_is_the_window(tiny, noise, monkeypatch):
    picture = imaging.decode(noise(20, 30))
    view = tiny.open(picture)
    whole = tiny.upscale(picture, size=(74, 111)).color
    monkeypatch.setattr(pixels, "STEP_PIXELS", 500)
    parts = list(pixels.window(picture, view, (0, 0, 30, 20), (74, 111)))
    assert len(parts) > 10 and torch.equal(joined(parts), whole)
    box = (8 * 30 / 111, 5 * 20 / 74, 101 * 30 / 111, 70 * 20 / 74)
    assert torch.equal(joined(pixels.window(picture, view, box, (65, 93))), whole[:, :, 5:70, 8:101])


def test_odd_boxes_in_steps(tiny, noise, monkeypatch):
    picture = imaging.decode(noise(20, 30))
    view = tiny.open(picture)
    monkeypatch.setattr(pixels, "STEP_PIXELS", 60)
    for top in (0.3, 1 / 3, 2.7182818):
        # rows at ×1 exactly, columns enlarged: no step may ask for less
        parts = list(pixels.window(picture, view, (0.1, top, 29.9, top + 17), (17, 60)))
        assert joined(parts).shape == (1, 3, 17, 60)


def test_the_picture_itself_at_its_own_size(tiny, noise):
    picture = imaging.decode(noise(20, 30))
    for view in (None, tiny.open(picture)):
        (part,) = pixels.window(picture, view, (3, 2, 25, 19), (17, 22))
        torch.testing.assert_close(part.color, picture.color[:, :, 2:19, 3:25], rtol=0, atol=1e-6)


def test_one_side_larger_and_the_other_smaller(tiny, noise):
    picture = imaging.decode(noise(20, 30))
    (part,) = pixels.window(picture, tiny.open(picture), (0, 0, 30, 20), (50, 10))
    assert part.color.shape == (1, 3, 50, 10)
    enlarged = tiny.upscale(picture, size=(50, 30))
    wanted = pixels.resized(enlarged, (0, 0, 30, 50), (50, 10)).color
    torch.testing.assert_close(part.color, wanted)


def test_a_strip_takes_no_huge_picture_on_the_way(tiny, noise, monkeypatch):
    monkeypatch.setattr(pixels, "MAX_BETWEEN", 20 * 400)
    picture = imaging.decode(noise(20, 30))
    (part,) = pixels.window(picture, tiny.open(picture), (0, 0, 30, 20), (1, 400))
    assert (part.height, part.width) == (1, 400)
    with pytest.raises(Refusal, match="401x20 pixels on the way"):
        next(pixels.window(picture, tiny.open(picture), (0, 0, 30, 20), (1, 401)))


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
