"""`clit-zoo eval` as a person calls it."""

import errno
import json
import os
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import clit_zoo
from clit_zoo.commands.eval import command
from clit_zoo.errors import ClitZooError, ConfigError, ScaleError
from clit_zoo.evaluation import evaluate


@pytest.fixture
def folder(tmp_path):
    hr = tmp_path / "Set5" / "HR"
    hr.mkdir(parents=True)
    for i in range(2):
        pixels = np.random.default_rng(i).integers(0, 256, (40, 36, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(hr / f"{i}.png")
    return hr


def call(*args):
    return CliRunner().invoke(command, ["-m", "bicubic", *map(str, args)])


def test_a_table_beside_published_figures(folder):
    result = call(folder, "-s", "2,x3,4.5")
    assert result.exit_code == 0, result.output
    expected = evaluate("bicubic", folder, (2, 3, 4.5))
    figures = [f"{expected.psnr('Set5', s):.2f}" for s in (2, 3, 4.5)]
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["×2", "×3", "×4.5"] in lines
    assert ["bicubic,", "PSNR", *figures] in lines
    assert ["RDN-CLIT", "(CLIT,", "Table", "2)", "38.26", "34.80", "–"] in lines


def test_several_folders_and_a_file(folder, tmp_path):
    other = tmp_path / "DIV2K_valid_HR"
    other.mkdir()
    (folder / "0.png").rename(other / "0.png")
    out = tmp_path / "table.json"
    result = call(folder, other, "-s", "2", "--out", out, "--no-ssim")
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    rows = json.loads(out.read_text())["rows"]
    assert [(r["dataset"], r["protocol"], r["images"]) for r in rows] == [
        ("Set5", "benchmark", 1),
        ("DIV2K_valid_HR", "div2k", 1),
    ]
    assert rows[0]["ssim"] is None
    assert rows[1]["published"] == {"Bicubic": 31.01}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["DIV2K_valid_HR", "Set5", "table.json"]
    call(folder, "-s", "2", "--out", out, "--format", "csv", "--overwrite")
    assert out.read_text().startswith("dataset,method")


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_table_that_cannot_be_written_is_printed(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("clit_zoo.commands.eval.os.replace", full)
    result = call(folder, "-s", "2", "--out", tmp_path / "table.md")
    assert isinstance(result.exception, OSError) and "No space left" in str(result.exception)
    assert "| bicubic, PSNR |" in result.stdout
    assert os.listdir(tmp_path) == ["Set5"]


def test_a_table_is_as_private_as_the_umask_says(folder, tmp_path):
    before = os.umask(0o077)
    try:
        call(folder, "-s", "2", "--out", tmp_path / "table.md")
    finally:
        os.umask(before)
    assert (tmp_path / "table.md").stat().st_mode & 0o777 == 0o600


def test_datasets_of_one_name_are_kept_apart(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "again" / "Set5" / "HR")
    shutil.copytree(folder, tmp_path / "again" / "Set5" / "GT")
    again = tmp_path / "again" / "Set5"
    result = call(folder, again / "HR", "-s", "2", "--format", "json")
    rows = json.loads(result.stdout)["rows"]
    assert [(row["dataset"], row["images"]) for row in rows] == [
        (f"{tmp_path.name}/Set5", 2),
        ("again/Set5", 2),
    ]
    assert rows[0]["published"] == rows[1]["published"] and rows[0]["published"]["RDN-CLIT"] == 38.26
    result = call(again / "HR", again / "GT", "-s", "2", "--format", "json")
    assert [row["dataset"] for row in json.loads(result.stdout)["rows"]] == ["Set5/HR", "Set5/GT"]


def test_a_precision_is_given_once(folder):
    result = call(folder, "--fp32", "--bf16")
    assert result.exit_code == 2 and "Give one of --fp32 and --bf16." in result.output


def test_options_reach_the_evaluation(folder, tmp_path):
    low = tmp_path / "low" / "X2"
    low.mkdir(parents=True)
    Image.fromarray(np.zeros((20, 18, 3), np.uint8)).save(low / "0x2.png")
    resume = tmp_path / "scores.jsonl"
    args = (folder, "-s", "2", "--lr", low.parent, "--limit", "1", "--protocol", "div2k", "--resume", resume)
    result = call(*args, "--format", "json", "--beside", "none", "--no-quantise", "--gray-as-rgb")
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    assert content["rows"][0]["images"] == 1
    assert content["rows"][0]["lr"] == "given"
    assert content["rows"][0]["published"] == {}
    words = "div2k: RGB, shave = scale + 6, output not rounded to 8 bits, gray as RGB"
    assert content["protocols"] == {"Set5": words}
    assert len(resume.read_text().splitlines()) == 1
    again = call(*args, "--format", "json", "--beside", "none", "--no-quantise", "--gray-as-rgb")
    assert json.loads(again.stdout)["images"] == content["images"]  # seconds included: nothing ran again


def test_an_unreadable_image_is_named_and_the_exit_code_says_so(folder):
    (folder / "broken.png").write_bytes(b"nothing")
    result = call(folder, "-s", "2")
    assert result.exit_code == 1
    assert "Set5/broken.png" in result.stdout and "object at 0x" not in result.output
    assert "Set5: 2 images" in result.stdout
    assert "1 image could not" in result.stderr
    result = call(folder, "-s", "2", "--format", "csv")
    assert result.exit_code == 1
    assert "Skipped Set5/broken.png: broken.png: not a picture" in result.stderr


def test_pictures_of_other_formats_are_named(folder, tmp_path):
    Image.new("RGB", (40, 40)).save(folder / "an.gif")
    (folder / "t.HEIC").write_bytes(b"whatever it is")
    (folder / ".t.heic").write_bytes(b"whatever it is")
    (folder / "raw.dng").mkdir()
    result = call(folder, "-s", "2,3")
    assert result.exit_code == 1 and "Set5: 2 images" in result.stdout
    assert "- Set5/an.gif: frames or depth of its format" in result.stdout
    assert "- Set5/t.HEIC: its format cannot be read here: save it as JPEG" in result.stdout
    assert "Skipped 2 images" in result.stdout and "2 images could not be scored" in result.stderr
    for path in folder.glob("*.png"):
        path.unlink()
    result = call(folder, "-s", "2")
    assert "no pictures" in str(result.exception) and "2 left out, such as an.gif" in str(result.exception)


def test_a_wrong_request_stops_before_any_work(folder, tmp_path, monkeypatch):
    def never(*_, **__):
        raise AssertionError("work was started")

    monkeypatch.setattr("clit_zoo.commands.eval._method", never)
    empty = tmp_path / "empty"
    empty.mkdir()
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"precious")
    link = tmp_path / "link.md"
    link.symlink_to(tmp_path / "not" / "there")
    cases = [
        ((tmp_path / "nowhere",), FileNotFoundError, "nowhere"),
        ((folder, empty), ClitZooError, "no pictures"),
        ((folder, "-s", "0.5"), ScaleError, "from 1 up"),
        ((folder, "--out", tmp_path / "no" / "table.md"), FileNotFoundError, "no"),
        ((folder, "--out", photo), ClitZooError, "--overwrite"),
        ((folder, "--out", link), ClitZooError, "--overwrite"),
        ((folder, "--out", tmp_path / ("z" * 300)), OSError, "File name too long"),
        ((folder, folder / ".." / "HR"), ClitZooError, "given twice"),
        ((folder, "-s", "3", "--lr", tmp_path / "no"), ClitZooError, "low-resolution"),
    ]
    for args, error, words in cases:
        result = call(*args)
        assert isinstance(result.exception, error), result.exception
        assert words in str(result.exception)
    assert photo.read_bytes() == b"precious"
    assert "such as 2,3,4" in call(folder, "-s", "two").output
    assert call().exit_code == 2


def test_a_model_is_loaded_by_name(folder, tiny_model, monkeypatch):
    asked, load = [], clit_zoo.from_pretrained

    def from_pretrained(name, **options):
        asked.append((name, options))
        return load(name, **options)

    monkeypatch.setattr(clit_zoo, "from_pretrained", from_pretrained)
    args = [str(folder), "-m", str(tiny_model), "-s", "2", "--device", "cpu"]
    result = CliRunner().invoke(command, args)
    assert result.exit_code == 0, result.exception
    # float32 unless asked otherwise
    assert asked == [(str(tiny_model), {"device": "cpu", "dtype": "float32", "backend": "auto"})]
    assert "tiny-lit, PSNR" in result.stdout
    result = CliRunner().invoke(command, [*args, "--backend", "triton"])
    assert isinstance(result.exception, ConfigError) and "triton" in str(result.exception)
