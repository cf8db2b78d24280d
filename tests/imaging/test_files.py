"""What survives a round trip from file to file."""

import struct
from dataclasses import replace

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, IptcImagePlugin, features
from sample_pictures import (
    EXIF_IFD,
    GPS_IFD,
    ORIENTATION,
    as_uint16,
    camera_exif,
    deep_png,
    enlarged,
    profile,
    read_deep,
    write_deep,
)

from clit_zoo import imaging
from clit_zoo.imaging.picture import to_samples


@pytest.mark.parametrize(
    ("mode", "extension"),
    [(m, e) for e in ("png", "tif", "webp") for m in ("L", "LA", "RGB", "RGBA")]
    + [("L", "jpg"), ("RGB", "jpg")],
)
def test_eight_bits_gray_and_alpha(mode, extension, rgb, tmp_path):
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
        6, 10, channels < 3, channels in (2, 4), 16, {"tif": "tiff"}.get(source, source)
    )
    assert enlarged(tmp_path / f"in.{source}", tmp_path / f"out.{target}", scale=1) == []
    np.testing.assert_array_equal(read_deep(tmp_path / f"out.{target}"), samples)
    enlarged(tmp_path / f"in.{source}", tmp_path / f"big.{target}", scale=2)
    big = read_deep(tmp_path / f"big.{target}")
    colors = slice(0, 1 if channels < 3 else 3)
    np.testing.assert_array_equal(big[::2, ::2, colors], samples[..., colors])


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


XMP = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6" dc:title="T\xc3\xbcr"/>
<tiff:Orientation>6</tiff:Orientation></x:xmpmeta>"""


@pytest.mark.parametrize("source", ["jpg", "tif", "deep.tif", "png", "deep.png", "webp"])
@pytest.mark.parametrize("target", ["jpg", "tif", "png", "webp"])
def test_all_that_stands_beside_the_pixels_survives(source, target, rgb, deep, tmp_path):
    """WebP has no place for a resolution; JPEG and TIFF alone have one for IPTC."""
    exif, iptc = camera_exif().tobytes(), b"\x1c\x02\x78\x00\x05Title\x1c\x02\x50\x00\x04Zo\xc3\xab"
    kept = imaging.Metadata(icc=profile("RGB "), exif=exif, xmp=XMP, iptc=iptc, dpi=(300, 150))
    picture = imaging.decode(deep[..., :3] if source.startswith("deep") else rgb)
    imaging.write(replace(picture, metadata=kept), tmp_path / f"in.{source}")
    with Image.open(tmp_path / f"in.{source}") as image:  # others find them, too
        assert image.info["xmp"] == XMP and image.info["icc_profile"] == profile("RGB ")
        assert image.getexif().get_ifd(EXIF_IFD)[0x9003] == "2024:05:06 07:08:09"
        if source in ("jpg", "tif"):
            assert IptcImagePlugin.getiptcinfo(image)[2, 120] == b"Title"
    enlarged(tmp_path / f"in.{source}", tmp_path / f"out.{target}")
    again = imaging.read(tmp_path / f"out.{target}")
    formats = {source.split(".")[-1], target}
    upright = XMP.replace(b'="6"', b'="1"').replace(b">6<", b">1<")
    assert (again.height, again.width) == (12, 20)
    assert "webp" in formats or again.metadata.dpi == pytest.approx((300, 150), abs=0.05)
    assert again.metadata.icc == profile("RGB ") and again.metadata.xmp == upright
    assert again.metadata.iptc == (iptc if formats <= {"jpg", "tif"} else None)
    found = Image.Exif()
    found.load(again.metadata.exif)
    assert found[0x010F] == "Maker" and "rg" in found[0x8298] and found[ORIENTATION] == 1
    details = found.get_ifd(EXIF_IFD)
    assert float(details[0x829A]) == pytest.approx(0.004) and (details[0xA002], details[0xA003]) == (20, 12)
    assert [float(part) for part in found.get_ifd(GPS_IFD)[2]] == pytest.approx([48, 8, 14.25])


@pytest.mark.parametrize("extension", ["png", "jpg", "webp", "tif", "deep.png", "deep.tif"])
def test_text_beyond_ascii_survives(extension, rgb, deep, tmp_path):
    texts = {0x013B: "Müller XYZ".encode(), 0x8298: "© 2020 Foto".encode(), 0x010E: "Köln".encode("latin-1")}
    owner = "Zoë Ωmega".encode()
    exif = Image.Exif()
    for tag, text in texts.items():
        exif[tag] = text
    exif[EXIF_IFD] = {0xA430: "x" * len(owner)}  # given bytes, Pillow would not make it text
    data = exif.tobytes().replace(b"x" * len(owner), owner)
    if extension.startswith("deep"):
        deep_png(tmp_path / "in.png", deep[..., :3], [(b"eXIf", data.removeprefix(b"Exif\0\0"))])
    else:
        Image.fromarray(rgb).save(tmp_path / "in.png", exif=data)
    for source, target in (("in.png", f"a.{extension}"), (f"a.{extension}", f"b.{extension}")):
        enlarged(tmp_path / source, tmp_path / target)
    with Image.open(tmp_path / f"b.{extension}") as output:
        written = output.getexif()
        assert {tag: written[tag].encode("latin-1") for tag in texts} == texts
        assert written.get_ifd(EXIF_IFD)[0xA430].encode("latin-1") == owner


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
        chunk = (b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
        deep_png(path, stored.astype(np.uint16) * 257, [chunk])
    elif extension == "deep.tif":
        tags = [(ORIENTATION, "H", 1, orientation, True)]
        tifffile.imwrite(path, stored.astype(np.uint16) * 257, photometric="minisblack", extratags=tags)
    else:
        Image.fromarray(stored).save(
            path, exif=exif.tobytes(), **({"dpi": (300, 150)} if extension == "jpg" else {})
        )
    assert (imaging.probe(path).height, imaging.probe(path).width) == upright.shape
    enlarged(path, tmp_path / f"out.{extension}")
    again = imaging.read(tmp_path / f"out.{extension}")
    got = (again.color[0, 0] * 255).round().numpy()
    assert np.abs(got - upright.repeat(2, 0).repeat(2, 1)).max() <= (4 if extension == "jpg" else 0)
    if extension == "jpg":
        assert again.metadata.dpi == ((150, 300) if orientation > 4 else (300, 150))


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("pages", [1, 2])
@pytest.mark.parametrize("width", [6, 10])
def test_turn_and_resolution_of_eight_bit_tiff(orientation, pages, width, rgb, tmp_path):
    stored = Image.fromarray(rgb[:, :width])
    more = [stored] * (pages - 1)
    stored.save(
        tmp_path / "in.tif",
        save_all=True,
        append_images=more,
        tiffinfo={ORIENTATION: orientation},
        dpi=(300, 150),
    )
    expected = np.rot90(rgb[:, :width], {1: 0, 3: 2, 6: 3}[orientation])
    dpi = (150, 300) if orientation == 6 else (300, 150)
    with Image.open(tmp_path / "in.tif") as opened, Image.open(tmp_path / "in.tif") as loaded:
        loaded.load()
        # A square picture that Pillow has turned already tells no longer that it was.
        for source in (tmp_path / "in.tif", opened, *([loaded] if width != 6 else [])):
            picture = imaging.decode(source)
            assert picture.metadata.dpi == dpi
            np.testing.assert_array_equal(to_samples(picture, torch.uint8)[0], expected)
    enlarged(tmp_path / "in.tif", tmp_path / "out.tif", scale=1)
    assert imaging.read(tmp_path / "out.tif").metadata.dpi == dpi
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif"), expected)


def test_a_tiff_without_resolution_gets_none(rgb, tmp_path):
    Image.fromarray(rgb).save(tmp_path / "in.tif")
    enlarged(tmp_path / "in.tif", tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as output:
        assert "dpi" not in output.info
    with Image.open(tmp_path / "in.tif") as image:
        image.info["dpi"] = (72, 72)
        assert imaging.decode(image).metadata.dpi == (72, 72)


def test_a_profile_of_other_channels_is_dropped(rgb, tmp_path):
    Image.fromarray(rgb).convert("L").save(tmp_path / "gray.png", icc_profile=profile("GRAY"))
    assert imaging.read(tmp_path / "gray.png").metadata.icc == profile("GRAY")
    enlarged(tmp_path / "gray.png", tmp_path / "out.webp")  # WebP has no gray form
    assert imaging.read(tmp_path / "out.webp").metadata.icc is None
    Image.fromarray(rgb).convert("CMYK").save(tmp_path / "ink.jpg", icc_profile=profile("CMYK"), quality=100)
    notices = enlarged(tmp_path / "ink.jpg", tmp_path / "out.png", scale=1)
    assert any("CMYK" in notice for notice in notices)
    assert imaging.read(tmp_path / "out.png").metadata.icc is None
    with Image.open(tmp_path / "out.png") as output:
        assert np.abs(np.asarray(output).astype(int) - rgb).mean() < 12


def test_only_the_first_frame_of_an_animation(rgb, tmp_path):
    frames = [Image.fromarray(np.roll(rgb, i, axis=0)) for i in range(3)]
    for name in ("a.gif", "a.webp", "a.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        picture = imaging.read(tmp_path / name)
        assert any("several frames" in notice for notice in picture.notices)
        assert (picture.height, picture.width) == (6, 10)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damage_behind_the_first_frame_does_not_touch_it(rgb, tmp_path):
    Image.fromarray(rgb).save(tmp_path / "in.tif", save_all=True, append_images=[Image.fromarray(rgb)] * 2)
    whole = (tmp_path / "in.tif").read_bytes()
    for kept in (0.5, 0.6, 0.7, 0.8, 0.9):
        (tmp_path / "in.tif").write_bytes(whole[: int(len(whole) * kept)])
        np.testing.assert_array_equal(as_uint16(tmp_path / "in.tif") // 257, rgb)


def test_one_bit_and_palette_files(rgb, tmp_path):
    Image.fromarray(rgb).convert("1").save(tmp_path / "bit.png")
    picture = imaging.read(tmp_path / "bit.png")
    assert picture.gray and set(picture.color.unique().tolist()) <= {0, 1}
    Image.fromarray(rgb).quantize(8).save(tmp_path / "palette.png", transparency=0)
    header, picture = imaging.probe(tmp_path / "palette.png"), imaging.read(tmp_path / "palette.png")
    assert header.alpha and not header.gray and picture.alpha is not None and not picture.gray


@pytest.mark.parametrize("order", ["<", ">"])
def test_iptc_stored_as_whole_numbers(order, rgb, tmp_path):
    words = struct.unpack(f"{order}3L", b"\x1c\x02\x78\x00\x05Title\0\0")
    extra = [(33723, "I", 3, words, True)]
    for samples in (rgb, rgb.astype(np.uint16) * 257):
        tifffile.imwrite(tmp_path / "in.tif", samples, photometric="rgb", byteorder=order, extratags=extra)
        assert imaging.read(tmp_path / "in.tif").metadata.iptc == b"\x1c\x02\x78\x00\x05Title\0\0"


@pytest.mark.parametrize(
    ("extension", "module"), [("heic", "pillow_heif"), ("jxl", "pillow_jxl"), ("avif", "PIL")]
)
def test_formats_of_phones(extension, module, rgb, tmp_path):
    """Where the packages that read them are installed: colours, profile, EXIF, and turned once."""
    plug_in = pytest.importorskip(module)
    if extension == "avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    getattr(plug_in, "register_heif_opener", lambda: None)()
    smooth = Image.fromarray(rgb).resize((60, 36), Image.BICUBIC)
    options = {"lossless": True} if extension == "jxl" else {"quality": 95}
    exif = camera_exif(6).tobytes()
    smooth.save(tmp_path / f"in.{extension}", exif=exif, icc_profile=profile("RGB "), **options)
    header = imaging.probe(tmp_path / f"in.{extension}")
    assert (header.height, header.width, header.alpha, header.bits) == (60, 36, False, 8)
    picture = imaging.read(tmp_path / f"in.{extension}")
    upright = np.rot90(np.asarray(smooth), -1).astype(int)
    assert np.abs(to_samples(picture, torch.uint8)[0] - upright).mean() < 12
    assert picture.metadata.icc is not None and imaging.is_picture_name(f"in.{extension}")
    enlarged(tmp_path / f"in.{extension}", tmp_path / "out.jpg")
    with Image.open(tmp_path / "out.jpg") as image:
        assert (
            image.size == (72, 120)
            and image.getexif()[ORIENTATION] == 1
            and image.getexif()[0x010F] == "Maker"
        )


def test_depth_and_xmp_of_jpeg_xl(deep, tmp_path):
    """Its reader for Pillow cuts 16 bits to 8 and leaves XMP out; ours do not."""
    pytest.importorskip("pillow_jxl")
    packet = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><a/></x:xmpmeta>"
    box = struct.pack(">I", 8 + len(packet)) + b"xml " + packet
    for samples in deep, deep[..., 0]:
        plain = imagecodecs.jpegxl_encode(samples, lossless=True)
        assert plain[36:40] == b"jxll"  # a container, which begins with three boxes of 12, 20 and 9 bytes
        for data, xmp in (plain, None), (plain[:41] + box + plain[41:], packet):
            (tmp_path / "in.jxl").write_bytes(data)
            picture = imaging.read(tmp_path / "in.jxl")
            assert picture.bits == 16 and not picture.notices and picture.metadata.xmp == xmp
            stored = to_samples(picture, torch.uint16)[0]
            assert np.array_equal(stored if samples.ndim == 3 else stored[..., 0], samples)


@pytest.mark.parametrize(("depth", "words"), [(8, None), (10, "10-bit"), (12, "12-bit")])
def test_lost_depth_of_avif_is_told(depth, words, rgb, tmp_path):
    if not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    samples = rgb if depth == 8 else rgb.astype(np.uint16) << (depth - 8)
    data = imagecodecs.avif_encode(samples, bitspersample=depth, level=100)
    (tmp_path / "in.avif").write_bytes(data)
    notices = imaging.read(tmp_path / "in.avif").notices
    assert not notices if words is None else f"its {words} samples were read as 8 bits" in notices[0]
