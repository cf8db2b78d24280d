"""The ways a TIFF of more than 8 bits can be stored."""

import struct
import zlib

import numpy as np
import pytest
import tifffile
import torch
from sample_pictures import as_uint16, enlarged

from clit_zoo import imaging


def test_deep_tiff_layouts(deep, tmp_path):
    color, path = deep[..., :3], tmp_path / "in.tif"
    tifffile.imwrite(path, np.moveaxis(color, -1, 0), photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(as_uint16(path), color)
    tifffile.imwrite(path, color, photometric="rgb", byteorder=">", compression="zlib", predictor=True)
    np.testing.assert_array_equal(as_uint16(path), color)
    tifffile.imwrite(path, color, photometric="rgb", bigtiff=True, tile=(16, 16))
    np.testing.assert_array_equal(as_uint16(path), color)
    tifffile.imwrite(path, 65535 - color[..., 0], photometric="miniswhite")
    np.testing.assert_array_equal(as_uint16(path)[..., 0], color[..., 0])
    tifffile.imwrite(path, np.stack([color, color]), photometric="rgb")
    assert any("several frames or pages" in notice for notice in imaging.read(path).notices)


def test_premultiplied_and_unmarked_channels(tmp_path):
    color, alpha = np.uint16([40000, 20000, 10000]), 32768
    stored = np.uint16([*(color * (alpha / 65535)).round(), alpha])
    tifffile.imwrite(
        tmp_path / "in.tif", np.tile(stored, (4, 4, 1)), photometric="rgb", extrasamples=["assocalpha"]
    )
    np.testing.assert_allclose(as_uint16(tmp_path / "in.tif")[0, 0], [*color, alpha], atol=2)
    tifffile.imwrite(
        tmp_path / "in.tif", np.tile(stored, (4, 4, 1)), photometric="rgb", extrasamples=["unspecified"]
    )
    picture = imaging.read(tmp_path / "in.tif")
    assert picture.alpha is None and "not marked as transparency" in picture.notices[0]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    "kind", [{"shaped": True}, {"ome": True}, {"imagej": True}, {"description": "A cat", "metadata": None}]
)
def test_descriptions_of_the_old_layout_are_left_out(kind, dtype, deep, tmp_path):
    tifffile.imwrite(tmp_path / "in.tif", deep[..., 0].astype(dtype), photometric="minisblack", **kind)
    with tifffile.TiffFile(tmp_path / "in.tif") as file:
        assert file.pages[0].description
    enlarged(tmp_path / "in.tif", tmp_path / "out.tif")
    with tifffile.TiffFile(tmp_path / "out.tif") as file:
        assert file.pages[0].description == kind.get("description", "")
        assert file.series[0].shape == (12, 20)


@pytest.mark.parametrize("predictor", [1, 2])
@pytest.mark.parametrize("order", ["<", ">"])
def test_lzw_without_imagecodecs(predictor, order, deep, tmp_path):
    """Photoshop's usual 16-bit file: LZW, horizontally differenced, in strips."""
    samples = (deep[..., :3] >> 6 << 6).astype(order + "u2")
    strips = [samples[top : top + 4] for top in range(0, 6, 4)]
    if predictor == 2:
        strips = [
            np.diff(s.astype(np.uint16), axis=1, prepend=np.uint16(0)).astype(order + "u2") for s in strips
        ]
    write_strips(
        tmp_path / "in.tif", [lzw(s.tobytes()) for s in strips], order, 10, 6, 4, 16, 1, 5, predictor
    )
    np.testing.assert_array_equal(as_uint16(tmp_path / "in.tif"), samples)


def test_floating_point_predictor_without_imagecodecs(tmp_path):
    samples = np.random.default_rng(5).random((6, 10, 3)).astype(np.float32)
    planes = samples.reshape(6, 30).astype(">f4").view(np.uint8).reshape(6, 30, 4).swapaxes(1, 2)
    planes = planes.reshape(6, 40, 3)
    packed = np.diff(planes, axis=1, prepend=np.uint8(0))
    write_strips(tmp_path / "in.tif", [zlib.compress(packed.tobytes())], "<", 10, 6, 6, 32, 3, 8, 3)
    assert torch.equal(imaging.read(tmp_path / "in.tif").color[0].permute(1, 2, 0), torch.from_numpy(samples))


def write_strips(path, strips, order, width, height, rows, bits, sample_format, compression, predictor):
    """A minimal RGB TIFF of the given strips."""
    body = b"".join(strips)
    offsets = [8 + sum(map(len, strips[:i])) for i in range(len(strips))]
    counts = [len(strip) for strip in strips]
    tags = {
        256: (4, [width]), 257: (4, [height]), 258: (3, [bits] * 3), 259: (3, [compression]), 262: (3, [2]),
        273: (4, offsets), 277: (3, [3]), 278: (4, [rows]), 279: (4, counts), 317: (3, [predictor]),
        339: (3, [sample_format] * 3),
    }  # fmt: skip
    start = 8 + len(body)
    extra_at, entries, extra = start + 2 + 12 * len(tags) + 4, b"", b""
    for tag, (kind, values) in sorted(tags.items()):
        data = b"".join(struct.pack(order + {3: "H", 4: "I"}[kind], value) for value in values)
        if len(data) > 4:
            extra, data = extra + data, struct.pack(order + "I", extra_at + len(extra))
        entries += struct.pack(order + "HHI", tag, kind, len(values)) + data.ljust(4, b"\0")
    mark = b"II*\0" if order == "<" else b"MM\0*"
    ifd = struct.pack(order + "H", len(tags)) + entries + bytes(4) + extra
    path.write_bytes(mark + struct.pack(order + "I", start) + body + ifd)


def lzw(data):
    """TIFF's LZW, by the rules of the specification: 9 to 12 bits, most significant bit first."""
    table, bits, width, current = {bytes([i]): i for i in range(256)}, "", 9, b""
    next_code = 258
    bits += f"{256:09b}"
    for byte in data:
        longer = current + bytes([byte])
        if longer in table:
            current = longer
            continue
        bits += f"{table[current]:0{width}b}"
        table[longer], next_code = next_code, next_code + 1
        width = 9 if next_code < 511 else 10 if next_code < 1023 else 11 if next_code < 2047 else 12
        if next_code == 4094:
            bits += f"{256:012b}"
            table, width, next_code = {bytes([i]): i for i in range(256)}, 9, 258
        current = bytes([byte])
    bits += f"{table[current]:0{width}b}"
    next_code += 1
    width = 9 if next_code < 511 else 10 if next_code < 1023 else 11 if next_code < 2047 else 12
    bits += f"{257:0{width}b}"
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")
