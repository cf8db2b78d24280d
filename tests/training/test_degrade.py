"""Degraded patches: that they stay in place and depend on their generator alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_training import PATCH, tensors, tiny_model

from clit_zoo.errors import ConfigError
from clit_zoo.training.degrade import DEGRADATIONS, KERNELS, RandomDegradation
from clit_zoo.training.patches import Draw
from clit_zoo.training.recipe import Recipe
from clit_zoo.training.run import Run

ONLY_REDUCED = RandomDegradation(clean=0, blur=0, motion=0, noise=0, jpeg=0, webp=0)


def crop(side: int = 144) -> np.ndarray:
    """A smooth picture, so that what moved can be told from what was lost."""
    coarse = np.random.default_rng(0).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("scale", [1, 1.25, 2.5, 3, 3.98])
def test_reducing_moves_nothing(kernel, scale):
    """The mirrored picture becomes the mirrored patch, and a ramp's pixel holds its own position."""
    how = replace(ONLY_REDUCED, kernels=((kernel, 1.0),))
    rng = np.random.default_rng(0)
    side = round(48 * scale)
    picture = crop(side)
    low = how(picture, 48, rng).astype(int)
    mirrored = how(np.ascontiguousarray(picture[::-1, ::-1]), 48, rng)[::-1, ::-1]
    # "nearest" takes the right one of two where the centre lies between them: here at 2.5
    ties = kernel == "nearest" and scale == 2.5
    assert np.abs(low - mirrored).max() <= (12 if ties else 1)
    ramp = np.repeat(np.repeat(np.arange(side, dtype=np.uint8)[None, :, None], side, 0), 3, 2)
    error = how(ramp, 48, rng) - ((np.arange(48) + 0.5) * side / 48 - 0.5)[None, :, None]
    inner = error[:, 4:-4]  # filters are cut off at the borders
    assert np.abs(inner).max() <= 0.51 and abs(inner.mean()) < 0.3


@pytest.mark.parametrize("part", ["blur", "motion", "noise", "jpeg", "webp"])
def test_each_part_changes_the_picture_and_moves_nothing(part):
    bicubic = replace(ONLY_REDUCED, kernels=(("bicubic", 1.0),))
    plain = bicubic(crop(), 48, np.random.default_rng(0)).astype(float)
    inner = (slice(2, -2), slice(2, -2))
    changes = []
    for seed in range(10):
        low = replace(bicubic, **{part: 1.0})(crop(), 48, np.random.default_rng(seed)).astype(float)
        changes.append(np.square(low - plain)[inner].mean())
        for axis in (0, 1):
            assert changes[-1] < np.square(low - np.roll(plain, 1, axis))[inner].mean()
    assert np.median(changes) > 0


def test_a_share_stays_clean():
    clean = np.asarray(Image.fromarray(crop()).resize((48, 48), Image.Resampling.BICUBIC))
    how = DEGRADATIONS["photo"]
    rng = np.random.default_rng(0)
    same = [np.array_equal(how(crop(), 48, rng), clean) for _ in range(300)]
    assert how.clean <= np.mean(same) < how.clean + 0.1


@pytest.mark.parametrize("settings", [{"degrade": "photo"}, {"degrade": "photo", "drawings": 0.5}])
def test_a_patch_depends_on_seed_step_and_number_alone(photographs, settings):
    draw = Draw(Recipe(steps=1, patch=PATCH, seed=3, **settings), 1)
    whole = draw.batch(photographs, 5, range(6))
    part = draw.batch(photographs, 5, [4, 5])
    for a, b in zip(tensors(whole), tensors(part), strict=True):
        assert torch.equal(a[4:], b)
    assert not torch.equal(whole.image, draw.batch(photographs, 6, range(6)).image)


def test_targets_stay_clean(photographs):
    """Without blur and drawings the same crops are drawn with and without degradation."""
    recipe = Recipe(steps=1, patch=PATCH, queries="uniform")
    clean, degraded = Draw(recipe, 1), Draw(replace(recipe, degrade="photo"), 1)
    rngs = [np.random.default_rng(1) for _ in range(2)]
    low, high = clean.pair(photographs, rngs[0], 3 * PATCH)
    low_degraded, high_degraded = degraded.pair(photographs, rngs[1], 3 * PATCH)
    assert torch.equal(high, high_degraded) and low.shape == low_degraded.shape


def test_a_recipe_names_its_degradation():
    with pytest.raises(ConfigError, match=r"degrade is .fog.; allowed is one of photo"):
        Recipe(steps=1, degrade="fog")
    with pytest.raises(ConfigError, match=r"drawings is 1\.5"):
        Recipe(steps=1, drawings=1.5)


def test_a_run_begins_with_a_sheet_of_samples(photographs, tmp_path):
    recipe = Recipe(steps=1, batch=2, patch=PATCH, degrade="photo", drawings=0.5)
    run = Run(tiny_model(), recipe, photographs, tmp_path, tensorboard=False, progress=False)
    assert run.train()
    with Image.open(tmp_path / "samples" / "degraded.png") as sheet:
        assert sheet.size[0] % (2 * 3 * PATCH) == 0 and sheet.size[1] % (3 * PATCH) == 0
        pixels = np.asarray(sheet)
    assert np.array_equal(pixels, run.drawing.sheet(photographs))
