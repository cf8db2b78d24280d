"""The 16-bit PNG codec: every filter, colour type and interlacing, and damaged files."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from clit_zoo.imaging import png

COLOR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def filtered(samples, kinds):
    """Rows filtered one byte at a time, straight from the specification."""
    _, width, channels = samples.shape
    step = 2 * channels
    rows = [list(row.astype(">u2").tobytes()) for row in samples]
    stream = bytearray()
    above = [0] * (width * step)
    for row, kind in zip(rows, kinds):
        stream.append(kind)
        for i, value in enumerate(row):
            a = row[i - step] if i >= step else 0
            b, c = above[i], above[i - step] if i >= step else 0
            p = a + b - c
            paeth = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            stream.append((value - (0, a, b, (a + b) // 2, paeth)[kind]) & 255)
        above = row
    return bytes(stream)


def encoded(samples, *, interlace=False, extra=b"", kinds=None):
    height, width, channels = samples.shape
    header = struct.pack(">IIBBBBB", width, height, 16, COLOR_TYPES[channels], 0, 0, interlace)
    parts = [samples[y::dy, x::dx] for y, x, dy, dx in PASSES] if interlace else [samples]
    stream = b"".join(
        filtered(part, kinds or [i % 5 for i in range(len(part))]) for part in parts if part.size
    )
    packed = zlib.compress(stream)
    data = b"".join(chunk(b"IDAT", packed[i : i + 1000]) for i in range(0, len(packed), 1000))
    return png.SIGNATURE + chunk(b"IHDR", header) + extra + data + chunk(b"IEND", b"")


def smooth(height, width, channels):
    ramp = np.add.outer(np.arange(height) * 301, np.arange(width) * 97)[..., None]
    noise = np.random.default_rng(height).integers(0, 900, (height, width, channels))
    return ((ramp + noise) % 65536).astype(np.uint16)


@pytest.mark.parametrize("interlace", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 3), (5, 1, 1), (1, 9, 4), (7, 5, 2), (23, 17, 3), (9, 2, 4)])
def test_reads_every_filter_and_colour_type(shape, interlace):
    samples = smooth(*shape)
    read, _ = png.read_png(io.BytesIO(encoded(samples, interlace=interlace)))
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read, samples)


@pytest.mark.parametrize("kind", [0, 1, 2, 3, 4])
def test_reads_each_filter_alone_across_blocks(kind, monkeypatch):
    monkeypatch.setattr(png, "_BLOCK", 4)
    samples = smooth(11, 6, 3)
    read, _ = png.read_png(io.BytesIO(encoded(samples, kinds=[kind] * 11)))
    np.testing.assert_array_equal(read, samples)


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 7, 2), (40, 30, 3), (3, 5, 4)])
def test_writes_what_it_and_pillow_read(shape):
    samples = smooth(*shape)
    file = io.BytesIO()
    png.write_png(
        file, samples, icc=b"profile" * 50, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0", dpi=(300, 150)
    )
    read, chunks = png.read_png(file)
    np.testing.assert_array_equal(read, samples)
    assert png.icc_of(chunks) == b"profile" * 50
    assert png.dpi_of(chunks) == pytest.approx((300, 150), abs=0.02)
    assert chunks[b"eXIf"].startswith(b"MM")
    file.seek(0)
    with Image.open(file) as image:  # Pillow checks structure and checksums, and keeps the high bytes
        image.load()
        assert image.size == (shape[1], shape[0])
        if shape[2] in (3, 4):
            np.testing.assert_array_equal(np.asarray(image), samples >> 8)


def test_pictures_of_several_bands():
    samples = smooth(1100, 1000, 1)
    file = io.BytesIO()
    png.write_png(file, samples)
    np.testing.assert_array_equal(png.read_png(file)[0], samples)


def test_a_colour_key_becomes_alpha():
    samples = smooth(4, 4, 3)
    key = samples[1, 2].astype(">u2").tobytes()
    read, _ = png.read_png(io.BytesIO(encoded(samples, extra=chunk(b"tRNS", key))))
    assert read.shape == (4, 4, 4)
    assert read[1, 2, 3] == 0 and (read[..., 3] == 0).sum() == 1


def test_damage_is_told_apart():
    whole = encoded(smooth(40, 40, 3))
    with pytest.raises(png.PngError, match="truncated"):
        png.read_png(io.BytesIO(whole[: len(whole) // 2]))
    flipped = bytearray(whole)
    flipped[300] ^= 1
    with pytest.raises(png.PngError, match="checksum of its IDAT"):
        png.read_png(io.BytesIO(bytes(flipped)))
    short = smooth(20, 40, 3)
    lying = encoded(short).replace(struct.pack(">II", 40, 20), struct.pack(">II", 40, 400), 1)
    start = lying.index(b"IHDR")
    lying = (
        lying[: start + 17] + struct.pack(">I", zlib.crc32(lying[start : start + 17])) + lying[start + 21 :]
    )
    with pytest.raises(png.PngError, match=r"last pixel$"):
        png.read_png(io.BytesIO(lying))
    stream = zlib.compress(b"\x07\0\0")
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 0, 0, 0, 0))
    with pytest.raises(png.PngError, match="filter"):
        png.read_png(io.BytesIO(png.SIGNATURE + header + chunk(b"IDAT", stream) + chunk(b"IEND", b"")))
    with pytest.raises(png.PngError, match="compressed pixels are damaged"):
        png.read_png(io.BytesIO(png.SIGNATURE + header + chunk(b"IDAT", b"garbage")))


def test_a_bomb_is_not_inflated():
    """A stream that unpacks to far more than the header promises is read only as far as promised."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 0, 0, 0, 0))
    bomb = zlib.compress(bytes(5_000_000))
    read, _ = png.read_png(io.BytesIO(png.SIGNATURE + header + chunk(b"IDAT", bomb) + chunk(b"IEND", b"")))
    assert read.shape == (1, 1, 1)


def test_headers():
    assert png.parse_header(b"\xff\xd8" + bytes(40)) is None
    with pytest.raises(png.PngError, match="cut off"):
        png.parse_header(encoded(smooth(2, 2, 1))[:20])
    with pytest.raises(png.PngError, match="impossible"):
        png.parse_header(png.SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", 0, 1, 16, 0, 0, 0, 0)))
