"""Decoding at coordinates: both orders of the first layer against the formula in float64."""

import pytest
import torch
import torch.nn.functional as F
from op_cases import (
    QUERIES,
    assert_as_good,
    assert_exact,
    assert_same_gradients,
    cells,
    leaves,
    previous_residual,
    random_map,
    rng,
    stage_weights,
)

from clit_kernels import DecodeCall, coordinate_decode
from clit_kernels.coordinate_decode import coordinate_decode_reference, coordinate_decode_torch

pytestmark = pytest.mark.usefixtures("poisoned")
ORDERS = pytest.mark.parametrize("order", [None, "hoisted", "direct"])


def arguments(name, channels=8, heads=2, radius=1, dtype=torch.float32, previous=True):
    size, queries = QUERIES[name]
    v = random_map(channels, size, 3, dtype)
    stage = stage_weights(channels, heads, radius)
    logits = torch.randn(2, queries.count, heads, stage.area, generator=rng(4))
    before = previous_residual(queries, dtype) if previous else None
    attention = logits.softmax(-1).to(dtype)
    return DecodeCall(attention, v, queries, stage.mlp_weights, stage.mlp_biases, cells(queries), before)


@ORDERS
@pytest.mark.parametrize("shape", [(8, 2, 1), (12, 3, 3), (5, 1, 0)])
@pytest.mark.parametrize("name", QUERIES)
def test_torch_is_the_formula(name, shape, order):
    call = arguments(name, *shape)
    truth = coordinate_decode_reference(call, upcast=torch.float64)
    assert_exact(coordinate_decode_torch(call, order=order), truth)


@ORDERS
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["grid x2.5", "grid scattered", "grid x17.3", "points", "raster of 3"])
def test_lower_precision(name, dtype, order):
    call = arguments(name, 16, 2, 2, dtype, previous=False)
    truth = coordinate_decode_reference(call, upcast=torch.float64)
    plain = coordinate_decode_reference(call)
    assert_as_good(coordinate_decode_torch(call, order=order), plain, truth)


@ORDERS
@pytest.mark.parametrize("name", ["grid x2.5", "grid scattered", "points", "raster", "raster of 3"])
def test_gradients(name, order):
    call = arguments(name, 12, 3, 2)
    found = []
    for run, how in ((coordinate_decode_torch, {"order": order}), (coordinate_decode_reference, {})):
        inputs = leaves([call.attention, call.v, call.previous, *call.mlp_weights, *call.mlp_biases])
        attention, v, previous, *mlp = inputs
        n = len(mlp) // 2
        cell = call.cell.double()
        out = run(DecodeCall(attention, v, call.queries, mlp[:n], mlp[n:], cell, previous), **how)
        found.append(torch.autograd.grad(out, inputs, torch.randn(out.shape, generator=rng(3)).double()))
    assert_same_gradients(*found)


def test_values_are_scaled_not_summed():
    """Doubling one tap's weight doubles its part of the first layer and no other."""
    call = arguments("grid x1", previous=False)
    first, bias = call.mlp_weights[0], call.mlp_biases[0]
    only = torch.zeros_like(first)
    only[:, 4 * 8 : 4 * 8 + 8] = first[:, 4 * 8 : 4 * 8 + 8]  # the tap in the middle
    out = coordinate_decode(call._replace(mlp_weights=[only], mlp_biases=[bias]), backend="reference")
    values = call.v.flatten(2).transpose(1, 2).unflatten(-1, (2, -1)) * call.attention[..., 4].unsqueeze(-1)
    torch.testing.assert_close(out, F.linear(values.flatten(2), first[:, 32:40], bias))


def test_the_cell_is_the_last_two_inputs():
    call = arguments("raster of 3", previous=False)
    call = call._replace(mlp_weights=call.mlp_weights[:1], mlp_biases=call.mlp_biases[:1])
    for backend in ("torch", "reference"):
        out = coordinate_decode(call, backend=backend)
        moved = coordinate_decode(call._replace(cell=call.cell * 3), backend=backend)
        expected = (call.cell * 2) @ call.mlp_weights[0][:, -2:].T
        torch.testing.assert_close(moved - out, expected.unsqueeze(1).expand_as(out), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["grid x2.5", "points", "raster of 3"])
def test_autocast_changes_nothing(name):
    call = arguments(name)
    for run in (coordinate_decode_torch, coordinate_decode_reference):
        expected = run(call)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(run(call), expected)


def test_backends():
    call = arguments("grid x2.5")
    auto = coordinate_decode(call)
    assert torch.equal(auto, coordinate_decode(call, backend="torch"))
    reference = coordinate_decode(call, backend="reference")
    assert torch.equal(reference, coordinate_decode_reference(call))
    with pytest.raises(ValueError, match="backend 'cuda' is unknown; take one of auto, triton"):
        coordinate_decode(call, backend="cuda")
