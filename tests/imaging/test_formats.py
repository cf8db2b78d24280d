"""The one list of formats: which names are pictures, why others are left out, what outputs can hold."""

import pytest

from clit_zoo import imaging
from clit_zoo.errors import ImageError
from clit_zoo.imaging import formats
from clit_zoo.imaging.formats import FORMATS, PHOTOGRAPH_SUFFIXES, is_photograph_name, is_picture_name


@pytest.mark.parametrize(
    ("name", "picture", "photograph"),
    [
        ("a.png", True, True),
        ("a/b.x.JPEG", True, True),
        ("a.tif", True, True),
        (".a.png", True, False),
        ("a.gif", True, False),
        ("a.ppm", True, False),
        ("a.psd", False, False),
        ("a.NEF", False, False),
        ("png", False, False),
        ("a.png.part", False, False),
    ],
)
def test_names_of_pictures(name, picture, photograph):
    assert (is_picture_name(name), is_photograph_name(name)) == (picture, photograph)


def test_a_suffix_stands_once():
    suffixes = [suffix for form in FORMATS for suffix in form.suffixes]
    assert len(set(suffixes)) == len(suffixes) and set(PHOTOGRAPH_SUFFIXES) < set(suffixes)


def test_formats_of_packages_are_pictures_where_those_are_installed(monkeypatch):
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None)
    assert not is_picture_name("a.HEIC")
    assert "`pip install pillow-heif`, or save it as JPEG" in formats.why_unreadable("a.HEIC")
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: name)
    assert is_picture_name("a.HEIC") and is_picture_name("a.jxl")
    assert formats.why_unreadable("a.heic") is None and not is_photograph_name("a.heic")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.png", None),
        ("a.txt", None),
        ("a.pdf", None),
        (".a.heic", None),
        ("a.GIF", "lost unseen"),
        ("a.NEF", "cannot be read here"),
        ("a.heic", "cannot be read here"),
    ],
)
def test_why_a_picture_is_left_out(name, words):
    why = formats.why_left_out(name)
    assert why is None if words is None else words in why and "save it as JPEG, PNG or TIFF first" in why


@pytest.mark.parametrize(
    ("name", "form"),
    [("a.JPG", "jpeg"), ("tif", "tiff"), ("x/y.Jpeg", "jpeg"), ("png", "png"), ("jfif", "jpeg")],
)
def test_outputs_by_name(name, form):
    assert imaging.output_format(name).name == form


@pytest.mark.parametrize("name", ["a.gif", "heic", "", "noextension"])
def test_what_is_not_written(name):
    with pytest.raises(ImageError, match="png, jpeg, webp, tiff"):
        imaging.output_format(name)


@pytest.mark.parametrize(
    ("form", "side", "roomier"),
    [
        ("jpeg", 65535, "PNG or TIFF"),
        ("webp", 16383, "PNG or JPEG or TIFF"),
        ("png", 2**31 - 1, "smaller scale"),
    ],
)
def test_sides_end_where_the_format_says(form, side, roomier):
    assert imaging.check_output(form, (5, side)) == imaging.check_output(form, (side, 5)) == []
    for size in ((5, side + 1), (side + 1, 5)):
        with pytest.raises(ImageError, match=f"{size[1]}×{size[0]} .*{side} pixels.*{roomier}"):
            imaging.check_output(form, size)


def test_jpeg_and_transparency():
    with pytest.raises(ImageError, match=r"transparency.*PNG, WEBP, TIFF.*flatten"):
        imaging.check_output("jpg", (5, 5), alpha=True)
    assert imaging.check_output("jpg", (5, 5), alpha=True, flatten=True) == []
    assert imaging.check_output("webp", (5, 5), alpha=True) == []


@pytest.mark.parametrize(("form", "kept"), [("jpeg", 8), ("webp", 8), ("png", 16), ("tiff", 32)])
def test_lost_bits_are_announced(form, kept):
    for bits in (8, 16, 32):
        notices = imaging.check_output(form, (5, 5), bits=bits)
        assert [f"as {kept} bits" in notice for notice in notices] == [True] * (bits > kept)
