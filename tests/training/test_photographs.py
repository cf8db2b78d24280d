"""Pictures that cannot be used are named and counted; the cache is used only for the same pictures."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from clit_zoo.errors import ImageError
from clit_zoo.training.photographs import CACHE_FILE, Photographs


@pytest.fixture
def mixed(tmp_path):
    rng = np.random.default_rng(1)
    folder = tmp_path / "mixed"
    (folder / "sub").mkdir(parents=True)
    for name, (height, width) in {
        "big.png": (100, 120),
        "sub/gray.png": (70, 64),
        "small.png": (63, 200),
    }.items():
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels[..., 0] if "gray" in name else pixels).save(folder / name)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff but no more")
    (folder / "cut.png").write_bytes((folder / "big.png").read_bytes()[:-2000])
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_unusable_pictures_are_named_and_counted(mixed):
    found = Photographs(mixed, 64, progress=False)
    assert [tuple(image.shape) for image in found.images] == [(3, 100, 120), (3, 70, 64)]
    reasons = dict(found.skipped)
    assert sorted(reasons) == ["broken.jpg", "cut.png", "small.png"]
    assert reasons["small.png"] == "200×63, smaller than 64 pixels"
    assert str(mixed) not in reasons["broken.jpg"]
    expected = np.asarray(Image.open(mixed / "big.png")).transpose(2, 0, 1)
    assert np.array_equal(found.images[0].numpy(), expected)
    assert found.in_words == "2 pictures (0.0165 megapixels)"  # 100 · 120 + 70 · 64


def test_pictures_of_other_formats_are_named_and_counted_with_a_cache_too(mixed, tmp_path):
    Image.new("RGB", (80, 80)).save(mixed / "an.gif")
    Image.new("RGB", (80, 80)).save(mixed / "x.AVIF", format="avif")
    (mixed / "sub" / "t.heic").write_bytes(b"whatever it is")
    (mixed / "folder.dng").mkdir()
    for _ in range(2):
        found = Photographs(mixed, 64, cache=tmp_path / "cache", progress=False)
        reasons = dict(found.skipped)
        assert len(found.images) == 2 and len(found.skipped) == len(reasons) == 6
        assert "save it as JPEG" in reasons["an.gif"] and reasons["an.gif"] == reasons["x.AVIF"]
        assert "cannot be read here" in reasons["sub/t.heic"]
    with pytest.raises(ImageError, match=r"500 pixels, 3 of other formats such as an.gif\)"):
        Photographs(mixed, 500, progress=False)


def test_hidden_folders_are_left_out(mixed, tmp_path):
    for name in (".thumbs/c.png", "sub/.trash/c.png", ".d.png", "sub/.trash/deep/e.heic"):
        (mixed / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (80, 80)).save(mixed / name, format="png")
    found = Photographs(mixed, 64, progress=False)
    assert len(found.images) == 2 and len(found.skipped) == 3
    # the folder that is given may be hidden itself
    hidden = mixed.rename(tmp_path / ".photographs")
    assert len(Photographs(hidden, 64, progress=False).images) == 2


def test_no_usable_picture(mixed, tmp_path):
    with pytest.raises(ImageError, match=r"no usable picture \(5 unreadable or smaller than 500 pixels\)"):
        Photographs(mixed, 500, progress=False)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        Photographs(tmp_path / "nowhere")


def test_large_crops_come_from_large_pictures(mixed):
    found = Photographs(mixed, 64, progress=False)
    assert found.reach == 100  # big.png holds more than half of the pixels
    rng = np.random.default_rng(0)
    assert {tuple(found.draw(rng, 90).shape) for _ in range(20)} == {(3, 100, 120)}
    sizes = [found.draw(rng, 64).shape[1] for _ in range(400)]
    assert sizes.count(100) / 400 == pytest.approx(100 * 120 / (100 * 120 + 70 * 64), abs=0.1)


def test_the_cache_is_used_again_and_only_for_the_same_pictures(mixed, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    first = Photographs(mixed, 64, cache=cache, progress=False)
    decoded = Photographs(mixed, 64, progress=False)
    monkeypatch.setattr(Photographs, "_decode", lambda *_: pytest.fail("decoded again"))
    second = Photographs(mixed, 64, cache=cache, progress=False)
    monkeypatch.undo()
    for found in (first, second):
        assert all(torch.equal(a, b) for a, b in zip(found.images, decoded.images, strict=True))
        assert found.skipped == decoded.skipped
    # another picture, a damaged index, a file cut short: decoded anew
    Image.new("RGB", (80, 80)).save(mixed / "new.png")
    assert len(Photographs(mixed, 64, cache=cache, progress=False).images) == 3
    (cache / CACHE_FILE).write_text("{")
    assert len(Photographs(mixed, 64, cache=cache, progress=False).images) == 3
    with open(cache / CACHE_FILE, "r+b") as file:
        file.truncate(1000)
    assert len(Photographs(mixed, 64, cache=cache, progress=False).images) == 3
    torch.save({"key": 3, "images": [os.system]}, cache / CACHE_FILE)
    assert len(Photographs(mixed, 64, cache=cache, progress=False).images) == 3
    assert os.listdir(cache) == [CACHE_FILE]


def test_a_cache_that_does_not_fit_leaves_nothing(mixed, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    cache = tmp_path / "cache"
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"No space left.*cache"):
            Photographs(mixed, 64, cache=cache, progress=False)
    assert os.listdir(cache) == []
    assert len(Photographs(mixed, 64, cache=cache, progress=False).images) == 2
    assert os.listdir(cache) == [CACHE_FILE]


def test_a_link_to_nothing_is_named_and_left_out_with_a_cache_too(mixed, tmp_path):
    (mixed / "gone.png").symlink_to(tmp_path / "nowhere.png")
    for options in ({}, {"cache": tmp_path / "cache"}):
        found = Photographs(mixed, 64, progress=False, **options)
        assert "gone.png" in dict(found.skipped) and len(found.images) == 2
