"""`clit-zoo upscale`: names, formats, batches with bad pictures, and what is told."""

import io
import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from PIL.PngImagePlugin import putchunk

DEFAULT, PHOTO = "edsr-light-lit", "edsr-light-lit-photo"


def opened(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_one_picture_beside_the_input(run, model, save):
    pixels = save("photo.png")
    result = run("upscale", "photo.png", "-s", "2")
    assert result.code == 0, result.err
    target = f"photo_x2_{DEFAULT}.png"
    assert f"photo.png 6×4 -> {target} 12×8" in result.out and "1 enlarged in" in result.out
    np.testing.assert_array_equal(opened(target)[::2, ::2], pixels)
    assert model.loaded == [(DEFAULT, {"device": "auto", "dtype": "auto", "backend": "auto"})]


@pytest.mark.parametrize(
    ("options", "size", "label"),
    [
        ([], (24, 16), "x4"),
        (["-s", "3.7"], (22, 15), "x3.7"),
        (["-s", "1"], (6, 4), "x1"),
        (["--width", "20"], (20, 13), "x3.333"),
        (["--height", "10"], (15, 10), "x2.5"),
        (["--size", "30x5"], (30, 5), "30x5"),
        (["--size", "7X9"], (7, 9), "7x9"),
        (["--size", "20x20", "--fit"], (20, 13), "20x20"),
        (["--size", "20x20", "--fill"], (20, 20), "20x20"),
    ],
)
def test_sizes_and_names(options, size, label, run, model, save):
    save("photo.png")
    assert run("upscale", "photo.png", "-o", "out", *options).code == 0
    assert os.listdir("out") == [f"photo_{label}_{DEFAULT}.png"]
    assert opened(f"out/photo_{label}_{DEFAULT}.png").shape == (size[1], size[0], 3)


def test_a_size_of_another_shape(run, model, save):
    """It is said; --fit keeps the whole picture, --fill its middle, on the pixels of the whole."""
    pixels = save("photo.png")
    result = run("upscale", "photo.png", "--size", "30x40")
    assert "Note: photo.png: 6×4 to 30×40 changes its shape: --fit keeps it whole" in result.err
    assert not run("upscale", "photo.png", "--size", "30x20", "--suffix", "+").err
    assert not run("upscale", "photo.png", "--size", "9x9", "--fit").err
    assert opened(f"photo_9x9_{DEFAULT}.png").shape == (6, 9, 3)
    assert not run("upscale", "photo.png", "--size", "8x8", "--fill").err
    np.testing.assert_array_equal(opened(f"photo_8x8_{DEFAULT}.png")[::2, ::2], pixels[:, 1:5])
    assert not run("upscale", "photo.png", "--size", "4x4", "--fill").err
    np.testing.assert_array_equal(opened(f"photo_4x4_{DEFAULT}.png"), pixels[:, 1:5])
    result = run("upscale", "photo.png", "--size", "5x5", "--fit")
    assert result.code == 1 and "smaller" in result.err


def test_once_the_size_is_the_picture_as_it_is(run, model, save):
    pixels = save("photo.png", mode="LA")
    for options in (["-s", "1"], ["--size", "6x4"], ["--width", "6"]):
        assert run("upscale", "photo.png", "-o", "same.png", "--overwrite", *options).code == 0
        np.testing.assert_array_equal(opened("same.png"), pixels)
    assert not model.sizes


@pytest.mark.parametrize(
    "options",
    [
        ["-s", "0.5"], ["-s", "nan"], ["-s", "inf"], ["-s", "two"], ["--size", "20"], ["--size", "0x5"],
        ["--width", "0"],
        ["--fit"], ["--fill", "-s", "2"], ["--size", "9x9", "--fit", "--fill"],
        ["-s", "2", "--width", "20"], ["--width", "20", "--height", "20"], ["--skip-existing", "--overwrite"],
        ["--suffix", "/x"], ["--quality", "0"], ["--quality", "101"], ["--format", "gif"], ["--fp64"],
        ["-o", "out.gif"], ["-o", "out.png", "--format", "webp"], ["--flatten", "plaid"], ["-o", "notes.txt"],
        ["-o", "new.xyz"],
    ],
)  # fmt: skip
def test_wrong_usage(options, run, model, save):
    save("photo.png")
    with open("notes.txt", "w") as file:
        file.write("keep me")
    result = run("upscale", "photo.png", *options)
    assert result.code == 2 and "Error: " in result.err
    assert not model.loaded and sorted(os.listdir()) == ["notes.txt", "photo.png"]


def test_a_folder_with_a_dot_in_its_name_ends_with_a_slash(run, model, save):
    save("photo.png")
    result = run("upscale", "photo.png", "-o", "new.xyz")
    assert (
        "cannot write .xyz: the formats are png, jpeg, webp, tiff; for a folder give new.xyz/." in result.err
    )
    assert run("upscale", "photo.png", "-o", "new.xyz/").code == 0 and os.path.isdir("new.xyz")
    assert run("upscale", "photo.png", "-o", "new.xyz", "--overwrite").code == 0  # it is there now
    save("second.png")
    assert run("upscale", "photo.png", "second.png", "-o", "version 1.0").code == 0  # no file is meant


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        ("triton", "backend 'triton' cannot serve this model: "),
        ("fast", "backend 'fast' is unknown; take one"),
    ],
)
def test_a_backend_that_cannot_compute_is_an_error_at_once(run, save, tiny_model, backend, words):
    save("photo.png")
    save("other.png")
    os.mkdir("large")
    options = ("-m", tiny_model, "-o", "large", "--device", "cpu", "--backend", backend)
    result = run("upscale", "photo.png", "other.png", *options)
    assert result.code == 1 and result.err.count("Error: ") == 1 and words in result.err
    assert os.listdir("large") == []


def test_a_warning_is_a_line_without_the_code_it_came_from(run, save, model, monkeypatch):
    save("photo.png")
    monkeypatch.setattr(model, "check_backend", lambda: warnings.warn("Triton failed", stacklevel=1))
    result = run("upscale", "photo.png")
    assert result.code == 0 and "Warning: Triton failed\n" in result.err and ".py" not in result.err


def test_options_reach_the_model(run, model, save):
    save("photo.png")
    options = ("--device", "cpu", "--bf16", "--backend", "torch")
    assert run("upscale", "photo.png", "-m", "rdn-clit", *options).code == 0
    assert model.loaded == [("rdn-clit", {"device": "cpu", "dtype": "bfloat16", "backend": "torch"})]
    assert os.path.exists("photo_x4_rdn-clit.png")
    save("other.png")
    assert run("upscale", "other.png", "-m", "some-org/Net+1", "--suffix", "_big").code == 0
    assert os.path.exists("other_big.png")
    assert run("upscale", "other.png", "-m", "some-org/Net+1").code == 0
    assert os.path.exists("other_x4_Net-1.png")


def test_an_unknown_model_is_named_before_any_work(run, model, save):
    save("photo.png")
    result = run("upscale", "photo.png", "-m", "rdn-clitt")
    assert result.code == 1 and "'rdn-clit'" in result.err and not model.loaded


def test_a_file_as_output(run, model, save):
    save("photo.png")
    assert run("upscale", "photo.png", "-o", "deep/er/large.webp", "-s", "2").code == 0
    with Image.open("deep/er/large.webp") as image:
        assert image.format == "WEBP" and image.size == (12, 8)


def test_formats(run, model, save):
    save("a.bmp")
    save("b.JPG")
    save("c.tiff")
    assert run("upscale", "a.bmp", "b.JPG", "c.tiff", "-o", "same", "-s", "2").code == 0
    names = [f"a_x2_{DEFAULT}.png", f"b_x2_{PHOTO}.jpg", f"c_x2_{DEFAULT}.tif"]
    assert sorted(os.listdir("same")) == names
    assert run("upscale", "a.bmp", "b.JPG", "-o", "jpegs", "--format", "jpeg", "--quality", "30").code == 0
    for name in (f"a_x4_{DEFAULT}", f"b_x4_{PHOTO}"):
        with Image.open(f"jpegs/{name}.jpg") as image:
            assert image.format == "JPEG"


def test_folders(run, model, save):
    for name in ("in/a.png", "in/b.jpg", "in/sub/a.png", "in/.hidden.png", "in/.git/c.png"):
        save(name)
    open("in/readme.txt", "w").close()
    result = run("upscale", "in", "-o", "flat", "--suffix", "+")
    assert result.code == 0 and sorted(os.listdir("flat")) == ["a+.png", "b+.jpg"]
    for _ in range(2):  # the second time too, though outputs now lie inside the input folder
        result = run("upscale", "in", "-r", "-o", "in/out", "--suffix", "+", "--overwrite")
        assert result.code == 0 and "3 enlarged" in result.out
    assert sorted(os.listdir("in/out")) == ["a+.png", "b+.jpg", "sub"] and os.listdir("in/out/sub") == [
        "a+.png"
    ]


def test_folders_that_cannot_be(run, model, save):
    save("in/sub/a.png")
    assert "give -o FOLDER" in run("upscale", "in").err
    result = run("upscale", "in", "-o", "in", "-r")
    assert result.code == 2 and "is an input folder" in result.err
    result = run("upscale", "in", "-o", "one.png")
    assert result.code == 2 and "several inputs" in result.err
    result = run("upscale", "in", "-o", "out")
    assert result.code == 1 and "holds no pictures; -r searches" in result.err and not model.loaded


def test_a_bad_picture_does_not_stop_the_others(run, model, save):
    save("a.png")
    save("z.png", w=5)
    whole = Path("a.png").read_bytes()
    with open("cut.png", "wb") as file:
        file.write(whole[:-40])
    open("empty.jpg", "w").close()
    result = run("upscale", "missing.png", "cut.png", "a.png", "empty.jpg", "z.png", "-o", "out", "-s", "2")
    assert result.code == 1
    assert sorted(os.listdir("out")) == [f"a_x2_{DEFAULT}.png", f"z_x2_{DEFAULT}.png"]
    assert "2 enlarged, 3 failed" in result.out
    for name, reason in (
        ("missing.png", "No such file"),
        ("cut.png", "damaged"),
        ("empty.jpg", "not a picture"),
    ):
        assert any(
            line.startswith("Error: ") and name in line and reason in line for line in result.err.splitlines()
        )


def test_a_bad_header_does_not_stop_the_others(run, model, save):
    """Whatever the planner meets, as whatever the enlargement meets, is that picture's own."""
    save("a.png")
    for name, height in (("none.tif", 0), ("huge.tif", 2**31 - 1)):
        tifffile.imwrite(name, np.zeros((20, 24), np.uint16))
        with tifffile.TiffFile(name, mode="r+b") as file:
            file.pages[0].tags[257].overwrite(height)
    result = run("upscale", "none.tif", "a.png", "huge.tif", "-s", "2", "-o", "out")
    assert result.code == 1 and "1 enlarged, 2 failed" in result.out
    assert "none.tif is damaged: its header says 24×0 pixels" in result.err


def test_what_killed_runs_left_is_removed(run, model, save):
    save("a.png")
    run("upscale", "a.png", "-o", "out")
    for name, age in ((".b.png.0123456789ab.part", 7200), (".c.png.0123456789ab.part", 0), (".d.part", 7200)):
        Path("out", name).touch()
        os.utime(Path("out", name), (time.time() - age,) * 2)
    assert run("upscale", "a.png", "-o", "out", "--overwrite").code == 0
    assert sorted(os.listdir("out")) == [".c.png.0123456789ab.part", ".d.part", f"a_x4_{DEFAULT}.png"]


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "not enough memory for 10×8"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
            "not enough memory for 10×8",
        ),
        (MemoryError(), "not enough memory for 10×8"),
        (IndexError("a bug\nwith lines"), "bad.png: IndexError: a bug"),
    ],
)
def test_a_failing_model_does_not_stop_the_others(error, says, run, model, save):
    save("bad.png", w=5)
    save("good.png")
    model.fail_on[4, 5] = error
    result = run("upscale", "bad.png", "good.png", "-s", "2")
    assert result.code == 1 and os.path.exists(f"good_x2_{DEFAULT}.png")
    assert says in result.err and len(result.err.strip().splitlines()) == 1


def test_existing_outputs(run, model, save):
    pixels = save("a.png")
    target = f"a_x2_{DEFAULT}.png"
    with open(target, "w") as file:
        file.write("old")
    result = run("upscale", "a.png", "-s", "2")
    assert result.code == 1 and "--overwrite replaces it" in result.err and Path(target).read_text() == "old"
    result = run("upscale", "a.png", "-s", "2", "--skip-existing")
    assert result.code == 0 and "1 skipped" in result.out and Path(target).read_text() == "old"
    assert not model.loaded
    assert run("upscale", "a.png", "-s", "2", "--overwrite").code == 0
    np.testing.assert_array_equal(opened(target)[::2, ::2], pixels)
    os.mkdir("folder.png")
    result = run("upscale", "a.png", "-o", "folder.png/b.png", "-s", "2")
    assert result.code == 0, result.err
    os.makedirs(f"x/a_x2_{DEFAULT}.png")
    result = run("upscale", "a.png", "-o", "x", "-s", "2", "--overwrite")
    assert result.code == 1 and "is a folder" in result.err


def test_an_output_that_appears_during_the_run_is_kept(run, model, save, monkeypatch):
    save("a.png")
    upscale = model.upscale

    def meanwhile(*arguments, **options):
        with open("b.png", "w") as file:
            file.write("somebody else's")
        return upscale(*arguments, **options)

    monkeypatch.setattr(model, "upscale", meanwhile)
    assert run("upscale", "a.png", "-o", "b.png").code == 1
    assert Path("b.png").read_text() == "somebody else's"


def test_inputs_are_never_written_onto(run, model, save):
    save("a.png")
    save("b.png")
    before = {name: Path(name).read_bytes() for name in ("a.png", "b.png")}
    os.symlink("a.png", "link.png")
    os.link("a.png", "hard.png")
    for arguments in (["a.png", "-o", "a.png"], ["a.png", "--suffix", ""], ["a.png", "-o", "link.png"],
                      ["a.png", "-o", "hard.png"], ["a.png", "-o", "./x/../a.png"]):  # fmt: skip
        result = run("upscale", *arguments, "--overwrite")
        assert result.code == 1 and "would replace an input" in result.err, arguments
    save("a+.png")
    result = run("upscale", "a.png", "a+.png", "--suffix", "+", "--overwrite")
    assert result.code == 1 and "1 enlarged, 1 failed" in result.out
    assert {name: Path(name).read_bytes() for name in before} == before


def test_colliding_names(run, model, save):
    save("a.png")
    save("a.jpg")
    save("sub/a.png")
    result = run("upscale", "a.png", "a.jpg", "sub/a.png", "-o", "out")
    assert result.code == 1 and "already that of a.png" in result.err and "2 enlarged, 1 failed" in result.out
    result = run("upscale", "a.png", "a.jpg", "-o", "webp", "--format", "webp", "-m", DEFAULT)
    assert result.code == 1 and len(os.listdir("webp")) == 1


def test_the_same_input_twice_is_one(run, model, save):
    save("in/a.png")
    result = run("upscale", "in/a.png", "in", "in/../in/a.png", "-o", "out")
    assert result.code == 0 and "1 enlarged" in result.out


def test_too_large_for_the_format_is_refused_before_loading(run, model, save):
    save("wide.png", w=200, h=2)
    result = run("upscale", "wide.png", "--size", "17000x100", "--format", "webp")
    assert result.code == 1 and "16383" in result.err and "PNG" in result.err and not model.loaded
    result = run("upscale", "wide.png", "--size", "65536x100", "--format", "jpg")
    assert result.code == 1 and "65535" in result.err and not model.loaded
    result = run("upscale", "wide.png", "-s", "2000")
    assert result.code == 1 and "1000" in result.err and not model.loaded
    result = run("upscale", "wide.png", "--width", "100")
    assert result.code == 1 and "smaller" in result.err and not model.loaded


def test_transparency_into_jpeg(run, model, save):
    save("a.png", mode="RGBA")
    result = run("upscale", "a.png", "--format", "jpeg")
    assert result.code == 1 and "transparency" in result.err and "flatten" in result.err and not model.loaded
    assert run("upscale", "a.png", "--format", "jpeg", "--flatten", "white").code == 0
    assert opened(f"a_x4_{DEFAULT}.jpg").shape == (16, 24, 3)


def test_sixteen_bits_orientation_and_notices(run, model, save, tmp_path):
    samples = np.random.default_rng(0).integers(0, 65536, (4, 6, 3), dtype=np.uint16)
    exif = Image.Exif()
    exif[0x0112] = 6
    data = io.BytesIO(imagecodecs.png_encode(samples))
    with open("deep.png", "wb") as file:
        file.write(data.read(33))  # signature and header
        putchunk(file, b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
        file.write(data.read())
    result = run("upscale", "deep.png", "-s", "2")
    assert result.code == 0 and result.err == "" and "deep.png 4×6 -> " in result.out
    read = imagecodecs.png_decode(Path(f"deep_x2_{DEFAULT}.png").read_bytes())
    np.testing.assert_array_equal(read[::2, ::2], np.rot90(samples, -1))
    result = run("upscale", "deep.png", "--format", "jpeg")
    assert result.code == 0 and "Note: deep.png: 16-bit samples are written as 8 bits" in result.err


def test_json(run, model, save):
    save("a.png")
    save("b.png")
    open(f"b_x2_{DEFAULT}.png", "w").close()
    result = run("upscale", "a.png", "b.png", "none.png", "-s", "2", "--skip-existing", "--json")
    report = json.loads(result.out)
    assert result.code == 1
    assert (report["done"], report["skipped"], report["failed"], report["planned"]) == (1, 1, 1, 0)
    first, second, third = report["pictures"]
    assert first["status"] == "done" and first["seconds"] > 0 and first["format"] == "png"
    assert (first["input_size"], first["output_size"]) == ([6, 4], [12, 8])
    assert first["output"] == f"a_x2_{DEFAULT}.png" and second["status"] == "skipped"
    assert third["status"] == "failed" and "No such file" in third["reason"]


def test_dry_run(run, model, save, tiny_model, monkeypatch):
    # these tests' own process has more than the command's
    monkeypatch.setattr("clit_zoo.commands.upscale.memory.resident_bytes", lambda: 0)
    save("a.png", w=100, h=80)
    arguments = ["upscale", "a.png", "none.png", "-m", tiny_model, "-s", "2.5", "-o", "out", "--dry-run"]
    result = run(*arguments)
    assert result.code == 1 and not model.loaded and not os.path.exists("out")
    assert "a.png 100×80 -> out/a_x2.5_tiny-lit.png 250×200, about 0.6 GB of memory and 1 s" in result.out
    report = json.loads(run(*arguments, "--json").out)
    assert report["dry_run"] and report["planned"] == 1
    small = report["pictures"][0]
    arguments[arguments.index("2.5")] = "40"
    large = json.loads(run(*arguments, "--json").out)["pictures"][0]
    assert large["memory_bytes"] - small["memory_bytes"] > 2 * 4000 * 3200 * 3  # the output, and its coder's
    assert large["forecast_seconds"] > 20 * small["forecast_seconds"] or small["forecast_seconds"] < 0.2


def test_an_interruption_still_tells_what_was_done(run, model, save, monkeypatch):
    save("a.png")
    save("b.png", w=5)
    model.fail_on[4, 5] = KeyboardInterrupt()
    result = run("upscale", "a.png", "b.png", "-s", "2", "--json")
    report = json.loads(result.out)
    assert result.code == 130 and report["done"] == 1 and report["planned"] == 1
    assert "Interrupted." in result.err and os.listdir().count(f"a_x2_{DEFAULT}.png") == 1


def test_a_real_model(run, save, tiny_model, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # leave the test process' threads as they are
    save("a.png", mode="LA")
    result = run("upscale", "a.png", "-m", tiny_model, "--device", "cpu", "--fp32", "-s", "2.4")
    assert result.code == 0, result.err
    with Image.open("a_x2.4_tiny-lit.png") as image:
        assert image.mode == "LA" and image.size == (14, 10)


def test_a_model_that_cannot_be_loaded(run, save, tiny_model, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    save("a.png")
    (tiny_model / "model.safetensors").unlink()
    result = run("upscale", "a.png", "-m", tiny_model)
    assert result.code == 1 and "model.safetensors" in result.err and "1 not done" in result.out


@pytest.mark.skipif(sys.platform != "linux", reason="needs file names that are any bytes")
def test_names_that_cannot_be_shown(run, model, save):
    save("a.png")
    name = b"caf\xe9 \xc3\xa9.png"
    os.rename(b"a.png", name)
    report = json.loads(run("upscale", os.fsdecode(name), "--json").out)
    assert os.fsencode(report["pictures"][0]["input"]) == name
    os.remove(os.fsencode(report["pictures"][0]["output"]))
    # As text, in a program of its own: there the streams escape what they cannot encode.
    arguments = [sys.executable, "-m", "clit_zoo", "upscale", name, "--dry-run", "-m", "org/repo"]
    done = subprocess.run(arguments, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "utf-8"})
    assert done.returncode == 0, done.stderr
    assert rb"caf\udce9" in done.stdout and b"1 to be enlarged" in done.stdout
