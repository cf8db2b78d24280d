"""The MATLAB recipe, against exact fractions and, where it is present, the published low-resolution Set5."""

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clit_zoo.evaluation.resize import imresize, pil_bicubic

SET5 = Path(__file__).parents[3] / "shared" / "data" / "eval" / "Set5"


def exact_row(row: list[int], n_out: int, scale: Fraction) -> list[int]:
    """One row resized in exact arithmetic, rounded half up and clipped: written apart from the library."""

    def cubic(x: Fraction) -> Fraction:
        x = abs(x)
        if x <= 1:
            return Fraction(3, 2) * x**3 - Fraction(5, 2) * x**2 + 1
        return -Fraction(1, 2) * x**3 + Fraction(5, 2) * x**2 - 4 * x + 2 if x <= 2 else Fraction(0)

    def mirrored(i: int) -> int:
        while not 0 <= i < len(row):
            i = -1 - i if i < 0 else 2 * len(row) - 1 - i
        return row[i]

    shrink = min(scale, Fraction(1))
    out = []
    for j in range(n_out):
        centre = (j + Fraction(1, 2)) / scale - Fraction(1, 2)
        reach = math.ceil(2 / shrink) + 1
        taps = range(math.floor(centre) - reach, math.floor(centre) + reach + 1)
        weights = [cubic(shrink * (centre - i)) for i in taps]
        value = sum(w * mirrored(i) for w, i in zip(weights, taps, strict=True)) / sum(weights)
        out.append(min(max(math.floor(value + Fraction(1, 2)), 0), 255))
    return out


@pytest.mark.parametrize(
    "scale", [Fraction(1, 2), Fraction(1, 3), Fraction(1, 4), Fraction(3, 7), Fraction(2), Fraction(5, 2)]
)
@pytest.mark.parametrize("shape", [(12, 9), (5, 16), (1, 3)])
def test_eight_bit_passes_equal_exact_arithmetic(scale, shape):
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    height, width = (math.ceil(n * scale) for n in shape)
    columns = np.array([exact_row(c.tolist(), height, scale) for c in image.T]).T
    expected = np.array([exact_row(r.tolist(), width, scale) for r in columns])
    assert np.array_equal(imresize(image, float(scale)), expected)


def test_known_weights_of_halving_and_doubling():
    impulse = np.zeros((1, 32))
    impulse[0, 16] = 1
    row = imresize(impulse, (1.0, 0.5))[0]
    half = np.array(
        [-0.01171875, 0.11328125, 0.43359375, -0.03515625]
    )  # every second tap of the widened cubic
    assert np.allclose(row[6:10], half)
    assert row.sum() == pytest.approx(0.5)
    row = imresize(impulse, (1.0, 2.0))[0]
    quarter = np.array([-0.0234375, 0.2265625, 0.8671875, -0.0703125])
    assert np.allclose(row[29:37:2], quarter)
    assert np.allclose(row[30:38:2], quarter[::-1])


def test_passes_run_rows_first_and_shrink_first():
    image = np.random.default_rng(1).integers(0, 256, (16, 16)).astype(np.uint8)
    assert np.array_equal(imresize(image, 0.5), imresize(imresize(image, (0.5, 1.0)), (1.0, 0.5)))
    assert np.array_equal(imresize(image, (2.0, 0.5)), imresize(imresize(image, (1.0, 0.5)), (2.0, 1.0)))
    # The order shows: rounding between the passes makes the other one differ.
    assert not np.array_equal(imresize(image, 0.5), imresize(imresize(image, (1.0, 0.5)), (0.5, 1.0)))


def test_channels_dtype_and_size():
    image = np.random.default_rng(2).integers(0, 256, (13, 10, 3)).astype(np.uint8)
    small = imresize(image, size=(5, 4))
    assert small.shape == (5, 4, 3)
    assert small.dtype == np.uint8
    assert np.array_equal(small[..., 1], imresize(image[..., 1], size=(5, 4)))
    assert imresize(image, 1 / 3).shape == (5, 4, 3)
    assert imresize(image, 1.0).tobytes() == image.tobytes()
    step = np.repeat(np.float32([0, 1]), 8)[None]
    wide = imresize(step, (1.0, 3.0))
    assert wide.dtype == np.float32
    assert wide.max() > 1 > 0 > wide.min()  # floats keep the overshoot


def test_thirds_do_not_gain_a_pixel():
    for n in range(1, 300):
        assert imresize(np.zeros((3 * n, 1), np.uint8), (1 / 3, 1.0)).shape[0] == n


def test_pil_bicubic_is_pillows_own():
    image = np.random.default_rng(3).integers(0, 256, (24, 36, 3)).astype(np.uint8)
    expected = np.asarray(Image.fromarray(image).resize((6, 4), Image.Resampling.BICUBIC))
    assert np.array_equal(pil_bicubic(image, (4, 6)), expected)


@pytest.mark.skipif(not SET5.is_dir(), reason="the Set5 pictures are not on this machine")
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_all_published_set5_files_bit_for_bit(scale):
    paths = sorted((SET5 / "HR").glob("*.png"))
    assert len(paths) == 5
    for path in paths:
        hr = np.asarray(Image.open(path))
        hr = hr[: hr.shape[0] // scale * scale, : hr.shape[1] // scale * scale]
        lr = np.asarray(Image.open(SET5 / "LR_bicubic" / f"X{scale}" / f"{path.stem}x{scale}.png"))
        assert np.array_equal(imresize(hr, 1 / scale), lr), path.name
