"""Attention weights in PyTorch against the formula in float64."""

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

from clit_kernels import AttentionCall, local_attention
from clit_kernels.local_attention import local_attention_reference, local_attention_torch

pytestmark = pytest.mark.usefixtures("poisoned")


def arguments(name, channels=8, heads=2, radius=1, dtype=torch.float32):
    size, queries = QUERIES[name]
    q, k = (random_map(channels, size, seed, dtype) for seed in (1, 2))
    stage = stage_weights(channels, heads, radius)
    return AttentionCall(q, k, queries, stage.proj_weight, stage.proj_bias, heads, radius)


@pytest.mark.parametrize("shape", [(8, 2, 1), (12, 3, 3), (5, 1, 0), (6, 6, 2)])
@pytest.mark.parametrize("name", QUERIES)
def test_torch_is_the_formula(name, shape):
    call = arguments(name, *shape)
    weights = local_attention_torch(call)
    assert_exact(weights, local_attention_reference(call, upcast=torch.float64))
    total = weights.sum(-1)
    torch.testing.assert_close(total, torch.ones_like(total))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["grid x2.5", "grid scattered", "grid x17.3", "points", "raster of 3"])
def test_lower_precision(name, dtype):
    call = arguments(name, 16, 2, 2, dtype)
    truth = local_attention_reference(call, upcast=torch.float64)
    plain = local_attention_reference(call)
    assert_as_good(local_attention_torch(call), plain, truth)


@pytest.mark.parametrize("name", ["grid x2.5", "grid scattered", "points", "raster", "raster of 3"])
def test_gradients(name):
    call = arguments(name, 12, 3, 2)
    found = []
    for run in (local_attention_torch, local_attention_reference):
        q, k, weight, bias = inputs = leaves([call.q, call.k, call.proj_weight, call.proj_bias])
        weights = run(call._replace(q=q, k=k, proj_weight=weight, proj_bias=bias))
        grad = torch.randn(weights.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        found.append(torch.autograd.grad(weights, inputs, grad))
    assert_same_gradients(*found)


def test_keys_outside_the_map_are_zero_and_stay_in_the_softmax():
    """On a 1 x 1 map eight of nine taps are outside; without a bias each weighs exp(0)."""
    q, k = torch.full((1, 2, 1, 1), 3.0), torch.full((1, 2, 1, 1), 0.5)
    queries = QUERIES["grid one pixel"][1]
    for backend in ("torch", "reference"):
        call = AttentionCall(q, k, queries, torch.zeros(1, 64), torch.zeros(1), heads=1, radius=1)
        weights = local_attention(call, backend=backend)
        inside = torch.tensor(3.0 * 0.5 * 2 / 2**0.5).exp()
        assert weights.shape == (1, 1, 1, 9)
        torch.testing.assert_close(weights[0, 0, 0, 4], inside / (inside + 8))
        torch.testing.assert_close(weights[0, 0, 0, :4], (1 / (inside + 8)).expand(4))


@pytest.mark.parametrize("name", ["grid x2.5", "points", "raster of 3"])
def test_autocast_changes_nothing(name):
    call = arguments(name)
    for run in (local_attention_torch, local_attention_reference):
        expected = run(call)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(run(call), expected)


def test_backends():
    call = arguments("grid x2.5")
    auto = local_attention(call)
    assert torch.equal(auto, local_attention(call, backend="torch"))
    reference = local_attention(call, backend="reference")
    assert torch.equal(reference, local_attention_reference(call))
    with pytest.raises(ValueError, match=r"backend 'fast' is unknown; take one of auto, triton, torch"):
        local_attention(call, backend="fast")
