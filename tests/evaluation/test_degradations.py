"""Degradations of low-resolution pictures, and tables of them."""

import numpy as np
import pytest
from click.testing import CliRunner
from evaluation_cases import originals, picture

from clit_zoo.commands.eval import command
from clit_zoo.errors import ClitZooError
from clit_zoo.evaluation import evaluate
from clit_zoo.evaluation.degradations import (
    degradation,
    gaussian_noise,
    jpeg,
    motion_blur,
    poisson_noise,
    webp,
)

WORDS = ("jpeg:70", "webp:80", "noise:8", "blur:0.8", "camera")


def mean_error(a, b):
    return float(np.abs(a.astype(float) - b).mean())


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("gray", [False, True])
def test_a_degraded_picture_is_the_same_each_time_and_in_place(word, gray):
    clean = picture(0, 41, 47)
    clean = clean[..., 0] if gray else clean
    how = degradation(word)
    found = how(clean)
    assert found.shape == clean.shape and found.dtype == np.uint8
    assert np.array_equal(found, how(clean)) and not np.array_equal(found, clean)
    inner = (slice(2, -2), slice(2, -2))
    moved = [mean_error(found[inner], np.roll(clean, 1, axis)[inner]) for axis in (0, 1)]
    assert mean_error(found[inner], clean[inner]) < min(moved)


def test_noise_has_the_strength_asked_for():
    flat = np.full((200, 200, 3), 128, np.uint8)
    rng = np.random.default_rng(0)
    assert degradation("noise:8")(flat).std() == pytest.approx(8, rel=0.02)
    assert gaussian_noise(flat, 3, rng).std() == pytest.approx(3, rel=0.03)
    assert poisson_noise(flat, 8, rng).std() == pytest.approx(8, rel=0.02)
    assert poisson_noise(flat // 4, 8, rng).std() == pytest.approx(4, rel=0.03)
    assert not np.array_equal(degradation("noise:8")(flat), degradation("noise:8")(flat + 1) - 1)


def test_lower_quality_is_further_off():
    clean = picture(3, 48, 48)
    for through in (jpeg, webp):
        errors = [mean_error(through(clean, quality), clean) for quality in (95, 60, 20)]
        assert errors == sorted(errors)
    assert mean_error(jpeg(clean, 90, subsampled=False), clean) < mean_error(jpeg(clean, 90), clean)


@pytest.mark.parametrize("shift", [(0, 0), (3, 5), (15, 8)])
def test_the_grid_begins_where_it_is_told(shift):
    ramp = (2 * np.add.outer(np.arange(48), np.arange(48))).astype(np.uint8)
    coded = jpeg(ramp, 1, shift=shift).astype(int)  # at quality 1 only the blocks' means are left of it
    for axis, start in enumerate(shift):
        steps = np.abs(np.diff(coded, axis=axis)).max(1 - axis)
        edges = set(np.flatnonzero(steps).tolist())
        assert len(edges) >= 4 and all((edge + 1 + start) % 8 == 0 for edge in edges)


def test_motion_blur_spreads_along_its_line_only():
    point = np.zeros((21, 21), np.uint8)
    point[10, 10] = 250
    assert np.flatnonzero(motion_blur(point, 4, 0).sum(0)).tolist() == [8, 9, 10, 11, 12]
    assert np.flatnonzero(motion_blur(point, 4, 0).sum(1)).tolist() == [10]
    assert np.array_equal(motion_blur(point, 4, np.pi / 2), motion_blur(point, 4, 0).T)


@pytest.mark.parametrize("word", ["jpeg", "jpeg:0", "jpeg:7.5", "noise:-1", "noise:nan", "fog:3", "camera:2"])
def test_a_word_that_says_nothing_is_refused(word):
    with pytest.raises(ClitZooError, match="degradation is "):
        degradation(word)


def test_a_table_of_degraded_pictures(tmp_path):
    folder = originals(tmp_path)
    file = tmp_path / "scores.jsonl"
    found = {w: evaluate("bicubic", folder, [2, 6], degrade=w, resume_file=file) for w in ("", *WORDS)}
    for word in WORDS:
        assert found[word].psnr("Set5", 2) < found[""].psnr("Set5", 2)
        assert {mean.lr for mean in found[word].means()} == {
            f"MATLAB bicubic, then {word}",
            f"Pillow bicubic, then {word}",
        }
    result = CliRunner().invoke(command, ["-m", "bicubic", str(folder), "-s", "2", "--degrade", "jpeg:70"])
    assert result.exit_code == 0, result.output
    assert f"{found['jpeg:70'].psnr('Set5', 2):.2f}" in result.stdout
    assert "Low-resolution pictures: MATLAB bicubic, then jpeg:70." in result.stdout
    assert "paper" not in result.stdout  # its figures are for clean pictures
    again = evaluate("bicubic", folder, [2, 6], degrade="noise:8", resume_file=file)
    assert again.means() == found["noise:8"].means()


def test_a_wrong_word_is_refused_before_the_work(tmp_path):
    result = CliRunner().invoke(command, [str(originals(tmp_path)), "--degrade", "jpeg:700"])
    assert isinstance(result.exception, ClitZooError)
    assert "jpeg:N with N from 1 to 100" in str(result.exception)
