"""Writing: what each format holds, atomically, and what is refused before or while writing."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from sample_pictures import profile

from clit_zoo import imaging
from clit_zoo.errors import ImageError
from clit_zoo.imaging import tiff

resource = pytest.importorskip("resource")  # POSIX


def picture(channels=3, bits=8, **metadata):
    samples = np.random.default_rng(0).integers(0, 256, (6, 10, channels), dtype=np.uint8)
    decoded = imaging.decode(samples.astype(np.uint16) * 257 if bits == 16 else samples)
    return replace(decoded, metadata=imaging.Metadata(**metadata))


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


def test_flattening(tmp_path):
    color = torch.tensor([1.0, 0.5, 0.0])[None, :, None, None].expand(1, 3, 4, 4)
    alpha = torch.full((1, 1, 4, 4), 0.5)
    half = imaging.Picture(torch.cat((color, alpha), 1))
    imaging.write(half, tmp_path / "a.png", flatten="#0000ff")
    assert imaging.read(tmp_path / "a.png").alpha is None
    with Image.open(tmp_path / "a.png") as image:
        np.testing.assert_allclose(np.asarray(image)[0, 0], [128, 64, 128], atol=1)
    gray = imaging.Picture(torch.cat((color[:, 1:2], alpha), 1))
    for ground, mode in (("white", "L"), ("red", "RGB")):
        imaging.write(gray, tmp_path / "b.jpg", flatten=ground)
        with Image.open(tmp_path / "b.jpg") as image:
            assert image.mode == mode
    with pytest.raises(ValueError, match="plaid"):
        imaging.write(half, tmp_path / "c.jpg", flatten="plaid")
    assert not (tmp_path / "c.jpg").exists()


def test_batches_are_refused(tmp_path):
    with pytest.raises(ImageError, match="batch of 2"):
        imaging.write(imaging.decode(torch.rand(2, 3, 4, 4)), tmp_path / "a.png")


def test_paths_that_cannot_be_are_refused(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "a.png", tmp_path / "nowhere" / "a.png"):
        with pytest.raises(OSError, match=str(path)):
            imaging.write(picture(), path)


def test_what_is_too_long_for_jpeg_is_left_out(tmp_path):
    exif = Image.Exif()
    exif[0x010E] = "x" * 70000
    long = picture(exif=exif.tobytes(), xmp=b"x" * 70000, iptc=b"x" * 70000, icc=profile("RGB "))
    notices = imaging.write(long, tmp_path / "a.jpg")
    assert [notice.split()[1] for notice in notices] == ["EXIF", "XMP", "IPTC"]
    kept = imaging.read(tmp_path / "a.jpg").metadata
    assert kept.exif is None and kept.icc == profile("RGB ")
    edge = picture(xmp=b"x" * (65533 - 29), iptc=b"i" * (65533 - 14 - 13))
    assert imaging.write(edge, tmp_path / "a.jpg") == []
    kept = imaging.read(tmp_path / "a.jpg").metadata
    assert len(kept.xmp) == 65504 and len(kept.iptc) == 65506


def test_big_tiff_keeps_exif(tmp_path, monkeypatch):
    """4 GB are more than a test can write, so BigTIFF is forced."""
    monkeypatch.setattr(tiff, "_MAX_CLASSIC", 0)
    exif = Image.Exif()
    exif[0x8769] = {0x9003: "2024:05:06 07:08:09"}
    imaging.write(picture(exif=exif.tobytes()), tmp_path / "a.tif")
    assert (tmp_path / "a.tif").read_bytes()[:4] == b"II+\0"
    again = Image.Exif()
    again.load(imaging.read(tmp_path / "a.tif").metadata.exif)
    assert again.get_ifd(0x8769)[0x9003] == "2024:05:06 07:08:09"
