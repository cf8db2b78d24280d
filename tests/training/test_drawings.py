"""Made-up text and lines."""

import numpy as np
import pytest
import torch

from clit_zoo.training.drawings import drawing, fonts


@pytest.mark.parametrize("side", [48, 97, 192])
def test_a_drawing_depends_on_its_generator_alone(side):
    first, again, other = (drawing(side, side / 48, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.shape == (3, side, side) and first.dtype == torch.uint8
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_drawings_are_flat_with_sharp_edges_and_differ():
    rng = np.random.default_rng(0)
    made = [drawing(96, 2, rng).numpy().astype(int) for _ in range(40)]
    flat = [(np.abs(np.diff(d, axis=2)).max(0) == 0).mean() for d in made]
    steps = [np.abs(np.diff(d, axis=2)).max() for d in made]
    assert np.median(flat) > 0.5 and np.median(steps) > 100
    papers = {tuple(np.bincount(d[0].flatten()).argsort()[-1:]) for d in made}
    assert len(papers) > 5


def test_pillow_s_own_font_is_always_there():
    assert fonts()[0] is None and len(set(fonts())) == len(fonts())
