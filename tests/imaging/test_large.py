"""Outputs that go by way of a spool: the same pixels, from where they stood, or nothing."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from clit_zoo import imaging
from clit_zoo.errors import ImageError
from clit_zoo.imaging import large
from clit_zoo.imaging.formats import output_format
from clit_zoo.imaging.metadata import Metadata, clean_exif
from clit_zoo.imaging.spool import Spool, spool_path

SHAPE = (70, 1100, 3)
EXIF = Image.Exif()
EXIF[315] = "José".encode().decode("latin-1")  # as Pillow reads UTF-8
KEPT = Metadata(exif=clean_exif(EXIF), dpi=(300, 300))


def samples(channels=3, bits=8):
    shape = (*SHAPE[:2], channels)
    return np.random.default_rng(0).integers(0, 2**bits, shape).astype(f"uint{bits}")


def write(path, all_rows, begun=None, identity="a", height=16):
    def rows(first):
        if begun is not None:
            begun.append(first)
        for top in range(first, len(all_rows), height):
            yield all_rows[top : top + height]

    form = output_format(path.suffix[1:])
    large.write_large(rows, all_rows.shape, all_rows.dtype, KEPT, path, form, 95, identity)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_pixels_and_metadata_stay(suffix, channels, bits, tmp_path):
    if suffix != "tif":
        pytest.importorskip("pyvips")
    path, made = tmp_path / f"a.{suffix}", samples(channels, bits)
    write(path, made)
    assert os.listdir(tmp_path) == [path.name]
    picture = imaging.read(path)
    np.testing.assert_array_equal(np.moveaxis(picture.samples.numpy()[0], 0, -1), made)
    assert picture.metadata.dpi == pytest.approx((300, 300), abs=0.01)
    assert "José".encode() in picture.metadata.exif


def test_a_jpeg_and_its_metadata(tmp_path):
    pytest.importorskip("pyvips")
    smooth = np.array(Image.fromarray(samples()[:8, :40]).resize(SHAPE[1::-1]))
    write(tmp_path / "a.jpg", smooth)
    picture = imaging.read(tmp_path / "a.jpg")
    assert abs(np.moveaxis(picture.samples.numpy()[0], 0, -1).astype(int) - smooth).mean() < 2
    assert "José".encode() in picture.metadata.exif and picture.metadata.dpi == (300, 300)
    assert os.listdir(tmp_path) == ["a.jpg"]


def test_it_goes_on_at_the_last_finished_band(tmp_path):
    path, made, begun = tmp_path / "a.tif", samples(), []

    def rows(first):
        yield made[:16]
        yield made[16:32]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        large.write_large(rows, SHAPE, made.dtype, KEPT, path, output_format("tif"), None, "a")
    assert os.listdir(tmp_path) == [spool_path(path).name]
    with open(spool_path(path), "ab") as file:  # a band that was cut short
        file.write(b"half a band")
    write(path, made, begun)
    assert begun == [32] and os.listdir(tmp_path) == ["a.tif"]
    np.testing.assert_array_equal(np.moveaxis(imaging.read(path).samples.numpy()[0], 0, -1), made)


def test_rows_of_something_else_are_not_kept(tmp_path):
    path, made, begun = tmp_path / "a.tif", samples(), []
    for identity, shape in (("b", SHAPE), ("a", (71, *SHAPE[1:]))):
        with Spool(path, shape, made.dtype, identity) as spool:
            spool.append(made[:16])
    write(path, made, begun)
    assert begun == [0]


def test_two_runs_at_one_output(tmp_path):
    with (
        Spool(tmp_path / "a.tif", SHAPE, np.dtype("u1"), "a"),
        pytest.raises(ImageError, match="another run"),
    ):
        write(tmp_path / "a.tif", samples())


def test_a_full_disk_is_foreseen(tmp_path, monkeypatch):
    begun = []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, 400_000))
    with pytest.raises(ImageError, match=r"up to 0\.0 GB of disk .* write it to another disk"):
        write(tmp_path / "a.tif", samples(), begun)
    assert not begun and not (tmp_path / "a.tif").exists()
