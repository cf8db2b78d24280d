"""Measuring while training: what cannot be measured is said at once, and no failure costs steps."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_training import PATCH, tiny_model

from clit_zoo.errors import ClitZooError
from clit_zoo.evaluation import Results
from clit_zoo.training.checkpoint import load_checkpoint
from clit_zoo.training.log import read_log
from clit_zoo.training.recipe import Recipe
from clit_zoo.training.run import Run
from clit_zoo.training.validation import Validation, mean_psnr


def draw(path: Path, width: int, height: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def originals(tmp_path) -> Path:
    """A picture that is large enough for anything, and one for nothing."""
    draw(tmp_path / "pair" / "a.png", 40, 30)
    draw(tmp_path / "pair" / "b.png", 5, 5)
    return tmp_path / "pair"


def start(photographs, folder: Path, validation: Validation) -> Run:
    recipe = Recipe(steps=6, batch=2, patch=PATCH)
    return Run(
        tiny_model(), recipe, photographs, folder, validation=validation,
        save_every=100, log_every=3, tensorboard=False, progress=False,
    )  # fmt: skip


def test_useless_settings_fail_at_the_start(originals, tmp_path):
    draw(tmp_path / "small" / "s.png", 8, 6)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "x.png").write_bytes(b"no picture")
    (tmp_path / "elsewhere").mkdir()
    for folders, changes, message in (
        (["small"], {"scales": (2, 3)}, r"no picture of .*small can be measured at ×3 \(s.png is 8×6\)"),
        (["pair", "broken"], {}, r"no picture of .*broken can be .*x\.png: not a picture"),
        (["pair"], {"scales": (2, 50)}, r"at ×50"),
        (["pair", "elsewhere/../pair"], {}, "given twice"),
    ):
        with pytest.raises(ClitZooError, match=message):
            Validation(tuple(tmp_path / folder for folder in folders), **changes)
    Validation((originals,), (2, 3, 4))


def test_datasets_of_one_name_are_kept_apart(originals, tmp_path):
    for name in ("a", "b"):
        draw(tmp_path / name / "DIV2K" / "HR" / "x.png", 40, 40)
    folders = (originals, tmp_path / "a" / "DIV2K" / "HR", tmp_path / "b" / "DIV2K" / "HR")
    validation = Validation(folders, (2,))
    names = ["pair", "a/DIV2K", "b/DIV2K"]
    assert validation.what["folders"] == names
    results = validation.measure(tiny_model())
    assert [mean.dataset for mean in results.means()] == names
    assert [mean.protocol for mean in results.means()] == ["benchmark", "div2k", "div2k"]


def test_pictures_left_out_are_logged(photographs, originals, tmp_path):
    (originals / "0.png").write_bytes(b"no picture")
    run = start(photographs, tmp_path / "run", Validation((originals,), (3,), every=6))
    assert run.train()
    row = read_log(run.folder)[-1]
    assert set(row["val"]) == {"pair×3"}
    assert [skipped[:2] for skipped in row["val_skipped"]] == [["pair/0.png", None], ["pair/b.png", 3]]
    assert "too small" in row["val_skipped"][1][2]
    assert (run.folder / "samples" / "step_0000006.png").exists()


def test_a_validation_that_fails_costs_no_steps(photographs, originals, tmp_path, monkeypatch):
    validation = Validation((originals,), (2,), every=3)
    run = start(photographs, tmp_path / "run", validation)

    monkeypatch.setattr(Validation, "measure", lambda self, model: Results("tiny"))
    with pytest.raises(ClitZooError, match="no validation picture could be measured"):
        run.train()
    monkeypatch.undo()
    assert load_checkpoint(run.checkpoint)["step"] == 3
    again = start(photographs, tmp_path / "run", validation)
    assert again.begin().step == 3 and again.train()
    assert load_checkpoint(run.checkpoint)["best"]["step"] == 6


def test_nothing_measured_names_the_first_reason(originals):
    results = Validation((originals,), (2,)).measure(tiny_model())
    results.scores.clear()
    with pytest.raises(ClitZooError, match=r"b\.png .*too small"):
        mean_psnr(results)


def test_a_sample_that_does_not_fit_is_left_out(photographs, originals, tmp_path, monkeypatch):
    def too_large(*_, **__):
        raise MemoryError("too large")

    validation = Validation((originals,), (2,), every=6)
    monkeypatch.setattr("clit_zoo.training.validation.bicubic", too_large)
    assert validation.sample(tiny_model()) is None
    run = start(photographs, tmp_path / "run", validation)
    assert run.train() and not (run.folder / "samples").exists()


def test_best_compares_what_was_measured_alike(photographs, originals, tmp_path):
    run = start(photographs, tmp_path / "run", Validation((originals,), (2,), every=6))
    assert run.train() and run.state.best["step"] == 6

    def best(*options, **more):
        return start(photographs, run.folder, Validation((originals,), *options, **more)).begin().best

    assert best((2,), every=2) == run.state.best
    assert best((2, 3)) == best((2,), limit=1) == {}
    shutil.rmtree(run.folder / "best")
    assert best((2,), every=2) == {}
