"""Damaged files of every format: a picture of the size that its header says, or an ImageError in one line."""

import io
import math
import resource

import numpy as np
import pytest
import tifffile
from hypothesis import strategies as st
from mutants import mutant, mutants
from PIL import Image, features
from sample_pictures import camera_exif, deep_png, profile

from clit_zoo import imaging
from clit_zoo.errors import ImageError
from clit_zoo.imaging import files

pytestmark = pytest.mark.filterwarnings("ignore")  # Pillow's and tifffile's, of damaged tags

LIMIT = 2**20  # pixels, so that thousands of mutants fit into time and memory
ROOM = 1500  # MB: a tile of 2**28 bytes as stored and as float32, with its alpha and its colours


def pillows(image, form, **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def tifffiles(samples, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, samples, metadata=None, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """A small picture in each form that is read: name -> file."""
    rng = np.random.default_rng(0)
    shape = (20, 24)
    deep = rng.integers(0, 65536, (*shape, 4), dtype=np.uint16)
    color = Image.fromarray((deep[..., :3] >> 8).astype(np.uint8))
    clear = Image.fromarray((deep >> 8).astype(np.uint8))
    gray, palette = color.convert("L"), color.convert("P")
    more = {"save_all": True, "append_images": [color.rotate(90)]}
    meta = {"exif": camera_exif(6).tobytes(), "icc_profile": profile("RGB ")}
    made = {
        "rgb.png": pillows(color, "PNG", **meta),
        "rgba.png": pillows(clear, "PNG"),
        "gray.png": pillows(gray, "PNG"),
        "palette.png": pillows(palette, "PNG", transparency=3),
        "bits.png": pillows(color.convert("1"), "PNG"),
        "frames.png": pillows(color, "PNG", **more),
        "rgb.jpg": pillows(color, "JPEG", **meta),
        "progressive.jpg": pillows(color, "JPEG", progressive=True),
        "gray.jpg": pillows(gray, "JPEG"),
        "cmyk.jpg": pillows(color.convert("CMYK"), "JPEG"),
        "lossy.webp": pillows(color, "WEBP", **meta),
        "lossless.webp": pillows(clear, "WEBP", lossless=True),
        "frames.gif": pillows(palette, "GIF", save_all=True, append_images=[palette.rotate(90)]),
        "rgb.bmp": pillows(color, "BMP"),
        "palette.bmp": pillows(palette, "BMP"),
        "rgb.ppm": pillows(color, "PPM"),
        "rgba.tga": pillows(clear, "TGA", compression="tga_rle"),
        "rgba.ico": pillows(clear, "ICO"),
        "frames.tif": pillows(color, "TIFF", **more),
    }
    for name in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        made[f"{name}.tif"] = pillows(color, "TIFF", compression=name)
    made["turned.tif"] = pillows(color, "TIFF", exif=camera_exif(8).tobytes())
    rgb = {"photometric": "rgb"}
    made |= {
        "deep.tif": tifffiles(deep, **rgb, extrasamples=["unassalpha"], rowsperstrip=6),
        "deep-gray.tif": tifffiles(deep[..., 0], compression="zlib", rowsperstrip=4, predictor=True),
        "deep-lzw.tif": tifffiles(deep[..., :3], **rgb, compression="lzw", rowsperstrip=4),
        "deep-tiles.tif": tifffiles(deep[..., :3], **rgb, tile=(16, 16), compression="zlib"),
        "deep-planes.tif": tifffiles(deep[..., :3].transpose(2, 0, 1), **rgb, planarconfig="separate"),
        "deep-big.tif": tifffiles(deep[..., 0], bigtiff=True, byteorder=">", compression="zstd"),
        "float.tif": tifffiles(
            rng.random((*shape, 3), np.float32), **rgb, compression="zlib", predictor=True
        ),
        "tiles.tif": tifffiles((deep[..., 0] >> 8).astype(np.uint8), tile=(16, 16), compression="zlib"),
    }
    folder = tmp_path_factory.mktemp("deep")
    for name, samples in (("deep.png", deep), ("deep-gray.png", deep[..., :1])):
        deep_png(folder / name, samples)
        made[name] = (folder / name).read_bytes()
    if features.check("jpg_2000"):
        made["rgb.jp2"] = pillows(color, "JPEG2000")
    if features.check("avif"):
        made["rgba.avif"] = pillows(clear, "AVIF")
    return made


def told(act, path):
    """What ``act`` gives, or its ImageError, which is one line and names the file."""
    try:
        return act(path)
    except ImageError as error:
        assert str(path) in str(error) and "\n" not in str(error) and str(error).endswith("."), str(error)
        return error


@pytest.mark.parametrize("area", ["anything", "deep TIFF"])
def test_mutants(campaign, originals, tmp_path, monkeypatch, area):
    monkeypatch.setattr(files, "MAX_INPUT_PIXELS", LIMIT)
    if area == "deep TIFF":  # read by ourselves, and where most was wrong once
        originals = {name: data for name, data in originals.items() if name.startswith(("deep", "float"))}
        originals = {name: data for name, data in originals.items() if name.endswith(".tif")}

    def attempt(case):
        path = tmp_path / f"mutant-{case[0]}"
        path.write_bytes(mutant(originals, case))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        header, picture = told(imaging.probe, path), told(imaging.read, path)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < ROOM * 1000
        if not isinstance(header, ImageError):
            sides = (header.height, header.width)
            assert all(isinstance(side, int) and side > 0 for side in sides) and math.prod(sides) <= LIMIT
        if isinstance(picture, ImageError):
            return "refused"
        size = (picture.height, picture.width)
        assert not isinstance(header, ImageError), header
        # the orientation of a PNG may stand behind its pixels
        assert (header.height, header.width) in ((size, size[::-1]) if "png" in case[0] else (size,))
        # Their samples are noise and their streams have checksums: what is black is missing.
        noise = case[0] in ("deep-gray.tif", "deep-tiles.tif") and "splice" not in dict(
            c[:2] for c in case[1]
        )
        if noise and header.bits == 16 and math.prod(size) >= 64:
            assert (picture.color == 0).all(1).float().mean() < 0.1
        return "read"

    campaign(attempt, mutants(originals), quick=200, long=5_000)


def test_cut_off(campaign, originals, tmp_path):
    """All of its pixels, or none. A JPEG's last blocks may be guessed, which its readers all do."""
    sound = {}
    for name, data in originals.items():
        (tmp_path / name).write_bytes(data)
        sound[name] = imaging.read(tmp_path / name)

    def attempt(case):
        name, lost = case
        path = tmp_path / f"cut-{name}"
        path.write_bytes(originals[name][: max(0, len(originals[name]) - lost)])
        picture = told(imaging.read, path)
        if isinstance(picture, ImageError):
            return "refused"
        assert picture.color.equal(sound[name].color), name
        return "read whole"

    lost = st.integers(1, 40) | st.integers(1, 3000)
    campaign(attempt, st.tuples(st.sampled_from(sorted(originals)), lost), quick=100, long=2_000)
