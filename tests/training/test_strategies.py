"""Which stages and factors a step trains."""

import math

import pytest

from clit_zoo.errors import ConfigError
from clit_zoo.training.patches import Draw
from clit_zoo.training.recipe import Recipe
from clit_zoo.training.strategies import (
    STRATEGIES,
    alternating,
    clip_factors,
    cumulative,
    map_sides,
    stages_at,
)


def authors_counter(k: int, steps: int) -> list[int]:
    """Stages by step as the authors' loader counts them: `counter % k == 0` takes all and sets counter to 1,
    else the first `counter` factors are kept and counter grows."""
    counter, stages = 0, []
    for _ in range(steps):
        if counter % k == 0:
            counter = 1
            stages.append(k)
        else:
            stages.append(counter)
            counter += 1
    return stages


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_the_number_of_stages_cycles_as_the_authors_does(k):
    assert [stages_at(step, k) for step in range(12)] == authors_counter(k, 12)


def test_frozen_stages_are_always_followed_by_others():
    assert [stages_at(step, 3, frozen=1) for step in range(4)] == [3, 2, 3, 2]
    assert [stages_at(step, 3, frozen=2) for step in range(2)] == [3, 3]
    with pytest.raises(ConfigError, match="freeze_stages is 3; allowed is less than 3"):
        Draw(Recipe(steps=1, freeze_stages=3), 3)


def test_ranges():
    assert [len(cumulative(step, 3)) for step in range(4)] == [3, 1, 2, 3]
    assert set(cumulative(0, 3)) == {(1.0, 4.0)}
    assert alternating(0, 1) == ((1.0, 4.0),) and alternating(1, 1) == ((4.0, 12.0),)
    assert STRATEGIES["u14"](5, 1) == ((1.0, 4.0),) and STRATEGIES["u112"](5, 1) == ((1.0, 12.0),)


def test_stage_one_gives_way_first():
    assert clip_factors((3.0, 2.0, 1.5), 100) == (3.0, 2.0, 1.5)
    assert clip_factors((3.0, 2.0, 1.5), 6) == (2.0, 2.0, 1.5)
    clipped = clip_factors((2.0, 4.0, 4.0), 10)
    assert clipped[0] == 1.0 and clipped[2] == 4.0
    assert math.prod(clipped) == pytest.approx(10)
    assert clip_factors((2.0, 4.0), 0.5) == (1.0, 1.0)


def test_map_sides():
    assert map_sides(48, (2.5, 1.3)) == ([48, 120], 156)
    assert map_sides(48, (4.0, 4.0, 1.875)) == ([48, 192, 768], 1440)


def test_a_cascade_takes_the_cumulative_strategy_only():
    Draw(Recipe(steps=1), 3)
    Draw(Recipe(steps=1, strategy="alternating"), 1)
    with pytest.raises(ConfigError, match=r"strategy is .u112.; allowed is 'cumulative' for this model of 3"):
        Draw(Recipe(steps=1, strategy="u112"), 3)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"patch": 4}, "patch is 4"),
        ({"lr": -1.0}, "lr is -1"),
        ({"ema": 1.0}, "ema is 1"),
        ({"optimizer": "sgd"}, "one of adam, muon"),
        ({"strategy": "u15"}, "one of cumulative"),
    ],
)
def test_recipes_are_checked(setting, message):
    with pytest.raises(ConfigError, match=message):
        Recipe(**{"steps": 1, **setting})


def test_schedules():
    paper = Recipe(steps=1000)
    assert [paper.lr_at(s) / 1e-4 for s in (0, 199, 200, 400, 600, 800, 999)] == pytest.approx(
        [1, 1, 0.5, 0.25, 0.125, 0.0625, 0.0625]
    )
    cosine = Recipe(steps=1000, schedule="cosine", warmup=10)
    assert cosine.lr_at(0) == pytest.approx(1e-5) and cosine.lr_at(505) == pytest.approx(5e-5)
    assert cosine.lr_at(999) < 1e-9
    trapezoid = Recipe(steps=1000, schedule="trapezoid", warmup=10)
    assert [trapezoid.lr_at(s) / 1e-4 for s in (4, 300, 600, 800)] == pytest.approx([0.5, 1, 1, 0.5])


def test_shares_of_the_batch():
    recipe = Recipe(steps=1, batch=8, accumulate=2)
    assert [list(part) for part in recipe.share_of(1, 2)] == [[4, 5], [6, 7]]
    with pytest.raises(ConfigError, match="batch is 8; allowed is a multiple of 6"):
        recipe.share_of(0, 3)
