"""`clit-zoo eval` as a person calls it."""

import json
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from clit_zoo.commands.eval import command
from clit_zoo.errors import ClitZooError, ScaleError
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


def test_a_table_beside_the_paper(folder):
    result = call(folder, "-s", "2,x3,4.5")
    assert result.exit_code == 0, result.output
    expected = evaluate("bicubic", folder, (2, 3, 4.5))
    figures = [f"{expected.psnr('Set5', s):.2f}" for s in (2, 3, 4.5)]
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["×2", "×3", "×4.5"] in lines
    assert ["bicubic,", "PSNR", *figures] in lines
    assert ["paper,", "Table", "2:", "RDN-CLIT", "38.26", "34.80", "–"] in lines


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
    assert rows[1]["paper"] == {"Bicubic": 31.01}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["DIV2K_valid_HR", "Set5", "table.json"]
    call(folder, "-s", "2", "--out", out, "--format", "csv")
    assert out.read_text().startswith("dataset,method")


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
    assert content["rows"][0]["paper"] == {}
    words = "div2k: RGB, shave = scale + 6, output not rounded to 8 bits, gray as RGB"
    assert content["protocols"] == {"Set5": words}
    assert len(resume.read_text().splitlines()) == 1
    again = call(*args, "--format", "json", "--beside", "none", "--no-quantise", "--gray-as-rgb")
    assert json.loads(again.stdout)["images"] == content["images"]  # seconds included: nothing ran again


def test_an_unreadable_image_is_named_and_the_exit_code_says_so(folder):
    (folder / "broken.png").write_bytes(b"nothing")
    result = call(folder, "-s", "2")
    assert result.exit_code == 1
    assert "Set5/broken.png" in result.stdout
    assert "Set5: 2 images" in result.stdout
    assert "1 image could not" in result.stderr
    result = call(folder, "-s", "2", "--format", "csv")
    assert result.exit_code == 1
    assert "broken.png cannot be read" in result.stderr


def test_a_wrong_request_stops_before_any_work(folder, tmp_path, monkeypatch):
    def never(*_, **__):
        raise AssertionError("work was started")

    monkeypatch.setattr("clit_zoo.commands.eval._load", never)
    empty = tmp_path / "empty"
    empty.mkdir()
    cases = [
        ((tmp_path / "nowhere",), ClitZooError, "does not exist"),
        ((folder, empty), ClitZooError, "no pictures"),
        ((folder, "-s", "0.5"), ScaleError, "from 1 up"),
        ((folder, "--out", tmp_path / "no" / "table.md"), ClitZooError, "--out"),
        ((folder, "-s", "3", "--lr", tmp_path / "no"), ClitZooError, "low-resolution"),
    ]
    for args, error, words in cases:
        result = call(*args)
        assert isinstance(result.exception, error), result.exception
        assert words in str(result.exception)
    assert "such as 2,3,4" in call(folder, "-s", "two").output
    assert call().exit_code == 2


def test_a_model_is_loaded_by_name(folder, monkeypatch):
    torch = pytest.importorskip("torch")
    import clit_zoo

    class Nearest(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = torch.nn.Parameter(torch.ones(()))

        def check_backend(self):
            asked.append("checked")

        def enlarge(self, image, size):
            return torch.nn.functional.interpolate(image, size)

    asked = []

    def from_pretrained(name, **options):
        asked.append((name, options))
        return Nearest()

    monkeypatch.setattr(clit_zoo, "from_pretrained", from_pretrained, raising=False)
    args = [str(folder), "-m", "some/model", "-s", "2", "--device", "cpu"]  # float32 unless asked otherwise
    result = CliRunner().invoke(command, args)
    assert result.exit_code == 0, result.exception
    assert asked == [("some/model", {"device": "cpu", "dtype": "float32", "backend": "auto"}), "checked"]
    assert "Nearest, PSNR" in result.stdout


def test_neither_help_nor_bicubic_imports_torch(folder):
    code = (
        "import sys; from clit_zoo.commands.eval import command\n"
        f"command(['-m', 'bicubic', '-s', '2', {str(folder)!r}], standalone_mode=False)\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    done = subprocess.run(
        [sys.executable, "-c", "import sys, clit_zoo.commands.eval; assert 'numpy' not in sys.modules"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
