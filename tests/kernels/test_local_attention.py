"""Attention weights: the hoisted order against the formula in float64."""

import pytest
import torch
from op_cases import (
    QUERIES,
    assert_as_good,
    assert_exact,
    assert_same_gradients,
    leaves,
    random_map,
    stage_weights,
)

from clit_kernels import local_attention
from clit_kernels.local_attention import local_attention_hoisted, local_attention_reference

pytestmark = pytest.mark.usefixtures("poisoned")


def arguments(name, channels=8, heads=2, radius=1, dtype=torch.float32):
    size, queries = QUERIES[name]
    q, k = (random_map(channels, size, seed, dtype) for seed in (1, 2))
    stage = stage_weights(channels, heads, radius)
    return (q, k, queries, stage.proj_weight, stage.proj_bias), {"heads": heads, "radius": radius}


@pytest.mark.parametrize("shape", [(8, 2, 1), (12, 3, 3), (5, 1, 0), (6, 6, 2)])
@pytest.mark.parametrize("name", QUERIES)
def test_hoisted_is_the_formula(name, shape):
    args, settings = arguments(name, *shape)
    weights = local_attention_hoisted(*args, **settings)
    assert_exact(weights, local_attention_reference(*args, **settings, upcast=torch.float64))
    total = weights.sum(-1)
    torch.testing.assert_close(total, torch.ones_like(total))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["grid x2.5", "grid scattered", "grid x17.3", "points", "raster of 3"])
def test_lower_precision(name, dtype):
    args, settings = arguments(name, 16, 2, 2, dtype)
    truth = local_attention_reference(*args, **settings, upcast=torch.float64)
    plain = local_attention_reference(*args, **settings)
    assert_as_good(local_attention_hoisted(*args, **settings), plain, truth)


@pytest.mark.parametrize("name", ["grid x2.5", "grid scattered", "points", "raster", "raster of 3"])
def test_gradients(name):
    (q, k, queries, *proj), settings = arguments(name, 12, 3, 2)
    found = []
    for run in (local_attention_hoisted, local_attention_reference):
        q64, k64, *proj64 = inputs = leaves([q, k, *proj])
        weights = run(q64, k64, queries, *proj64, **settings)
        grad = torch.randn(weights.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        found.append(torch.autograd.grad(weights, inputs, grad))
    assert_same_gradients(*found)


def test_keys_outside_the_map_are_zero_and_stay_in_the_softmax():
    """On a 1 x 1 map eight of nine taps are outside; without a bias each weighs exp(0)."""
    q, k = torch.full((1, 2, 1, 1), 3.0), torch.full((1, 2, 1, 1), 0.5)
    queries = QUERIES["grid one pixel"][1]
    for backend in ("hoisted", "reference"):
        weights = local_attention(
            q, k, queries, torch.zeros(1, 64), torch.zeros(1), heads=1, radius=1, backend=backend
        )
        inside = torch.tensor(3.0 * 0.5 * 2 / 2**0.5).exp()
        assert weights.shape == (1, 1, 1, 9)
        torch.testing.assert_close(weights[0, 0, 0, 4], inside / (inside + 8))
        torch.testing.assert_close(weights[0, 0, 0, :4], (1 / (inside + 8)).expand(4))


@pytest.mark.parametrize("name", ["grid x2.5", "points", "raster of 3"])
def test_autocast_changes_nothing(name):
    args, settings = arguments(name)
    for run in (local_attention_hoisted, local_attention_reference):
        expected = run(*args, **settings)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(run(*args, **settings), expected)


def test_backends():
    args, settings = arguments("grid x2.5")
    auto = local_attention(*args, **settings)
    assert torch.equal(auto, local_attention(*args, **settings, backend="hoisted"))
    reference = local_attention(*args, **settings, backend="reference")
    assert torch.equal(reference, local_attention_reference(*args, **settings))
    with pytest.raises(ValueError, match=r"backend 'fast' is unknown; take one of auto, triton, hoisted"):
        local_attention(*args, **settings, backend="fast")
