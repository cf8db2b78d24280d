"""Going on from finished scores, and what tells one model's scores from another's."""

from dataclasses import replace

import numpy as np
import pytest
from evaluation_cases import originals, picture
from PIL import Image

from clit_zoo.errors import ClitZooError
from clit_zoo.evaluation import PROTOCOLS, Runner, evaluate, model_runner
from clit_zoo.evaluation.resize import imresize

BENCHMARK = PROTOCOLS["benchmark"]


@pytest.fixture
def folder(tmp_path):
    return originals(tmp_path)


class Counting:
    """Bicubic that counts its calls and stops at the one it is told to."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.calls, self.stop_at = 0, stop_at

    def __call__(self, image, size):
        self.calls += 1
        if self.calls == self.stop_at:
            raise KeyboardInterrupt
        return imresize(image, size=size)


def test_a_cut_off_evaluation_goes_on(folder, tmp_path):
    file = tmp_path / "scores.jsonl"
    with pytest.raises(KeyboardInterrupt):
        evaluate(Runner("m", "1", Counting(stop_at=4)), folder, [2, 3], resume_file=file)
    assert len(file.read_text().splitlines()) == 3
    with file.open("a") as out:
        out.write('{"model": "1", "ima')  # a line cut short by a kill
    rest = Counting()
    resumed = evaluate(Runner("m", "1", rest), folder, [2, 3], resume_file=file)
    assert rest.calls == 3
    fresh = evaluate("bicubic", folder, [2, 3])
    assert [(s.image, s.scale, s.psnr, s.ssim) for s in resumed.scores] == [
        (s.image, s.scale, s.psnr, s.ssim) for s in fresh.scores
    ]
    again = Counting()
    evaluate(Runner("m", "1", again), folder, [2, 3], resume_file=file)
    assert again.calls == 0


def test_a_finished_score_is_used_only_for_the_same_question(folder, tmp_path):
    file = tmp_path / "scores.jsonl"
    given = tmp_path / "low"
    given.mkdir()
    for stem, size in (("a", (20, 22)), ("b", (20, 23)), ("c", (20, 22))):
        Image.fromarray(picture(9, *size)).save(given / f"{stem}x2.png")

    def calls(fingerprint="1", scale=2, protocol="benchmark", **options):
        run = Counting()
        evaluate(Runner("m", fingerprint, run), folder, [scale], protocol, resume_file=file, **options)
        return run.calls

    assert calls() == 3
    assert calls() == 0
    assert calls(fingerprint="2") == 3
    assert calls(scale=2.5) == 3
    assert calls(protocol="div2k") == 3
    assert calls(protocol=replace(BENCHMARK, quantise=False)) == 3
    assert calls(ssim=False) == 3
    assert calls(lr_folder=given) == 3
    Image.fromarray(picture(10, 20, 22)).save(given / "ax2.png")
    assert calls(lr_folder=given) == 1
    Image.fromarray(picture(11)).save(folder / "a.png")
    assert calls() == 1
    assert calls(dataset="another name") == 0


def test_a_resume_file_that_is_none_is_not_overwritten(folder, tmp_path):
    file = tmp_path / "letter.txt"
    file.write_text("Dear all\n")
    with pytest.raises(ClitZooError, match="no scores"):
        evaluate("bicubic", folder, [2], resume_file=file)
    assert file.read_text() == "Dear all\n"
    with pytest.raises(ClitZooError, match="fingerprint"):
        evaluate(Counting(), folder, [2], resume_file=tmp_path / "new")
    with pytest.raises(ClitZooError, match="cannot be used"):
        evaluate("bicubic", folder, [2], resume_file=tmp_path / "no" / "folder")
    with pytest.raises(ClitZooError, match="not a regular file"):
        evaluate("bicubic", folder, [2], resume_file="/dev/null")


def nearest():
    """A module with the one method that is asked for: the nearest pixel times a weight."""
    torch = pytest.importorskip("torch")

    class Nearest(torch.nn.Module):
        backend = "auto"

        def __init__(self):
            super().__init__()
            self.gain = torch.nn.Parameter(torch.ones(()))

        def enlarge(self, image, size):
            assert image.dtype == torch.float32
            assert image.shape[:2] == (1, 3)
            assert 0 <= image.min() <= image.max() <= 1
            return (torch.nn.functional.interpolate(image, size) * self.gain).clamp(0, 1)

    return Nearest()


def test_model_runner(folder):
    model = nearest()
    runner = model_runner(model)
    assert runner.name == "Nearest"
    low = picture(0, 7, 5)
    output = runner(low, (14, 10))
    assert np.array_equal(np.rint(output * 255), low.repeat(2, 0).repeat(2, 1))
    assert evaluate(model, folder, [2], limit=1).psnr("Set5", 2) > 10


def test_a_fingerprint_tells_models_apart():
    first, same, other, slower = nearest(), nearest(), nearest(), nearest()
    slower.backend = "reference"
    other.gain.data += 1e-6
    models = (first, same, other, slower, nearest().bfloat16(), nearest().half())
    fingerprints = [model_runner(model).fingerprint for model in models]
    assert fingerprints[0] == fingerprints[1] and len(set(fingerprints)) == 5


def test_scores_of_another_precision_are_not_taken_over(folder, tmp_path):
    file = tmp_path / "scores.jsonl"
    for lines, model in (
        (3, nearest()),
        (6, nearest().bfloat16()),
        (6, nearest()),
        (6, nearest().bfloat16()),
    ):
        evaluate(model, folder, [2], resume_file=file, progress=False)
        assert len(file.read_text().splitlines()) == lines


def test_weights_are_hashed_only_to_resume_and_then_once(folder, tmp_path, monkeypatch):
    asked = []

    def fingerprint(model):
        asked.append(model)
        return "1"

    monkeypatch.setattr("clit_zoo.evaluation.runners.model_fingerprint", fingerprint)
    runner = model_runner(nearest())
    evaluate(runner, folder, [2, 3], progress=False)
    assert asked == []
    evaluate(runner, folder, [2, 3], resume_file=tmp_path / "scores.jsonl", progress=False)
    assert len(asked) == 1 and runner.fingerprint == "1"
