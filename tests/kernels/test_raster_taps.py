"""Tap-by-tap products of a raster, against windows written out."""

import pytest
import torch
from op_cases import random_map, rng

from clit_kernels.grouping import crop
from clit_kernels.raster_taps import blend, contract, project

pytestmark = pytest.mark.usefixtures("poisoned")
CASES = [(1, 1, 2), (3, 1, 2), (2, 3, 1), (1, 5, 4)]
"""Positions a pixel, side of the window, heads."""


def inputs(m, side, heads, h=3, w=2, channels=4):
    padded = crop(
        random_map(channels, (h, w), 1, torch.float64),
        -(side // 2),
        h + side // 2,
        -(side // 2),
        w + side // 2,
    )
    x = torch.randn(2, m, h, w, channels, generator=rng(2), dtype=torch.float64)
    weights = torch.randn(side * side, 2, m, h, w, heads, generator=rng(3), dtype=torch.float64)
    return x.requires_grad_(), padded.detach().requires_grad_(), weights.requires_grad_()


def taps(padded, h=3, w=2):
    """(K*K, B, 1, h, w, C)"""
    side = padded.shape[1] - h + 1
    return torch.stack([padded[:, None, y : y + h, x : x + w] for y in range(side) for x in range(side)])


@pytest.mark.parametrize("case", CASES)
def test_values(case):
    x, padded, weights = inputs(*case)
    heads = case[2]
    products = (x * taps(padded)).unflatten(-1, (heads, -1)).sum(-1)
    torch.testing.assert_close(contract(x, padded, heads), products)
    scaled = taps(padded) * weights.repeat_interleave(4 // heads, -1)
    matrix = torch.randn(3, scaled.shape[0] * 4, generator=rng(4), dtype=torch.float64)
    expected = scaled.movedim(0, -2).flatten(-2) @ matrix.T
    torch.testing.assert_close(project(weights, padded, matrix), expected)
    blended = (taps(padded) * weights[..., :1]).sum(0)
    torch.testing.assert_close(blend(weights[..., :1], padded), blended)


@pytest.mark.parametrize("case", CASES)
def test_gradients(case):
    x, padded, weights = inputs(*case)
    assert torch.autograd.gradcheck(lambda a, b: contract(a, b, case[2]), (x, padded), fast_mode=True)
    matrix = torch.randn(3, case[1] ** 2 * 4, generator=rng(4), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(project, (weights, padded, matrix), fast_mode=True)
    fixed = weights[..., :1].detach()
    assert torch.autograd.gradcheck(lambda b: blend(fixed, b), padded, fast_mode=True)
