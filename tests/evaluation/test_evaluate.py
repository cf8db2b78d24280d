"""Protocols, metrics, pairs and tables; bicubic's published figures where the data is present."""

import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from evaluation_cases import originals, picture
from PIL import Image

from clit_zoo.errors import ClitZooError, ScaleError
from clit_zoo.evaluation import PROTOCOLS, Results, Score, Skipped, evaluate, protocol_for, psnr, render, ssim
from clit_zoo.evaluation.dataset import low_folders

DATA = Path(__file__).parents[3] / "shared" / "data" / "eval"
BENCHMARK = PROTOCOLS["benchmark"]


@pytest.fixture
def folder(tmp_path):
    return originals(tmp_path)


# Metrics


def test_psnr_of_a_constant_error():
    a = np.full((20, 20), 100.0)
    assert psnr(a + 5, a) == pytest.approx(20 * math.log10(255 / 5))
    assert psnr(a, a) == math.inf


def test_ssim_equals_the_formula_window_by_window():
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0, 255, (2, 13, 12))
    ramp = np.exp(-((np.arange(11) - 5.0) ** 2) / 4.5)
    window = np.outer(ramp, ramp) / ramp.sum() ** 2
    scores = []
    for i in range(3):
        for j in range(2):
            p, q = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
            mp, mq = (window * p).sum(), (window * q).sum()
            vp, vq = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum()
            cov = (window * (p - mp) * (q - mq)).sum()
            c1, c2 = 2.55**2, 7.65**2
            scores.append((2 * mp * mq + c1) * (2 * cov + c2) / ((mp**2 + mq**2 + c1) * (vp + vq + c2)))
    assert ssim(x, y) == pytest.approx(np.mean(scores), abs=1e-12)
    assert ssim(x, x) == pytest.approx(1)
    assert ssim(np.dstack([x, x]), np.dstack([y, x])) == pytest.approx((np.mean(scores) + 1) / 2)
    assert ssim(x[:10], y[:10]) is None


# Protocols


@pytest.mark.parametrize(
    ("name", "scale", "border"), [("benchmark", 3, 3), ("div2k", 3, 9), ("benchmark", 2.5, 3)]
)
def test_errors_under_the_border_do_not_count(name, scale, border):
    truth = picture(0)
    output = truth.copy()
    output[:border] ^= 255
    output[:, -border:] ^= 255
    assert PROTOCOLS[name].score(output, truth, scale)[0] == math.inf
    output[border, border] ^= 1
    assert PROTOCOLS[name].score(output, truth, scale)[0] < 100


def test_luminance_weights():
    truth = np.full((20, 20, 3), 100, np.uint8)
    for channel, weight in enumerate((65.738, 129.057, 25.064)):
        output = truth.copy()
        output[..., channel] += 8
        expected = 20 * math.log10(255 / (8 * weight / 256))
        assert BENCHMARK.score(output, truth, 2)[0] == pytest.approx(expected)
        assert PROTOCOLS["div2k"].score(output, truth, 2)[0] == pytest.approx(
            20 * math.log10(255 / 8 * 3**0.5)
        )


def test_output_is_rounded_to_eight_bits_unless_told_otherwise():
    truth = np.minimum(picture(0), 200)  # well below where a float above one is clipped
    output = (truth + 0.4) / 255
    assert BENCHMARK.score(output, truth, 2)[0] == math.inf
    expected = 20 * math.log10(255 / (0.4 * 219.859 / 256))
    assert replace(BENCHMARK, quantise=False).score(output, truth, 2)[0] == pytest.approx(expected)


def test_gray_is_scored_by_itself_or_as_rgb():
    truth = picture(0)[..., 0]
    output = np.repeat(truth[..., None], 3, axis=2) ^ 4
    alone = BENCHMARK.score(output, truth, 2)[0]
    assert alone == pytest.approx(20 * math.log10(255 / 4))
    assert PROTOCOLS["div2k"].score(output, truth, 2)[0] == pytest.approx(alone)
    as_rgb = replace(BENCHMARK, gray_as_rgb=True).score(output, truth, 2)[0]
    assert as_rgb - alone == pytest.approx(20 * math.log10(256 / 219.859))


def test_protocol_by_dataset_name():
    assert protocol_for("auto", "DIV2K_valid_HR").name == "div2k"
    assert protocol_for("auto", "Urban100").name == "benchmark"
    with pytest.raises(ClitZooError, match=r"set5.*benchmark, div2k"):
        protocol_for("set5", "Set5")


# Pairs


@pytest.mark.parametrize(
    ("scale", "lr"), [(2, "MATLAB bicubic"), (3.5, "MATLAB bicubic"), (6, "Pillow bicubic")]
)
def test_pairs_are_cropped_to_a_multiple(folder, scale, lr):
    seen = []

    def run(image, size):
        seen.append((image.shape, size))
        return np.zeros((*size, 3), np.uint8)

    results = evaluate(run, folder, [scale])
    small = [(int(h / scale), int(w / scale), 3) for h, w in ((40, 44), (41, 47), (40, 44))]
    assert seen == [(s, (round(s[0] * scale), round(s[1] * scale))) for s in small]
    assert {score.lr for score in results.scores} == {lr}
    assert [score.image for score in results.scores] == ["a", "b", "c"]
    assert results.protocols == {"Set5": "benchmark: luminance, shave = scale"}


def test_given_low_resolution_pictures_are_used(folder, tmp_path):
    low = tmp_path / "Set5" / "LR_bicubic" / "X2"
    low.mkdir(parents=True)
    marked = np.full((20, 22, 3), 77, np.uint8)
    Image.fromarray(marked).save(low / "ax2.png")  # as Set5's files are called
    Image.fromarray(np.full((20, 23, 3), 77, np.uint8)).save(low / "b.png")
    Image.fromarray(np.full((7, 7), 77, np.uint8)).save(low / "cx2.png")  # of the wrong size
    seen = []

    def run(image, size):
        seen.append(np.unique(image).tolist())
        return np.zeros((*size, 3), np.uint8)

    for pattern in (low.parent, low.parent / "X{scale}", tmp_path / "{dataset}" / "LR_bicubic"):
        seen.clear()
        results = evaluate(run, folder, [2, 6], lr_folder=str(pattern))
        assert seen[0] == seen[2] == [77]
        assert [(s.image, s.scale, s.lr) for s in results.scores] == [
            ("a", 2, "given"),
            ("a", 6, "Pillow bicubic"),
            ("b", 2, "given"),
            ("b", 6, "Pillow bicubic"),
            ("c", 6, "Pillow bicubic"),
        ]
        assert [(s.image, s.scale) for s in results.skipped] == [("c.png", 2)]
        assert "cx2.png is 7×7" in results.skipped[0].reason
    (low / "b.png").unlink()
    results = evaluate(run, folder, [2], lr_folder=low)
    assert "no bx2.png or b.png" in results.skipped[0].reason
    with pytest.raises(ClitZooError, match=r"×3.*X3"):
        evaluate(run, folder, [2, 3], lr_folder=low.parent)


def test_low_folders_without_a_pattern():
    assert low_folders(None, "Set5", [2, 3]) == {2: None, 3: None}


# Refusals and damaged files


def test_folders_and_scales_that_cannot_be_used(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        evaluate("bicubic", tmp_path / "nowhere", [2])
    with pytest.raises(NotADirectoryError, match=r"a\.png"):
        evaluate("bicubic", folder / "a.png", [2])
    with pytest.raises(ClitZooError, match=r"no pictures.*HR"):
        evaluate("bicubic", folder.parent, [2])
    for scales in ([0.5], [float("nan")], []):
        with pytest.raises(ScaleError):
            evaluate("bicubic", folder, scales)
    with pytest.raises(TypeError, match="int"):
        evaluate(3, folder, [2])


def test_damaged_small_and_deep_pictures_are_named_and_skipped(folder):
    whole = (folder / "a.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "text.png").write_text("no picture")
    Image.fromarray(np.zeros((40, 40), np.uint16)).save(folder / "deep.png")
    Image.fromarray(picture(0, 4, 40)).save(folder / "flat.png")
    (folder / "notes.txt").write_text("ignored")
    results = evaluate("bicubic", folder, [2, 8])
    whole_file = {(s.image, s.scale) for s in results.skipped}
    assert whole_file == {
        ("cut.png", None),
        ("text.png", None),
        ("deep.png", None),
        ("flat.png", 2),
        ("flat.png", 8),
    }
    reasons = {s.image: s.reason for s in results.skipped}
    assert "8 bits" in reasons["deep.png"]
    assert "no pixel" in reasons["flat.png"]
    assert [s.image for s in results.scores] == ["a", "a", "b", "b", "c", "c"]
    text = render(results)
    assert "Skipped 5 images" in text
    assert "Set5/cut.png" in text


def test_wrong_outputs_are_skipped_with_the_reason(folder):
    results = evaluate(lambda image, size: image, folder, [2], limit=1)
    assert "(20, 22, 3) where finite (40, 44, 3)" in results.skipped[0].reason
    results = evaluate(lambda image, size: np.full((*size, 3), np.nan), folder, [2], limit=1)
    assert "where finite" in results.skipped[0].reason
    assert "Nothing could be scored" in render(results)


# Tables


@pytest.fixture
def results():
    def score(dataset, protocol, scale, image, lr, value, similarity):
        return Score(dataset, protocol, scale, image, lr, value, similarity, 0.5)

    return Results(
        "rdn-clit",
        [
            score("Set5", "benchmark", 2.0, "a", "given", 30.0, 0.9),
            score("Set5", "benchmark", 2.0, "b", "given", 33.0, 0.8),
            score("Set5", "benchmark", 6.0, "a", "Pillow bicubic", 20.0, 0.5),
            score("DIV2K", "div2k", 5.0, "z", "Pillow bicubic", math.inf, None),
        ],
        [Skipped("Set5", "b.png", 6.0, "too small"), Skipped("Set5", "c.png", None, "cannot be read")],
        {"Set5": "benchmark: …", "DIV2K": "div2k: …"},
    )


def test_means_are_of_the_decibels(results):
    assert results.psnr("Set5", 2) == 31.5
    assert results.ssim("Set5", 2) == pytest.approx(0.85)
    assert [m.images for m in results.means()] == [2, 1, 1]
    with pytest.raises(KeyError):
        results.psnr("Set5", 3)
    joined = results + results
    assert joined.psnr("Set5", 2) == 31.5
    assert len(joined.skipped) == 4


def test_text_and_markdown(results):
    text = render(results)
    lines = [line.split() for line in text.splitlines()]
    assert ["×2", "×6"] in lines
    assert ["rdn-clit,", "PSNR", "31.50", "20.00"] in lines
    assert ["rdn-clit,", "SSIM", "0.8500", "0.5000"] in lines
    assert ["RDN-CLIT", "(CLIT,", "Table", "2)", "38.26", "29.39"] in lines
    assert "Set5: 1 to 2 images" in text
    assert "given at ×2; Pillow bicubic at ×6. Figures on the two kinds are not one series." in text
    assert "averages over 5 images" in text
    assert "- Set5/b.png ×6: too small" in text
    markdown = render(results, "markdown")
    assert "| rdn-clit, PSNR | 31.50 | 20.00 |" in markdown
    assert "| --- | ---: | ---: |" in markdown


def test_rows_beside(results):
    assert "SwinIR-LTE" in render(results, beside="all")
    assert "CLIT," not in render(results, beside="none")
    other = replace(results, model="edsr-light-lit", scores=results.scores[:2])
    text = render(other)
    assert "RDN-CLIT" in text
    assert "SwinIR-CLIT" in text
    assert "LIIF" not in text


def test_several_models_share_a_table(results):
    """Their lines in turn, then published ones once, and what was skipped once."""
    other = replace(results, model="mine", scores=results.scores[:1])
    text = render([results, other])
    lines = [line.split() for line in text.splitlines()]
    first = lines.index(["rdn-clit,", "PSNR", "31.50", "20.00"])
    assert lines[first + 2] == ["mine,", "PSNR", "30.00", "–"]
    assert text.count("RDN-CLIT (CLIT") == text.count("too small") == text.count("Set5:") == 1
    rows = list(csv.DictReader(io.StringIO(render([results, other], "csv"))))
    assert {row["method"] for row in rows if row["source"] == "measured"} == {"rdn-clit", "mine"}
    content = json.loads(render([results, other], "json"))
    assert [row["model"] for row in content["rows"]] == ["rdn-clit"] * 3 + ["mine"]


def test_csv_has_one_figure_a_line(results):
    rows = list(csv.DictReader(io.StringIO(render(results, "csv"))))
    measured = [r for r in rows if r["source"] == "measured"]
    assert [(r["dataset"], r["scale"], r["psnr"], r["images"], r["skipped"]) for r in measured] == [
        ("Set5", "2", "31.5000", "2", "1"),
        ("Set5", "6", "20.0000", "1", "2"),
        ("DIV2K", "5", "inf", "1", "0"),
    ]
    printed = [(r["method"], r["scale"], r["psnr"]) for r in rows if r["source"] == "CLIT, Table 2"]
    assert printed == [("RDN-CLIT", "2", "38.26"), ("RDN-CLIT", "6", "29.39")]


def test_json_is_strict_and_holds_every_image(results):
    def refuse(constant):
        raise AssertionError(constant)

    content = json.loads(render(results, "json"), parse_constant=refuse)
    assert content["rows"][0]["model"] == "rdn-clit"
    assert [row["psnr"] for row in content["rows"]] == [31.5, 20.0, None]
    assert content["rows"][0]["published"] == {"RDN-CLIT": 38.26}
    assert [image["image"] for image in content["images"]] == ["a", "b", "a", "z"]
    assert content["skipped"][1] == {
        "model": "rdn-clit",
        "dataset": "Set5",
        "image": "c.png",
        "scale": None,
        "reason": "cannot be read",
    }
    with pytest.raises(ValueError, match="yaml"):
        render(results, "yaml")


# The published figures of bicubic


@pytest.mark.parametrize(
    ("dataset", "figures"),
    [
        ("Set5", (33.67, 30.40, 28.43)),
        ("Set14", (30.23, 27.54, 25.99)),
        pytest.param("B100", (29.56, 27.21, 25.96), marks=pytest.mark.slow),
    ],
)
def test_bicubic_gives_its_published_figures(dataset, figures):
    if not (DATA / dataset / "HR").is_dir():
        pytest.skip(f"{dataset} is not on this machine")
    low = DATA / dataset / "LR_bicubic" if dataset == "Set5" else None
    results = evaluate("bicubic", DATA / dataset / "HR", (2, 3, 4), lr_folder=low, ssim=False)
    assert not results.skipped
    for scale, figure in zip((2, 3, 4), figures):
        assert round(results.psnr(dataset, scale), 2) == figure
