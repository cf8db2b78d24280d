"""Files that are no pictures, damaged or too large: one clear ImageError each."""

import os
import struct
import threading
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image
from sample_pictures import as_uint16, deep_png, write_deep

from clit_zoo import imaging
from clit_zoo.errors import ImageError
from clit_zoo.imaging import files, formats


def broken(path, reason):
    for act in (imaging.probe, imaging.decode):
        with pytest.raises(ImageError) as refusal:
            act(path)
        text = str(refusal.value)
        assert os.fspath(path) in text and reason in text, text
        assert "\n" not in text and text.endswith(".")


def test_files_that_are_no_pictures(tmp_path):
    broken(tmp_path / "missing.png", "cannot be read: No such file or directory")
    broken(tmp_path, "is not a regular file; name a picture")
    broken("https://example.com/a.png", "web address, which is not read; download the picture first")
    (tmp_path / "empty.png").touch()
    broken(tmp_path / "empty.png", "not a picture")
    (tmp_path / "text.jpg").write_text("not a picture at all, whatever its name says")
    broken(tmp_path / "text.jpg", "not a picture")
    os.mkfifo(tmp_path / "pipe.png")
    broken(tmp_path / "pipe.png", "is not a regular file")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    broken(tmp_path / "loop.png", "symbolic links")
    broken(tmp_path / ("x" * 300), "too long")
    broken("a\0b.png", "null byte")


def test_web_addresses():
    for path in ("https://x.org/a.png", "https:/x.org/a.png", "https:\\x.org/a.png"):
        broken(path, "is a web address, which is not read; download the picture first")
    for other in ("a/https:/b.png", "http.png", "c:/a.png", "https/a.png"):
        broken(other, "No such file")


def test_formats_that_cannot_be_read(tmp_path, rgb, monkeypatch):
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(files, "_plug_ins", lambda: False)
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    broken(tmp_path / "a.heic", "without the package pillow-heif: `pip install pillow-heif`, or save it")
    Image.fromarray(rgb).save(tmp_path / "c.tif")  # a raw photograph has a thumbnail before it
    (tmp_path / "c.tif").rename(tmp_path / "c.NEF")
    broken(tmp_path / "c.NEF", "cannot be read here: save it as JPEG, PNG or TIFF first")
    Image.fromarray(rgb).save(tmp_path / "d.heic", format="jpeg")  # a JPEG whatever its name says
    assert imaging.read(tmp_path / "d.heic").width == rgb.shape[1]


@pytest.mark.parametrize("depth", [8, 16])
def test_a_damaged_png(depth, tmp_path):
    """Its rows, its checksums and its stream; a stream that goes on is read as far as the header promises."""
    path = tmp_path / "in.png"

    def png(rows, height, data=None):
        header = struct.pack(">IIBBBBB", 24, height, depth, 2, 0, 0, 0)
        stream = zlib.compress(b"".join(b"\0" + bytes([200]) * (24 * 3 * depth // 8) for _ in range(rows)), 0)
        chunks = ((b"IHDR", header), (b"IDAT", data or stream), (b"IEND", b""))
        parts = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
        return b"\x89PNG\r\n\x1a\n" + b"".join(parts)

    path.write_bytes(png(20, 20))
    assert imaging.read(path).color.min() > 0.7
    path.write_bytes(png(2_000_000 // 24, 20))
    assert imaging.read(path).height == 20
    flipped = bytearray(png(20, 20))
    flipped[200] ^= 1
    for data in (
        png(20, 40),
        bytes(flipped),
        png(20, 20, b"garbage"),
        png(20, 20, zlib.compress(b"\x07" * 9999)),
    ):
        path.write_bytes(data)
        with pytest.raises(ImageError, match="damaged"):
            imaging.read(path)
    path.write_bytes(png(20, 0))
    broken(path, "damaged")


def test_interlaced_and_keyed_deep_png(tmp_path, deep):
    """Adam7, straight from the specification, and a colour that stands for transparency."""
    passes = (
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    )
    parts = [deep[y::dy, x::dx, :3] for y, x, dy, dx in passes]
    stream = b"".join(b"\0" + row.astype(">u2").tobytes() for part in parts if part.size for row in part)
    whole = imagecodecs.png_encode(np.ascontiguousarray(deep[..., :3]))
    header = bytearray(whole[12:29])
    header[-1] = 1
    data = whole[:12] + header + struct.pack(">I", zlib.crc32(header))
    for name, body in ((b"IDAT", zlib.compress(stream)), (b"IEND", b"")):
        data += struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    (tmp_path / "in.png").write_bytes(data)
    np.testing.assert_array_equal(as_uint16(tmp_path / "in.png"), deep[..., :3])
    deep_png(tmp_path / "in.png", deep[..., :3], [(b"tRNS", deep[1, 2, :3].astype(">u2").tobytes())])
    samples = as_uint16(tmp_path / "in.png")
    assert samples[1, 2, 3] == 0 and (samples[..., 3] == 0).sum() == 1
    assert imaging.probe(tmp_path / "in.png").alpha


def test_too_many_pixels(tmp_path, monkeypatch, rgb, deep):
    monkeypatch.setattr(files, "MAX_INPUT_PIXELS", 59)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    Image.fromarray(rgb).save(tmp_path / "a.jpg")
    write_deep(tmp_path / "deep.png", deep)
    write_deep(tmp_path / "deep.tif", deep)
    for name in ("a.png", "a.jpg", "deep.png", "deep.tif"):
        broken(tmp_path / name, "has 10×6 = 0 million pixels, more than the limit")


def test_too_many_samples_per_pixel(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_INPUT_PIXELS", 60)
    layout = {"photometric": "rgb", "planarconfig": "separate"}
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((100, 6, 10), np.uint16), **layout)
    broken(tmp_path / "a.tif", "has 10×6 = 0 million pixels of 200 bytes, more than the limit")
    for samples, dtype in ((5, np.uint16), (4, np.float32)):
        tifffile.imwrite(tmp_path / "a.tif", np.zeros((samples, 6, 10), dtype), **layout)
        assert imaging.read(tmp_path / "a.tif").width == 10


def test_pillows_own_limit_is_passed_and_put_back(tmp_path, monkeypatch, rgb):
    """A TIFF asks for it twice: when opened, and when its pixels are loaded."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(Image.DecompressionBombError):
        Image._decompression_bomb_check((10, 6))
    Image.fromarray(rgb).save(tmp_path / "a.bmp")
    for compression in ("raw", "tiff_lzw"):
        Image.fromarray(rgb).save(tmp_path / f"{compression}.tif", compression=compression)
        assert imaging.read(tmp_path / f"{compression}.tif").width == 10
    seen = []
    threads = [
        threading.Thread(target=lambda: seen.append(imaging.read(tmp_path / "a.bmp"))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 4 and Image.MAX_IMAGE_PIXELS == 10
