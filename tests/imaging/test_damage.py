"""Files that are no pictures, damaged, too large or of unusable samples: one clear ImageError each."""

import os
import threading

import numpy as np
import pytest
import tifffile
from PIL import Image
from sample_pictures import camera_exif, write_deep

from clit_zoo import imaging
from clit_zoo.errors import ImageError
from clit_zoo.imaging import files


def broken(path, reason):
    for act in (imaging.read, imaging.decode):
        with pytest.raises(ImageError) as refusal:
            act(path)
        text = str(refusal.value)
        assert os.fspath(path) in text and reason in text, text
        assert "\n" not in text and text.endswith(".")


def test_files_that_are_no_pictures(tmp_path):
    broken(tmp_path / "missing.png", "does not exist")
    broken(tmp_path, "is a folder")
    broken("https://example.com/a.png", "web address, which is not read; download the picture first")
    (tmp_path / "empty.png").touch()
    broken(tmp_path / "empty.png", "is empty")
    (tmp_path / "text.jpg").write_text("not a picture at all, whatever its name says")
    broken(tmp_path / "text.jpg", "not a picture")
    os.mkfifo(tmp_path / "pipe.png")
    broken(tmp_path / "pipe.png", "not a regular file")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    broken(tmp_path / "loop.png", "symbolic links; check the path")
    broken(tmp_path / ("x" * 300), "too long; check the path")
    with pytest.raises(ImageError, match=r"'a\\x00b.png' cannot be a path .*null.*; check it\.$"):
        imaging.read("a\0b.png")


def test_formats_that_cannot_be_read(tmp_path, rgb):
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    (tmp_path / "b.HEIF").write_bytes(b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(100))
    # such a one has a thumbnail before the photograph
    Image.fromarray(rgb).save(tmp_path / "c.tif")
    (tmp_path / "c.tif").rename(tmp_path / "c.NEF")
    for name in ("a.heic", "b.HEIF", "c.NEF"):
        broken(tmp_path / name, "save it as JPEG, PNG or TIFF first")
        with pytest.raises(ImageError, match="cannot be read here"):
            imaging.probe(tmp_path / name)
    # a JPEG whatever its name says
    Image.fromarray(rgb).save(tmp_path / "d.heic", format="jpeg")
    assert imaging.read(tmp_path / "d.heic").width == rgb.shape[1]


@pytest.mark.parametrize("extension", ["png", "jpg", "webp", "gif", "bmp", "tif", "deep.png", "deep.tif"])
def test_truncated_files(extension, tmp_path):
    noise = np.random.default_rng(3).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    path = tmp_path / f"cut.{extension}"
    if extension.startswith("deep"):
        write_deep(path, noise.astype(np.uint16) * 256)
    else:
        Image.fromarray(noise).save(path)
    whole = path.read_bytes()
    for keep in (1 / 2, 0.97):
        path.write_bytes(whole[: int(len(whole) * keep)])
        with pytest.raises(ImageError, match=r"damaged|ends before|not a picture") as refusal:
            imaging.read(path)
        assert str(path) in str(refusal.value)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_random_damage_never_escapes_as_another_error(tmp_path, deep, rgb):
    rng = np.random.default_rng(4)
    write_deep(tmp_path / "a.png", deep)
    write_deep(tmp_path / "a.tif", deep)
    Image.fromarray(rgb).save(tmp_path / "b.tif", compression="tiff_lzw")
    Image.fromarray(rgb).save(tmp_path / "b.png", exif=camera_exif().tobytes())
    Image.fromarray(rgb).save(tmp_path / "b.jpg", exif=camera_exif().tobytes())
    for name in ("a.png", "a.tif", "b.tif", "b.png", "b.jpg"):
        whole = (tmp_path / name).read_bytes()
        for _ in range(60):
            spoilt = bytearray(whole)
            for position in rng.integers(0, min(len(whole), 400), 4):
                spoilt[position] = rng.integers(0, 256)
            (tmp_path / f"x{name}").write_bytes(bytes(spoilt))
            for act in (imaging.probe, imaging.read):
                try:
                    act(tmp_path / f"x{name}")
                except ImageError as error:
                    assert f"x{name}" in str(error)


def test_too_many_pixels(tmp_path, monkeypatch, rgb, deep):
    monkeypatch.setattr(files, "MAX_INPUT_PIXELS", 59)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    Image.fromarray(rgb).save(tmp_path / "a.jpg")
    write_deep(tmp_path / "deep.png", deep)
    write_deep(tmp_path / "deep.tif", deep)
    for name in ("a.png", "a.jpg", "deep.png", "deep.tif"):
        for act in (imaging.probe, imaging.read):
            with pytest.raises(ImageError, match=r"10×6 .* limit"):
                act(tmp_path / name)


def test_too_many_samples_per_pixel(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_INPUT_PIXELS", 60)
    layout = {"photometric": "rgb", "planarconfig": "separate"}
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((100, 6, 10), np.uint16), **layout)
    for act in (imaging.probe, imaging.read):
        with pytest.raises(ImageError, match=r"a\.tif has 10×6 pixels of 100 samples \(uint16\).* limit"):
            act(tmp_path / "a.tif")
    for samples, dtype in ((5, np.uint16), (4, np.float32)):
        tifffile.imwrite(tmp_path / "a.tif", np.zeros((samples, 6, 10), dtype), **layout)
        assert imaging.read(tmp_path / "a.tif").width == 10


def test_pillows_own_limit_is_passed_and_put_back(tmp_path, monkeypatch, rgb):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    Image.fromarray(rgb).save(tmp_path / "a.bmp")
    seen = []
    threads = [
        threading.Thread(target=lambda: seen.append(imaging.read(tmp_path / "a.bmp"))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 4 and Image.MAX_IMAGE_PIXELS == 10


def test_tiff_samples_that_cannot_be_enlarged(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 4, 3), np.uint32), photometric="rgb")
    broken(tmp_path / "a.tif", "uint32")
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 4), np.int16))
    broken(tmp_path / "a.tif", "int16")
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 4), np.int8))
    broken(tmp_path / "a.tif", "int8")
    tifffile.imwrite(tmp_path / "a.tif", np.full((4, 4, 3), 7, np.float32), photometric="rgb")
    broken(tmp_path / "a.tif", "divide by 255, or convert to 8-bit integers")
    tifffile.imwrite(tmp_path / "a.tif", np.full((4, 4, 3), 700, np.float32), photometric="rgb")
    broken(tmp_path / "a.tif", "divide by 65535, or convert to 16-bit integers")
