"""Which scales each step trains: the strategies of the CLIT paper (sections 3.3 and 3.4, Table 5).

A strategy gives, for a step, the range of each stage's factor. A step with one stage enlarges by one factor,
a step with N by the product of N, and the output of the last of its stages is supervised. A decoder without
stages trains as one stage does.

The paper's cumulative strategy for a one-stage model is two runs: "cumulative" (which is then U(1, 4) alone),
then "alternating" from its result.
"""

import math
from collections.abc import Callable, Sequence

QUERIES = ("stratified", "uniform")
"""Which positions of a patch are asked for, see ``Recipe.queries``."""

BLOCK = 8
"""Pixels of the last map that a block of queries spans; with its halo it has 2 (radius + 1) more."""

Range = tuple[float, float]
SMALL: Range = (1.0, 4.0)
LARGE: Range = (4.0, 12.0)


def stages_at(step: int, stages: int, frozen: int = 0) -> int:
    """How many of N stages train at a step: N, then 1, 2, ..., N - 1, then N again (the authors' code).

    With f stages frozen, counts 1 to f are skipped: they would train nothing.
    """
    trained = stages - frozen
    return frozen + (step % trained or trained)


def cumulative(step: int, stages: int, frozen: int = 0) -> tuple[Range, ...]:
    """Every factor in U(1, 4) (section 4.1; the authors' three-stage files draw the third in U(1, 2))."""
    return (SMALL,) * stages_at(step, stages, frozen)


def u14(step: int, stages: int, frozen: int = 0) -> tuple[Range, ...]:
    """One stage, scale in U(1, 4)."""
    return (SMALL,)


def u112(step: int, stages: int, frozen: int = 0) -> tuple[Range, ...]:
    """One stage, scale in U(1, 12)."""
    return ((SMALL[0], LARGE[1]),)


def alternating(step: int, stages: int, frozen: int = 0) -> tuple[Range, ...]:
    """One stage, scale in U(1, 4) and U(4, 12) in turn."""
    return (SMALL if step % 2 == 0 else LARGE,)


STRATEGIES: dict[str, Callable[[int, int, int], tuple[Range, ...]]] = {
    "cumulative": cumulative,
    "u14": u14,
    "u112": u112,
    "alternating": alternating,
}


def clip_factors(factors: Sequence[float], largest: float) -> tuple[float, ...]:
    """Factors with a product of at most ``largest``: stage 1's gives way, as in the paper, but not below 1.

    The authors' code lets it fall below 1, and stage 2 then works on a map smaller than the picture, which no
    upscaling asks for; here the next factor gives way.
    """
    clipped = list(factors)
    for i, factor in enumerate(clipped):
        clipped[i] = max(1.0, factor * min(1.0, largest / math.prod(clipped)))
    return tuple(clipped)


def map_sides(patch: int, factors: Sequence[float]) -> tuple[list[int], int]:
    """Side of each stage's map, round(patch * product of the factors before), and of the output."""
    sides = [round(patch * math.prod(factors[:i])) for i in range(len(factors) + 1)]
    return sides[:-1], sides[-1]
