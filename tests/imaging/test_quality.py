"""The quality that a file was written with, and the noise in a picture."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from clit_zoo.imaging import probe
from clit_zoo.imaging.quality import jpeg_quality, noise_level, webp_quality


def picture(side: int = 160, mode: str = "RGB") -> Image.Image:
    """A smooth picture."""
    coarse = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side + 7, side), Image.Resampling.BICUBIC).convert(mode)


@pytest.mark.parametrize("quality", [1, 10, 30, 50, 75, 91, 92, 95, 99])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_says_its_quality(tmp_path, quality, mode):
    file = tmp_path / "a.jpg"
    for options in ({}, {"progressive": True}, {"optimize": True, "subsampling": 0}):
        if mode == "RGB" or not options:
            picture(mode=mode).save(file, quality=quality, **options)
            assert probe(file).quality == quality


def test_a_foreign_table_says_the_nearest_quality():
    table = [2] * 64  # of an encoder with tables of its own
    image = picture()
    image.quantization = {0: table}
    assert jpeg_quality(image) in range(96, 100)


@pytest.mark.parametrize("options", [{}, {"method": 0}, {"exif": b"Exif\0\0"}, {"alpha_quality": 50}])
def test_a_lossy_webp_says_about_its_quality(tmp_path, options):
    """libwebp takes finer quantisers for smooth parts, so it is about that."""
    file = tmp_path / "a.webp"
    image = picture(mode="RGBA" if "alpha_quality" in options else "RGB")
    if image.mode == "RGBA":
        image.putpixel((0, 0), (1, 2, 3, 0))
    qualities = (20, 50, 80, 92, 98)
    found = []
    for quality in qualities:
        image.save(file, quality=quality, **options)
        found.append(probe(file).quality)
    assert found == sorted(found) and np.abs(np.subtract(found, qualities)).max() <= 20
    assert np.abs(np.subtract(found, qualities))[-2:].max() <= 4


def test_others_have_none(tmp_path):
    for name, options in (("a.png", {}), ("a.webp", {"lossless": True}), ("a.tif", {}), ("a.gif", {})):
        picture().save(tmp_path / name, **options)
        assert probe(tmp_path / name).quality is None


def test_damaged_webp_does_not_stop_the_reading():
    file = io.BytesIO()
    picture().save(file, "WEBP", quality=80)
    whole = file.getvalue()
    for length in range(80):
        webp_quality(io.BytesIO(whole[:length]))
    rng = np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(whole)
        for at in rng.integers(12, 60, 6):
            damaged[at] = rng.integers(256)
        found = webp_quality(io.BytesIO(damaged))
        assert found is None or 0 <= found <= 100


@pytest.mark.parametrize("sigma", [0, 4, 8, 15])
def test_noise_is_seen_in_smooth_parts_only(sigma):
    clean = np.asarray(picture()).astype(np.float32)
    noise = sigma * np.random.default_rng(1).standard_normal((*clean.shape[:2], 1))
    busy = clean.copy()
    busy[:80] = np.random.default_rng(2).integers(0, 256, (80, 167, 3))  # texture in one half
    for pixels in (clean, busy):
        color = torch.from_numpy(np.clip(pixels + noise, 0, 255).astype(np.float32) / 255)
        found = noise_level(color.permute(2, 0, 1)[None])
        assert 0.7 * sigma - 0.5 < found < sigma + 0.5


def test_pictures_too_small_have_no_noise():
    assert noise_level(torch.rand(1, 3, 9, 40)) == 0 and noise_level(torch.rand(2, 3, 1, 1)) == 0
