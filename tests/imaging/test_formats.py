"""The one list of formats: which names are pictures, and why others are left out."""

from pathlib import Path

import pytest

from clit_zoo.imaging.formats import (
    PICTURE_SUFFIXES,
    UNREADABLE_SUFFIXES,
    is_photograph_name,
    is_picture_name,
    is_unreadable_name,
    web_address,
    why_left_out,
)


@pytest.mark.parametrize(
    ("name", "picture", "photograph"),
    [
        ("a.png", True, True),
        ("a/b.x.JPEG", True, True),
        ("a.tif", True, True),
        (".a.png", True, False),
        ("a.gif", True, False),
        ("a.ppm", True, False),
        ("png", False, False),
        ("a.png.part", False, False),
    ],
)
def test_names_of_pictures(name, picture, photograph):
    assert (is_picture_name(name), is_photograph_name(name)) == (picture, photograph)


def test_what_cannot_be_read_is_no_picture():
    assert is_unreadable_name("a/IMG_1.HEIC") and not is_unreadable_name("heic")
    assert not set(PICTURE_SUFFIXES) & set(UNREADABLE_SUFFIXES)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.png", None),
        ("a.txt", None),
        (".a.heic", None),
        ("a.GIF", "lost unseen"),
        ("a.NEF", "cannot be read"),
    ],
)
def test_why_a_picture_is_left_out(name, words):
    why = why_left_out(name)
    assert why is None if words is None else words in why and "save it as JPEG, PNG or TIFF first" in why


@pytest.mark.parametrize("path", ["https://x.org/a.png", Path("https://x.org/a.png"), "https:\\x.org/a.png"])
def test_web_addresses(path):
    assert web_address(path) == "https://x.org/a.png"
    for other in ("a/https:/b.png", "http.png", "c:/a.png", "https/a.png"):
        assert web_address(other) is None
