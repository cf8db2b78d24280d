"""Picture files: what survives a round trip through read, enlarge_picture and write, and what is refused."""

import os
import struct
import threading

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageCms

from clit_zoo import imaging
from clit_zoo.errors import ImageError
from clit_zoo.imaging import files

ORIENTATION, EXIF_IFD, GPS_IFD = 0x0112, 0x8769, 0x8825


def nearest(image, size):
    return torch.nn.functional.interpolate(image, size=size, mode="nearest")


def enlarged(path, target, scale=2, **options):
    """read -> enlarge by pixel repetition -> write: returns the notices."""
    picture = imaging.read(path)
    size = (picture.height * scale, picture.width * scale)
    result = imaging.enlarge_picture(picture, size, nearest)
    return [*picture.notices, *imaging.write(result, target, **options)]


def profile(space):
    if space == "RGB ":
        return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    body = bytearray(profile("RGB "))
    body[16:20] = space.encode()
    return bytes(body)


@pytest.fixture
def rgb():
    return np.random.default_rng(0).integers(0, 256, (6, 10, 3), dtype=np.uint8)


@pytest.fixture
def deep():
    return np.random.default_rng(1).integers(0, 65536, (6, 10, 4), dtype=np.uint16)


def camera_exif(orientation=1):
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif[ORIENTATION] = orientation
    exif[EXIF_IFD] = {
        0x9003: "2024:05:06 07:08:09",
        0x829A: 0.004,
        0xA002: 10,
        0xA003: 6,
        0x9286: b"ASCII\0\0\0hi",
    }
    exif[GPS_IFD] = {1: "N", 2: (48.0, 8.0, 14.25)}
    return exif


# --- what survives ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("extension", ["png", "tif", "webp", "jpg"])
def test_eight_bits_gray_and_alpha(mode, extension, rgb, tmp_path):
    if extension == "jpg" and mode.endswith("A"):
        pytest.skip("JPEG has no alpha")
    image = Image.fromarray(rgb).convert(mode)
    if mode.endswith("A"):
        image.putalpha(Image.fromarray(np.tile(np.uint8([0, 255] * 5), (6, 1))))
    image.save(tmp_path / "in.png")
    assert enlarged(tmp_path / "in.png", tmp_path / f"out.{extension}", scale=1, quality=100) == []
    with Image.open(tmp_path / f"out.{extension}") as output:
        webp = {"L": "RGB", "LA": "RGBA"}.get(mode, mode)
        assert output.mode == (webp if extension == "webp" else mode)
        expected, got = (np.asarray(i.convert("RGBA")).astype(int) for i in (image, output))
    visible = expected[..., 3] > 0
    np.testing.assert_array_equal(got[..., 3], expected[..., 3])
    assert np.abs(got - expected)[visible].max() <= (6 if extension == "jpg" else 0)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("source", ["png", "tif"])
@pytest.mark.parametrize("target", ["png", "tif"])
def test_sixteen_bits_survive(channels, source, target, deep, tmp_path):
    samples = deep[..., [3, 1, 2, 0]][..., :channels].copy()
    if channels in (2, 4):
        samples[..., -1] |= 1  # nowhere fully transparent: there the colour is free to change
    write_deep(tmp_path / f"in.{source}", samples)
    assert imaging.probe(tmp_path / f"in.{source}") == imaging.Header(
        10, 6, channels < 3, channels in (2, 4), 16, {"tif": "tiff"}.get(source, source)
    )
    assert enlarged(tmp_path / f"in.{source}", tmp_path / f"out.{target}", scale=1) == []
    np.testing.assert_array_equal(read_deep(tmp_path / f"out.{target}"), samples)
    enlarged(tmp_path / f"in.{source}", tmp_path / f"big.{target}", scale=2)
    big = read_deep(tmp_path / f"big.{target}")
    np.testing.assert_array_equal(big[::2, ::2, : min(channels, 3) | 1 and (1 if channels < 3 else 3)],
                                  samples[..., : 1 if channels < 3 else 3])  # fmt: skip


def write_deep(path, samples):
    if path.suffix == ".png":
        with open(path, "wb") as file:
            imaging.png.write_png(file, samples)
    else:
        channels = samples.shape[-1]
        tifffile.imwrite(
            path,
            samples if channels > 1 else samples[..., 0],
            photometric="rgb" if channels > 2 else "minisblack",
            planarconfig="contig" if channels > 1 else None,
            extrasamples=["unassalpha"] if channels in (2, 4) else None,
        )


def read_deep(path):
    if path.suffix == ".png":
        with open(path, "rb") as file:
            return imaging.png.read_png(file)[0]
    samples = tifffile.imread(path)
    return samples if samples.ndim == 3 else samples[..., None]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floating_point_tiff_survives(dtype, tmp_path):
    samples = np.random.default_rng(2).random((5, 7, 3)).astype(dtype)
    tifffile.imwrite(tmp_path / "in.tif", samples, photometric="rgb")
    assert imaging.probe(tmp_path / "in.tif").bits == 32
    enlarged(tmp_path / "in.tif", tmp_path / "out.tif", scale=1)
    output = tifffile.imread(tmp_path / "out.tif")
    assert output.dtype == np.float32
    np.testing.assert_allclose(output, samples, atol=1e-7)
    (notice,) = enlarged(tmp_path / "in.tif", tmp_path / "out.png", scale=1)
    assert "32-bit floating-point" in notice and "16 bits" in notice


@pytest.mark.parametrize("extension", ["png", "jpg", "webp", "tif"])
def test_profile_resolution_and_exif_survive(extension, rgb, tmp_path):
    Image.fromarray(rgb).save(
        tmp_path / "in.jpg", icc_profile=profile("RGB "), dpi=(300, 150), exif=camera_exif().tobytes(), quality=100
    )
    assert enlarged(tmp_path / "in.jpg", tmp_path / f"out.{extension}") == []
    check_metadata(tmp_path / f"out.{extension}", has_dpi=extension != "webp")


@pytest.mark.parametrize("extension", ["png", "tif"])
def test_profile_resolution_and_exif_survive_in_sixteen_bits(extension, deep, tmp_path):
    extra = {"icc": profile("RGB "), "dpi": (300, 150), "exif": camera_exif().tobytes()}
    with open(tmp_path / "in.png", "wb") as file:
        imaging.png.write_png(file, deep[..., :3], **extra)
    enlarged(tmp_path / "in.png", tmp_path / f"middle.{extension}", scale=1)
    enlarged(tmp_path / f"middle.{extension}", tmp_path / f"out.{extension}")
    check_metadata(tmp_path / f"out.{extension}")


def check_metadata(path, has_dpi=True):
    picture = imaging.read(path)
    assert (picture.height, picture.width) == (12, 20)
    assert picture.icc == profile("RGB ")
    assert not has_dpi or picture.dpi == pytest.approx((300, 150), abs=0.05)
    exif = Image.Exif()
    exif.load(picture.exif)
    assert exif[0x010F] == "Maker" and exif[ORIENTATION] == 1
    details = exif.get_ifd(EXIF_IFD)
    assert details[0x9003] == "2024:05:06 07:08:09" and float(details[0x829A]) == pytest.approx(0.004)
    assert (details[0xA002], details[0xA003]) == (20, 12)
    assert [float(part) for part in exif.get_ifd(GPS_IFD)[2]] == pytest.approx([48, 8, 14.25])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("extension", ["jpg", "png", "deep.png", "tif", "deep.tif"])
def test_orientation_is_applied_once(orientation, extension, tmp_path):
    upright = np.zeros((4, 6), np.uint8)
    upright[0, 0], upright[0, -1], upright[-1, 0] = 90, 160, 230
    upright = upright.repeat(8, 0).repeat(8, 1)
    turned = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.T,
        6: np.rot90(upright), 7: np.rot90(upright, 2).T, 8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    stored, path = np.ascontiguousarray(turned), tmp_path / f"in.{extension}"
    exif = camera_exif(orientation)
    if extension == "deep.png":
        with open(path, "wb") as file:
            imaging.png.write_png(file, stored[..., None].astype(np.uint16) * 257, exif=exif.tobytes())
    elif extension == "deep.tif":
        tags = [(ORIENTATION, "H", 1, orientation, True)]
        tifffile.imwrite(path, stored.astype(np.uint16) * 257, photometric="minisblack", extratags=tags)
    else:
        Image.fromarray(stored).save(path, exif=exif.tobytes(), **({"dpi": (300, 150)} if extension == "jpg" else {}))
    assert (imaging.probe(path).height, imaging.probe(path).width) == upright.shape
    enlarged(path, tmp_path / f"out.{extension}")
    again = imaging.read(tmp_path / f"out.{extension}")
    got = (again.color[0, 0] * 255).round().numpy()
    assert np.abs(got - upright.repeat(2, 0).repeat(2, 1)).max() <= (4 if extension == "jpg" else 0)
    if extension == "jpg":
        assert again.dpi == ((150, 300) if orientation > 4 else (300, 150))


def test_a_profile_of_other_channels_is_dropped(rgb, tmp_path):
    Image.fromarray(rgb).convert("L").save(tmp_path / "gray.png", icc_profile=profile("GRAY"))
    assert imaging.read(tmp_path / "gray.png").icc == profile("GRAY")
    enlarged(tmp_path / "gray.png", tmp_path / "out.webp")  # WebP has no gray form
    assert imaging.read(tmp_path / "out.webp").icc is None
    Image.fromarray(rgb).convert("CMYK").save(tmp_path / "ink.jpg", icc_profile=profile("CMYK"), quality=100)
    notices = enlarged(tmp_path / "ink.jpg", tmp_path / "out.png", scale=1)
    assert any("CMYK" in notice for notice in notices)
    assert imaging.read(tmp_path / "out.png").icc is None
    with Image.open(tmp_path / "out.png") as output:
        assert np.abs(np.asarray(output).astype(int) - rgb).mean() < 12


# --- the ways a TIFF can be stored -----------------------------------------------------------------------------


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
    assert any("2 frames or pages" in notice for notice in imaging.read(path).notices)


def as_uint16(path):
    return imaging.picture.to_samples(imaging.read(path), np.uint16)[0]


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
    import zlib

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


# --- what is refused -------------------------------------------------------------------------------------------


def broken(path, reason, says=()):
    for act in (imaging.read, imaging.decode):
        with pytest.raises(ImageError) as refusal:
            act(path)
        text = str(refusal.value)
        assert os.fspath(path) in text and reason in text, text
        assert "\n" not in text and text.endswith(".")


def test_files_that_are_no_pictures(tmp_path):
    broken(tmp_path / "missing.png", "does not exist")
    broken(tmp_path, "is a folder")
    (tmp_path / "empty.png").touch()
    broken(tmp_path / "empty.png", "is empty")
    (tmp_path / "text.jpg").write_text("not a picture at all, whatever its name says")
    broken(tmp_path / "text.jpg", "not a picture")
    os.mkfifo(tmp_path / "pipe.png")
    broken(tmp_path / "pipe.png", "not a regular file")


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
        with pytest.raises(ImageError, match="damaged|ends before|not a picture") as refusal:
            imaging.read(path)
        assert str(path) in str(refusal.value)


def test_random_damage_never_escapes_as_another_error(tmp_path, deep, rgb):
    rng = np.random.default_rng(4)
    write_deep(tmp_path / "a.png", deep)
    write_deep(tmp_path / "a.tif", deep)
    Image.fromarray(rgb).save(tmp_path / "b.tif", compression="tiff_lzw", exif=camera_exif().tobytes())
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
            with pytest.raises(ImageError, match="10×6 .* limit"):
                act(tmp_path / name)


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
    tifffile.imwrite(tmp_path / "a.tif", np.full((4, 4, 3), 7, np.float32), photometric="rgb")
    broken(tmp_path / "a.tif", "divide by 255")


def test_only_the_first_frame_of_an_animation(rgb, tmp_path):
    frames = [Image.fromarray(np.roll(rgb, i, axis=0)) for i in range(3)]
    for name in ("a.gif", "a.webp", "a.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        picture = imaging.read(tmp_path / name)
        assert any("3 frames" in notice for notice in picture.notices)
        assert (picture.height, picture.width) == (6, 10)


def test_one_bit_and_palette_files(rgb, tmp_path):
    Image.fromarray(rgb).convert("1").save(tmp_path / "bit.png")
    picture = imaging.read(tmp_path / "bit.png")
    assert picture.gray and set(picture.color.unique().tolist()) <= {0, 1}
    Image.fromarray(rgb).quantize(8).save(tmp_path / "palette.png", transparency=0)
    header, picture = imaging.probe(tmp_path / "palette.png"), imaging.read(tmp_path / "palette.png")
    assert header.alpha and not header.gray and picture.alpha is not None and not picture.gray
