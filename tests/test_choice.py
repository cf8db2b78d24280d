"""Which model is recommended for which picture."""

import numpy as np
import pytest
import torch
from PIL import Image

import clit_zoo
from clit_zoo.choice import CLEAN, PHOTO, choose
from clit_zoo.errors import ImageError


@pytest.fixture
def smooth() -> Image.Image:
    coarse = np.random.default_rng(0).integers(40, 216, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((120, 100), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("a.jpg", {"quality": 75}, PHOTO),
        ("a.jpg", {"quality": 87}, PHOTO),
        ("a.jpg", {"quality": 96}, CLEAN),
        ("a.webp", {"quality": 70}, PHOTO),
        ("a.webp", {"lossless": True}, CLEAN),
        ("a.png", {}, CLEAN),
    ],
)
def test_a_file_is_judged_by_its_compression(smooth, tmp_path, name, options, expected):
    file = tmp_path / name
    smooth.save(file, **options)
    assert clit_zoo.recommend(file) == clit_zoo.recommend(str(file)) == expected
    if name.endswith("jpg"):
        with Image.open(file) as opened:
            assert clit_zoo.recommend(opened) == expected


def test_noise_asks_for_cleaning_in_any_kind_of_picture(smooth, tmp_path):
    clean = np.asarray(smooth)
    noise = np.random.default_rng(0).normal(0, 10, clean.shape)
    noisy = np.clip(np.rint(clean + noise), 0, 255).astype(np.uint8)
    for pixels, expected in ((clean, CLEAN), (noisy, PHOTO)):
        Image.fromarray(pixels).save(tmp_path / "a.png")
        tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
        for picture in (pixels, Image.fromarray(pixels), tensor, tensor / 255, tmp_path / "a.png"):
            assert clit_zoo.recommend(picture) == expected
    assert "noise of" in choose(noisy).reason


def test_the_reason_names_what_decided(smooth, tmp_path):
    smooth.save(tmp_path / "a.jpg", quality=60)
    assert choose(tmp_path / "a.jpg") == (PHOTO, "JPEG of quality 60, below 88")
    with pytest.raises(ImageError, match=r"b\.jpg"):
        choose(tmp_path / "b.jpg")
