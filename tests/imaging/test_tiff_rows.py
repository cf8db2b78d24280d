"""Large TIFFs are read by rows: the same samples as whole, in any order, and no silent holes."""

import numpy as np
import pytest
import tifffile

from clit_zoo import imaging
from clit_zoo.errors import ImageError
from clit_zoo.imaging import files, tiff_rows

H, W = 90, 131
PARTS = ((0, 30, 0, W), (20, 61, 5, 40), (61, H, 0, W), (3, 50, 100, W), (40, 41, 0, 9))


@pytest.fixture(autouse=True)
def by_rows(monkeypatch):
    monkeypatch.setattr(tiff_rows, "LAZY_PIXELS", 1000)
    monkeypatch.setattr(files, "MAX_INPUT_PIXELS", 1000)


def made(channels=3, bits=8):
    return np.random.default_rng(0).integers(0, 2**bits, (H, W, channels)).astype(f"uint{bits}")


@pytest.mark.parametrize("byteorder", "<>")
@pytest.mark.parametrize("options", [{"rowsperstrip": 7}, {"tile": (16, 32)}, {"rowsperstrip": H}], ids=str)
@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
@pytest.mark.parametrize(("channels", "bits"), [(1, 8), (3, 8), (4, 8), (3, 16), (2, 16)])
def test_rows_are_those_of_the_file(channels, bits, compression, options, byteorder, tmp_path):
    path, pixels = tmp_path / "a.tif", made(channels, bits)
    tifffile.imwrite(
        path, pixels if channels > 1 else pixels[..., 0], photometric="rgb" if channels > 2 else "minisblack",
        compression=compression, predictor=compression is not None, byteorder=byteorder,
        bigtiff=byteorder == "<",  # of others Pillow reads no metadata
        planarconfig="contig" if channels > 1 else None, extrasamples=["unassalpha"] * (channels in (2, 4)),
        resolution=(72, 72), resolutionunit="INCH", **options,
    )  # fmt: skip
    header, picture = imaging.probe(path), imaging.read(path)
    assert (header.height, header.width, header.bits, header.gray) == (H, W, bits, channels < 3)
    assert header.alpha == picture.transparent == (channels in (2, 4)) and picture.gray == header.gray
    assert isinstance(picture.samples, tiff_rows.TiffRows) and picture.metadata.dpi == (72, 72)
    for top, bottom, left, right in PARTS:
        part = picture.samples[:, :, top:bottom, left:right].numpy()
        np.testing.assert_array_equal(np.moveaxis(part[0], 0, -1), pixels[top:bottom, left:right])


def test_damage_is_not_taken_for_black(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, made(), photometric="rgb", compression="zlib", rowsperstrip=10)
    with tifffile.TiffFile(path) as file:
        start, counts = file.pages[0].dataoffsets[4], list(file.pages[0].databytecounts)
    data = bytearray(path.read_bytes())
    data[start + 2 : start + 40] = bytes(38)
    path.write_bytes(data)
    picture = imaging.read(path)
    picture.samples[:, :, 0:40, 0:9]
    with pytest.raises(ImageError, match="damaged or incomplete"):
        picture.samples[:, :, 30:60, 0:9]
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages[0].tags["StripByteCounts"].overwrite([*counts[:-1], 0])
    with pytest.raises(ImageError, match="ends before its last pixel, or lacks others"):
        imaging.read(path)


def test_what_is_not_plain_is_refused(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif", np.moveaxis(made(), -1, 0), photometric="rgb", planarconfig="separate"
    )
    with pytest.raises(ImageError, match="save it as a plain TIFF in strips or tiles"):
        imaging.read(tmp_path / "a.tif")
