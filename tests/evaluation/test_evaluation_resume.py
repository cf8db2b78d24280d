"""Going on from finished scores, and what tells one model's scores from another's."""

import errno
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from evaluation_cases import originals, picture, tiny_model
from PIL import Image

from clit_zoo.errors import ClitZooError
from clit_zoo.evaluation import PROTOCOLS, Method, evaluate, model_method
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
        evaluate(Method("m", Counting(stop_at=4), "1"), folder, [2, 3], resume_file=file)
    assert len(file.read_text().splitlines()) == 3
    with file.open("a") as out:
        out.write('{"question": "1", "fig')  # a line cut short by a kill
    rest = Counting()
    resumed = evaluate(Method("m", rest, "1"), folder, [2, 3], resume_file=file)
    assert rest.calls == 3
    fresh = evaluate("bicubic", folder, [2, 3])
    assert [(s.image, s.scale, s.psnr, s.ssim) for s in resumed.scores] == [
        (s.image, s.scale, s.psnr, s.ssim) for s in fresh.scores
    ]
    again = Counting()
    evaluate(Method("m", again, "1"), folder, [2, 3], resume_file=file)
    assert again.calls == 0


def test_a_finished_score_is_used_only_for_the_same_question(folder, tmp_path):
    file = tmp_path / "scores.jsonl"
    given = tmp_path / "low"
    given.mkdir()
    for stem, size in (("a", (20, 22)), ("b", (20, 23)), ("c", (20, 22))):
        Image.fromarray(picture(9, *size)).save(given / f"{stem}x2.png")

    def calls(identity="1", scale=2, protocol="benchmark", **options):
        run = Counting()
        evaluate(Method("m", run, identity), folder, [scale], protocol, resume_file=file, **options)
        return run.calls

    assert calls() == 3
    assert calls() == 0
    assert calls(identity="2") == 3
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


def test_a_file_that_holds_something_else_is_not_touched(folder, tmp_path):
    file = tmp_path / "letter.txt"
    file.write_text("Dear all\n")
    with pytest.raises(ClitZooError, match="no scores"):
        evaluate("bicubic", folder, [2], resume_file=file)
    assert file.read_text() == "Dear all\n"
    with pytest.raises(ClitZooError, match="identity"):
        evaluate(Counting(), folder, [2], resume_file=tmp_path / "new")
    with pytest.raises(FileNotFoundError, match="folder"):
        evaluate("bicubic", folder, [2], resume_file=tmp_path / "no" / "folder")


def test_a_full_disk_is_named_and_what_was_kept_goes_on(folder, tmp_path, monkeypatch):
    file, synced = tmp_path / "scores.jsonl", []

    def sync(_):
        synced.append(1)
        if len(synced) == 4:  # the file's opening, two scores, and the third
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch, pytest.raises(OSError, match=r"No space left.*scores\.jsonl"):
        patch.setattr("clit_zoo.evaluation.resume.os.fsync", sync)
        evaluate("bicubic", folder, [2], resume_file=file)
    file.write_text(file.read_text()[:-9])  # what a full disk leaves
    rest = Counting()
    assert len(evaluate(Method("m", rest, "bicubic"), folder, [2], resume_file=file).scores) == 3
    assert rest.calls == 1


def test_a_model_as_a_method(folder):
    model = tiny_model()
    method = model_method(model)
    assert (method.name, model_method(model, "mine").name) == ("tiny-lit", "mine")
    assert model_method(tiny_model().bfloat16()).name == "tiny-lit in bfloat16"
    low = picture(0, 7, 5)
    image = torch.from_numpy(low).permute(2, 0, 1)[None] / 255
    with torch.inference_mode():
        expected = model(image, (14, 10))[0].permute(1, 2, 0).clamp(0, 1)
    output = method(low, (14, 10))
    assert output.dtype == np.float32 and np.abs(output - expected.numpy()).max() < 1e-6
    assert evaluate(model, folder, [2], limit=1).psnr("Set5", 2) > 10


def test_keys_tell_models_apart():
    other = tiny_model()
    next(other.parameters()).data[0] += 1e-6
    models = (tiny_model(), tiny_model(), other, tiny_model(backend="reference"), tiny_model().bfloat16())
    keys = [model_method(model).key for model in (*models, tiny_model().half())]
    assert keys[0] == keys[1] and len(set(keys)) == 5


def test_scores_of_another_precision_are_not_taken_over(folder, tmp_path):
    file = tmp_path / "scores.jsonl"
    for lines, dtype in ((3, torch.float32), (6, torch.bfloat16), (6, torch.float32), (6, torch.bfloat16)):
        evaluate(tiny_model().to(dtype), folder, [2], resume_file=file, progress=False)
        assert len(file.read_text().splitlines()) == lines


def test_weights_are_hashed_only_to_resume_and_then_once(folder, tmp_path, monkeypatch):
    asked = []

    def model_key(model):
        asked.append(model)
        return "1"

    monkeypatch.setattr("clit_zoo.evaluation.methods.model_key", model_key)
    method = model_method(tiny_model())
    evaluate(method, folder, [2, 3], progress=False)
    assert asked == []
    evaluate(method, folder, [2, 3], resume_file=tmp_path / "scores.jsonl", progress=False)
    assert len(asked) == 1 and method.key == "1"
