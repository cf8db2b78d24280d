"""The ways a TIFF of more than 8 bits can be stored, and what is bounded or refused in reading any."""

import struct
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from PIL import TiffImagePlugin
from sample_pictures import as_uint16, enlarged

from clit_zoo import imaging
from clit_zoo.errors import ImageError

BYTEWISE = {
    "lzw": 5, "zlib": 8, "deflate": 32946, "packbits": 32773, "lzma": 34925, "zstd": 50000
}  # fmt: skip


def tiff(strips, *, height=20, width=24, bits=16, compression=1, rows=None, **tags):
    """The bytes of a gray TIFF of the given strips, tag by tag."""
    offsets = [8 + sum(map(len, strips[:i])) for i in range(len(strips))]
    counts, body = [len(strip) for strip in strips], b"".join(strips)
    table_at, tables = 8 + len(body), b""
    entries = {256: height, 257: height, 258: bits, 259: compression, 262: 1, 277: 1, 278: rows or height}
    entries |= {256: width, 273: offsets, 279: counts} | {int(tag[1:]): value for tag, value in tags.items()}
    listed = b""
    for tag, value in sorted(entries.items()):
        values = value if isinstance(value, list) else [value]
        data = struct.pack(f"<{len(values)}I", *values)
        if len(values) > 1:
            tables, data = tables + data, struct.pack("<I", table_at + len(tables))
        listed += struct.pack("<HHI", tag, 4, len(values)) + data
    head = struct.pack("<2sHI", b"II", 42, table_at + len(tables))
    return head + body + tables + struct.pack("<H", len(entries)) + listed + bytes(4)


def test_layouts(deep, tmp_path):
    color, path = deep[..., :3], tmp_path / "in.tif"
    for options in (
        {"byteorder": ">", "compression": "zlib", "predictor": True},
        {"bigtiff": True, "tile": (16, 16)},
        {"compression": "lzw", "predictor": True, "rowsperstrip": 4},  # Photoshop's usual file
        {"compression": "zstd", "rowsperstrip": 1},
        {"compression": "packbits"},
    ):
        tifffile.imwrite(path, color, photometric="rgb", **options)
        np.testing.assert_array_equal(as_uint16(path), color, err_msg=str(options))
    tifffile.imwrite(path, np.moveaxis(color, -1, 0), photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(as_uint16(path), color)
    tifffile.imwrite(path, 65535 - color[..., 0], photometric="miniswhite")
    np.testing.assert_array_equal(as_uint16(path)[..., 0], color[..., 0])
    tifffile.imwrite(path, np.stack([color, color]), photometric="rgb")
    assert any("several frames or pages" in notice for notice in imaging.read(path).notices)
    tifffile.imwrite(path, np.full((4, 4, 4), [0, 0, 65535, 0], np.uint16), photometric="separated")
    assert as_uint16(path)[0, 0].tolist() == [65535, 65535, 0] and "CMYK" in imaging.read(path).notices[0]


def test_floating_point_predictor(tmp_path):
    samples = np.random.default_rng(5).random((6, 10, 3)).astype(np.float32)
    tifffile.imwrite(tmp_path / "in.tif", samples, photometric="rgb", compression="zlib", predictor=True)
    assert torch.equal(imaging.read(tmp_path / "in.tif").color[0].permute(1, 2, 0), torch.from_numpy(samples))


def test_premultiplied_and_unmarked_channels(tmp_path):
    color, alpha = np.uint16([40000, 20000, 10000]), 32768
    stored = np.tile(np.uint16([*(color * (alpha / 65535)).round(), alpha]), (4, 4, 1))
    tifffile.imwrite(tmp_path / "in.tif", stored, photometric="rgb", extrasamples=["assocalpha"])
    np.testing.assert_allclose(as_uint16(tmp_path / "in.tif")[0, 0], [*color, alpha], atol=2)
    tifffile.imwrite(tmp_path / "in.tif", stored, photometric="rgb", extrasamples=["unspecified"])
    picture = imaging.read(tmp_path / "in.tif")
    assert picture.alpha is None and "not marked as transparency" in picture.notices[0]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    "kind", [{"shaped": True}, {"ome": True}, {"imagej": True}, {"description": "A cat", "metadata": None}]
)
def test_descriptions_of_the_old_layout_are_left_out(kind, dtype, deep, tmp_path):
    tifffile.imwrite(tmp_path / "in.tif", deep[..., 0].astype(dtype), photometric="minisblack", **kind)
    enlarged(tmp_path / "in.tif", tmp_path / "out.tif")
    with tifffile.TiffFile(tmp_path / "out.tif") as file:
        assert file.pages[0].description == kind.get("description", "")
        assert file.series[0].shape == (12, 20)


@pytest.mark.parametrize("name", BYTEWISE)
def test_a_strip_gives_no_more_than_its_rows(name, tmp_path):
    """Three megabytes could become six gigabytes; here a thousand times the picture must leave no trace."""
    encode, path = getattr(imagecodecs, f"{name}_encode"), tmp_path / "in.tif"
    samples = np.arange(480, dtype="<u2").reshape(20, 24)
    path.write_bytes(tiff([bytes(encode(samples.tobytes()))], compression=BYTEWISE[name]))
    np.testing.assert_array_equal(as_uint16(path)[..., 0], samples)
    strips = [encode(rows.tobytes()) for rows in (samples[:8], samples[8:16], samples[12:])]
    path.write_bytes(tiff(list(map(bytes, strips)), height=18, rows=8, compression=BYTEWISE[name]))
    np.testing.assert_array_equal(as_uint16(path)[:16, :, 0], samples[:16])  # the last strip is as long, too
    np.testing.assert_array_equal(as_uint16(path)[16:, :, 0], samples[12:14])
    whole = bytes(encode(np.random.default_rng(0).bytes(960)))
    path.write_bytes(tiff([whole[: len(whole) // 2]], compression=BYTEWISE[name]))
    with pytest.raises(ImageError, match="damaged"):
        imaging.read(path)
    seen = []
    decoder = tifffile.TIFF.DECOMPRESSORS[BYTEWISE[name]]
    bomb = b"\x81\0" * 8000 if name == "packbits" else bytes(encode(bytes(1_000_000)))
    try:
        seen.append(len(decoder(bomb, out=960)))  # cut off at what tifffile asks for
    except Exception:
        seen.append(0)  # or refused
    assert seen[0] <= 960
    for options in ({}, {"rows": 2**32 - 1}, {"height": 18, "rows": 8}):
        path.write_bytes(tiff([bomb] * 3, compression=BYTEWISE[name], **options))
        try:
            assert imaging.read(path).width == 24
        except ImageError as error:
            assert "damaged" in str(error)


def test_compressions_of_pictures_are_refused(deep, tmp_path):
    tifffile.imwrite(tmp_path / "in.tif", deep[..., 0], compression="jpeg2000", photometric="minisblack")
    with pytest.raises(ImageError, match="JPEG2000 compression cannot be read here; save it with LZW"):
        imaging.read(tmp_path / "in.tif")


def test_tiles_far_larger_than_the_picture_are_refused(tmp_path):
    tile = zlib.compress(bytes(1000))
    for bits in (8, 16):
        data = tiff([tile], bits=bits, compression=8, t322=32768, t323=32768, t324=8, t325=len(tile))
        (tmp_path / "in.tif").write_bytes(data)
        with pytest.raises(ImageError, match="tiles of 32768×32768 pixels"):
            imaging.read(tmp_path / "in.tif")


@pytest.mark.parametrize("compression", [1, 8])
@pytest.mark.parametrize("bits", [8, 16])
def test_missing_strips_are_refused(bits, compression, tmp_path):
    """They would be read as black."""
    path, rows = tmp_path / "in.tif", np.full((5, 4 * 24 * bits // 8), 200, np.uint8)
    strips = [row.tobytes() if compression == 1 else zlib.compress(row.tobytes()) for row in rows]
    options = {"bits": bits, "compression": compression, "rows": 4}
    path.write_bytes(tiff(strips, **options))
    assert imaging.read(path).color.min() > 0.7
    offsets = [8 + sum(map(len, strips[:i])) for i in range(5)]
    counts = [len(strip) for strip in strips]
    holes = (
        {"t279": [*counts[:2], 0, *counts[3:]]},
        {"t273": [*offsets[:2], 0, *offsets[3:]]},
        {"height": 40},
        {"height": 1_000_000},
    )
    for hole in holes:
        path.write_bytes(tiff(strips, **options | hole))
        with pytest.raises(ImageError, match="ends before its last pixel, or lacks others"):
            imaging.read(path)
    path.write_bytes(tiff(strips, **options | {"t273": [*offsets[:4], 10_000]}))
    with pytest.raises(ImageError, match="ends before its last pixel"):
        imaging.read(path)
    if compression == 1:
        path.write_bytes(tiff(strips, **options | {"t279": [*counts[:4], 10]}))
        with pytest.raises(ImageError, match="ends before its last pixel"):
            imaging.read(path)


@pytest.mark.parametrize("bits", [8, 16])
def test_sides_that_cannot_be_are_refused(bits, tmp_path):
    data = bytearray(tiff([bytes(20 * 24 * bits // 8)], bits=bits))
    at = data.index(struct.pack("<HHI", 256, 4, 1))
    for kind, value in ((4, bytes(4)), (11, struct.pack("<f", 24.5)), (11, struct.pack("<f", np.nan))):
        data[at + 2 : at + 4], data[at + 8 : at + 12] = struct.pack("<H", kind), value
        (tmp_path / "in.tif").write_bytes(data)
        for act in (imaging.probe, imaging.read):
            with pytest.raises(ImageError, match=r"in\.tif.* damaged"):
                act(tmp_path / "in.tif")


def test_samples_that_cannot_be_enlarged(tmp_path):
    for samples, says in (
        (np.zeros((4, 4, 3), np.uint32), "uint32"),
        (np.zeros((4, 4), np.int16), "int16"),
        (np.zeros((4, 4), np.int8), "int8"),
        (np.full((4, 4), 7, np.float32), "from 7 to 7; they must lie in"),
    ):
        tifffile.imwrite(
            tmp_path / "a.tif", samples, photometric="rgb" if samples.ndim == 3 else "minisblack"
        )
        with pytest.raises(ImageError, match=rf"a\.tif.*{says}"):
            imaging.read(tmp_path / "a.tif")


@pytest.mark.parametrize("bits", [8, 16])
def test_pages_are_not_counted(bits, tmp_path, monkeypatch):
    """Pillow takes a second for each 10,000 of them, and that squared."""
    page, pages = tiff([bytes(bits // 8)], height=1, width=1, bits=bits), 20_000
    start = struct.unpack("<I", page[4:8])[0]
    folder = page[start:-4]
    chain = b"".join(
        folder + struct.pack("<I", start + (i + 1) * (len(folder) + 4) if i < pages - 1 else 0)
        for i in range(pages)
    )
    (tmp_path / "in.tif").write_bytes(page[:start] + chain)
    seek, seeks = TiffImagePlugin.TiffImageFile._seek, []

    def spy(image, frame):
        seeks.append(frame)
        seek(image, frame)

    monkeypatch.setattr(TiffImagePlugin.TiffImageFile, "_seek", spy)
    assert "several frames" in imaging.read(tmp_path / "in.tif").notices[0]
    assert len(seeks) <= 1
