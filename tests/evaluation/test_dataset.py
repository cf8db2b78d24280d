"""Which originals are scored: depth, alpha, what may not be read, and what does not fit into memory."""

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from evaluation_cases import tiny_model
from PIL import Image

from clit_zoo.errors import ImageError
from clit_zoo.evaluation import evaluate
from clit_zoo.evaluation.dataset import dataset_names, read_original
from clit_zoo.imaging import decode, write


@pytest.fixture
def folder(tmp_path):
    """Three originals, of 40 rows and 44, 46 and 48 columns."""
    for i, name in enumerate("abc"):
        pixels = np.random.default_rng(i).integers(0, 256, (40, 44 + 2 * i, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    return tmp_path


def save_deep_rgb(path):
    samples = np.random.default_rng(0).integers(0, 65536, (40, 40, 3), dtype=np.uint16)
    write(decode(samples), path)


def save_deep_tiff(path):
    tifffile.imwrite(path, np.zeros((40, 40, 3), np.uint16), photometric="rgb")


def save_key_colour(path):
    Image.new("RGB", (40, 40)).save(path, transparency=(0, 0, 0))


@pytest.mark.parametrize(
    ("name", "save", "words"),
    [
        ("gray16.png", lambda path: Image.fromarray(np.zeros((40, 40), np.uint16)).save(path), "8 bits"),
        ("rgb16.png", save_deep_rgb, "8 bits"),
        ("rgb16.tif", save_deep_tiff, "8 bits"),
        ("float.tif", lambda path: Image.fromarray(np.zeros((40, 40), np.float32)).save(path), "8 bits"),
        ("rgba.png", lambda path: Image.new("RGBA", (40, 40)).save(path), "alpha"),
        ("la.png", lambda path: Image.new("LA", (40, 40)).save(path), "alpha"),
        ("rgba.webp", lambda path: Image.new("RGBA", (40, 40), (9, 9, 9, 9)).save(path), "alpha"),
        ("key.png", save_key_colour, "alpha"),
        ("gray.png", lambda path: Image.new("L", (40, 40)).save(path), None),
        ("two.png", lambda path: Image.new("1", (40, 40)).save(path), None),
        ("palette.png", lambda path: Image.new("P", (40, 40)).save(path), None),
        ("rgb.tif", lambda path: Image.new("RGB", (40, 40)).save(path), None),
        ("rgb.jpg", lambda path: Image.new("RGB", (40, 40)).save(path), None),
    ],
)
def test_depth_and_alpha_are_not_scored(tmp_path, name, save, words):
    save(tmp_path / name)
    if words is None:
        pixels = read_original(tmp_path / name).pixels
        expected = np.asarray(Image.open(tmp_path / name).convert("L" if pixels.ndim == 2 else "RGB"))
        assert pixels.dtype == np.uint8 and np.array_equal(pixels, expected)
    else:
        with pytest.raises(ImageError, match=rf"{name} has .*{words}"):
            read_original(tmp_path / name)


def test_what_may_not_be_read_is_said(folder, monkeypatch):
    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("clit_zoo.imaging.files.open", denied, raising=False)
    results = evaluate("bicubic", folder, [2], limit=1)
    assert results.skipped[0].reason.startswith(
        "a.png cannot be read: Permission"
    )  # the table names the folder
    monkeypatch.setattr(Path, "iterdir", denied)
    with pytest.raises(PermissionError):
        evaluate("bicubic", folder, [2])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_waited_for(folder):
    os.mkfifo(folder / "0.png")
    results = evaluate("bicubic", folder, [2], limit=1)
    assert results.skipped[0].reason.startswith("0.png is not a regular file")


def test_a_link_that_leads_to_itself(tmp_path):
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert dataset_names([loop, tmp_path]) == ["loop", tmp_path.name]
    with pytest.raises(OSError, match=r"symbolic links.*loop"):
        evaluate("bicubic", loop, [2])


@pytest.mark.parametrize(
    "error", [RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), MemoryError()]
)
def test_too_little_memory_costs_one_image(folder, error, monkeypatch):
    model = tiny_model()

    def hungry(image, size, progress=None):
        if size == (40, 46):
            raise error
        return image.repeat_interleave(2, 2).repeat_interleave(2, 3)

    monkeypatch.setattr(model, "forward", hungry)
    results = evaluate(model, folder, [2])
    assert [score.image for score in results.scores] == ["a", "c"]
    assert [(s.image, s.reason) for s in results.skipped] == [
        ("b.png", "cpu has too little memory for 46×40")
    ]
    error = ZeroDivisionError("a bug")
    with pytest.raises(ZeroDivisionError):
        evaluate(model, folder, [2])
