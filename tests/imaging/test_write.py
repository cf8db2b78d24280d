"""Writing: what each format holds, atomically, and what is refused before or while writing."""

import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from sample_pictures import profile

from clit_zoo import imaging
from clit_zoo.errors import ImageError
from clit_zoo.imaging import tiff


def picture(channels=3, bits=8, **metadata):
    samples = np.random.default_rng(0).integers(0, 256, (6, 10, channels), dtype=np.uint8)
    decoded = imaging.decode(samples.astype(np.uint16) * 257 if bits == 16 else samples)
    return replace(decoded, **metadata)


@pytest.mark.parametrize(
    ("form", "side", "roomier"),
    [
        ("jpeg", 65535, "PNG or TIFF"),
        ("webp", 16383, "PNG or JPEG or TIFF"),
        ("png", 2**31 - 1, "smaller scale"),
    ],
)
def test_sides_end_where_the_format_says(form, side, roomier):
    assert imaging.check_output(form, side, 5) == imaging.check_output(form, 5, side) == []
    for width, height in ((side + 1, 5), (5, side + 1)):
        with pytest.raises(ImageError, match=f"{side} pixels.*{roomier}"):
            imaging.check_output(form, width, height)


def test_jpeg_and_transparency():
    with pytest.raises(ImageError, match=r"transparency.*PNG, WebP or TIFF.*flatten"):
        imaging.check_output("jpg", 5, 5, alpha=True)
    assert imaging.check_output("jpg", 5, 5, alpha=True, flatten=True) == []
    assert imaging.check_output("webp", 5, 5, alpha=True) == []


@pytest.mark.parametrize(("form", "kept"), [("jpeg", 8), ("webp", 8), ("png", 16), ("tiff", 32)])
def test_lost_bits_are_announced(form, kept):
    for bits in (16, 32):
        notices = imaging.check_output(form, 5, 5, bits=bits)
        assert len(notices) == (bits > kept)
        assert all(f"as {kept} bits" in notice for notice in notices)


@pytest.mark.parametrize("name", ["a.gif", "heic", "", "noextension"])
def test_unknown_formats(name):
    with pytest.raises(ImageError, match="png, jpeg, webp, tiff"):
        imaging.format_of(name)


@pytest.mark.parametrize(
    ("name", "form"), [("a.JPG", "jpeg"), ("tif", "tiff"), ("x/y.Jpeg", "jpeg"), ("png", "png")]
)
def test_known_formats(name, form):
    assert imaging.format_of(name).name == form


def test_sixteen_bits_into_jpeg(tmp_path):
    (notice,) = imaging.write(picture(bits=16), tmp_path / "a.jpg")
    assert "16-bit" in notice and "8 bits" in notice
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.mode == "RGB" and image.size == (10, 6)


def test_quality_is_used(tmp_path):
    sizes = {}
    for extension in ("jpg", "webp"):
        for quality in (5, 60, 100):
            path = tmp_path / f"{quality}.{extension}"
            imaging.write(picture(), path, quality=quality)
            sizes[extension, quality] = path.stat().st_size
    assert sizes["jpg", 5] < sizes["jpg", 60] < sizes["jpg", 100]
    assert sizes["webp", 5] < sizes["webp", 60]
    np.testing.assert_array_equal(  # 100 is lossless in WebP
        imaging.read(tmp_path / "100.webp").color, picture().color
    )
    with pytest.raises(ImageError, match="outside 1…100"):
        imaging.write(picture(), tmp_path / "a.jpg", quality=0)


def test_flattening(tmp_path):
    color = torch.tensor([1.0, 0.5, 0.0])[None, :, None, None].expand(1, 3, 4, 4)
    half = imaging.Picture(color, alpha=torch.full((1, 1, 4, 4), 0.5))
    imaging.write(half, tmp_path / "a.png", flatten="#0000ff")
    assert imaging.read(tmp_path / "a.png").alpha is None
    with Image.open(tmp_path / "a.png") as image:
        np.testing.assert_allclose(np.asarray(image)[0, 0], [128, 64, 128], atol=1)
    gray = imaging.Picture(color[:, 1:2].expand(1, 3, 4, 4), alpha=half.alpha, gray=True)
    for ground, mode in (("white", "L"), ("red", "RGB")):
        imaging.write(gray, tmp_path / "b.jpg", flatten=ground)
        with Image.open(tmp_path / "b.jpg") as image:
            assert image.mode == mode
    with pytest.raises(ImageError, match="'plaid' is no colour"):
        imaging.write(half, tmp_path / "c.jpg", flatten="plaid")
    assert not (tmp_path / "c.jpg").exists()


def test_batches_are_refused(tmp_path):
    with pytest.raises(ImageError, match="batch of 2"):
        imaging.write(imaging.decode(torch.rand(2, 3, 4, 4)), tmp_path / "a.png")


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jpg"])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_failed_write_leaves_the_old_file_and_no_other(name, bits, tmp_path, monkeypatch):
    (tmp_path / name).write_bytes(b"old")

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(ImageError, match="No space left") as refusal:
        imaging.write(picture(bits=bits), tmp_path / name)
    assert str(tmp_path / name) in str(refusal.value)
    assert os.listdir(tmp_path) == [name] and (tmp_path / name).read_bytes() == b"old"


@pytest.mark.parametrize("name", ["photo.png", "a.tif", "ü" * 120 + ".jpg"])
def test_the_unfinished_file_is_hidden_and_named_after_its_target(name, tmp_path, monkeypatch):
    seen = []
    replace_file = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (seen.append(a), replace_file(a, b)))
    for _ in range(2):
        imaging.write(picture(), tmp_path / name)
    assert len(set(seen)) == 2 and os.listdir(tmp_path) == [name]
    for path in seen:
        assert path.parent == tmp_path and path.suffix == ".part"
        assert path.name.startswith("." + name[:80])


def test_paths_that_cannot_be_are_refused(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "a.png", tmp_path / "a\0b" / "a.png", tmp_path / "a\0b.png"):
        with pytest.raises(ImageError, match="cannot write"):
            imaging.write(picture(), path)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ImageError, match=r"No such file.*Check the folder"):
        imaging.write(picture(), tmp_path / "nowhere" / "a.png")


def test_exif_too_long_for_jpeg(tmp_path):
    exif = Image.Exif()
    exif[0x010E] = "x" * 70000
    notices = imaging.write(picture(exif=exif.tobytes(), icc=profile("RGB ")), tmp_path / "a.jpg")
    assert any("EXIF" in notice for notice in notices)
    read = imaging.read(tmp_path / "a.jpg")
    assert read.exif is None and read.icc == profile("RGB ")


def test_new_files_get_ordinary_permissions(tmp_path):
    imaging.write(picture(), tmp_path / "a.png")
    plain = tmp_path / "plain"
    plain.touch()
    assert (tmp_path / "a.png").stat().st_mode == plain.stat().st_mode


def test_big_tiff_keeps_exif(tmp_path, monkeypatch):
    """4 GB are more than a test can write, so BigTIFF is forced."""
    write = tiff.tifffile.imwrite
    monkeypatch.setattr(tiff.tifffile, "imwrite", lambda *a, **k: write(*a, **k, bigtiff=True))
    exif = Image.Exif()
    exif[0x8769] = {0x9003: "2024:05:06 07:08:09"}
    imaging.write(picture(exif=exif.tobytes()), tmp_path / "a.tif")
    assert (tmp_path / "a.tif").read_bytes()[:4] == b"II+\0"
    again = Image.Exif()
    again.load(imaging.read(tmp_path / "a.tif").exif)
    assert again.get_ifd(0x8769)[0x9003] == "2024:05:06 07:08:09"
