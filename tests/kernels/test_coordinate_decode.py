"""Decoding at coordinates: both orders of the first layer against the formula in float64."""

import sys

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

from clit_kernels import coordinate_decode
from clit_kernels.coordinate_decode import coordinate_decode_hoisted, coordinate_decode_reference
from clit_kernels.coordinate_decode.hoisted import prefer_hoisted

pytestmark = pytest.mark.usefixtures("poisoned")
ORDERS = {"counted": prefer_hoisted, "hoisted": lambda *_: True, "direct": lambda *_: False}


@pytest.fixture(params=ORDERS)
def order(request, monkeypatch):
    """Decide by count, or always for one order."""
    module = sys.modules["clit_kernels.coordinate_decode.hoisted"]
    monkeypatch.setattr(module, "prefer_hoisted", ORDERS[request.param])


def arguments(name, channels=8, heads=2, radius=1, dtype=torch.float32, previous=True):
    size, queries = QUERIES[name]
    v = random_map(channels, size, 3, dtype)
    stage = stage_weights(channels, heads, radius)
    logits = torch.randn(2, queries.count, heads, stage.area, generator=rng(4))
    args = (logits.softmax(-1).to(dtype), v, queries, stage.mlp_weights, stage.mlp_biases, cells(queries))
    return args, {"previous": previous_residual(queries, dtype) if previous else None, "gain": 0.75}


@pytest.mark.parametrize("shape", [(8, 2, 1), (12, 3, 3), (5, 1, 0)])
@pytest.mark.parametrize("name", QUERIES)
def test_hoisted_is_the_formula(name, shape, order):
    args, settings = arguments(name, *shape)
    truth = coordinate_decode_reference(*args, **settings, upcast=torch.float64)
    assert_exact(coordinate_decode_hoisted(*args, **settings), truth)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["grid x2.5", "grid scattered", "grid x17.3", "points", "raster of 3"])
def test_lower_precision(name, dtype, order):
    args, settings = arguments(name, 16, 2, 2, dtype, previous=False)
    truth = coordinate_decode_reference(*args, **settings, upcast=torch.float64)
    plain = coordinate_decode_reference(*args, **settings)
    assert_as_good(coordinate_decode_hoisted(*args, **settings), plain, truth)


@pytest.mark.parametrize("name", ["grid x2.5", "grid scattered", "points", "raster", "raster of 3"])
def test_gradients(name, order):
    (weights, v, queries, mlp, biases, cell), settings = arguments(name, 12, 3, 2)
    found = []
    for run in (coordinate_decode_hoisted, coordinate_decode_reference):
        inputs = leaves([weights, v, settings["previous"], *mlp, *biases])
        n = len(mlp)
        out = run(
            *inputs[:2], queries, inputs[3 : 3 + n], inputs[3 + n :], cell.double(),
            previous=inputs[2], gain=0.75,
        )  # fmt: skip
        found.append(torch.autograd.grad(out, inputs, torch.randn(out.shape, generator=rng(3)).double()))
    assert_same_gradients(*found)


def test_values_are_scaled_not_summed():
    """Doubling one tap's weight doubles its part of the first layer and no other."""
    (weights, v, queries, mlp, biases, cell), _ = arguments("grid x1")
    first, bias = mlp[0], biases[0]
    only = [torch.zeros_like(first)]
    only[0][:, 4 * 8 : 4 * 8 + 8] = first[:, 4 * 8 : 4 * 8 + 8]  # the tap in the middle
    out = coordinate_decode(weights, v, queries, only, [bias], cell, backend="reference")
    values = v.flatten(2).transpose(1, 2).unflatten(-1, (2, -1)) * weights[..., 4].unsqueeze(-1)
    torch.testing.assert_close(out, F.linear(values.flatten(2), first[:, 32:40], bias))


def test_the_cell_is_the_last_two_inputs():
    (weights, v, queries, mlp, biases, cell), _ = arguments("raster of 3")
    for backend in ("hoisted", "reference"):
        out = coordinate_decode(weights, v, queries, mlp[:1], biases[:1], cell, backend=backend)
        moved = coordinate_decode(weights, v, queries, mlp[:1], biases[:1], cell * 3, backend=backend)
        expected = (cell * 2) @ mlp[0][:, -2:].T
        torch.testing.assert_close(moved - out, expected.unsqueeze(1).expand_as(out), atol=1e-5, rtol=1e-4)


def test_order_by_count():
    """The hoisted order pays from three queries per pixel; spare slots count against it."""
    assert not prefer_hoisted(pixels=100, slots=1, count=100, channels=256, heads=8)
    assert not prefer_hoisted(pixels=100, slots=2, count=200, channels=256, heads=8)
    assert prefer_hoisted(pixels=100, slots=3, count=300, channels=256, heads=8)
    assert prefer_hoisted(pixels=48 * 48, slots=16, count=192 * 192, channels=256, heads=8)
    # x1.01: one pixel in a hundred has two rows, yet all have room for them
    assert not prefer_hoisted(pixels=100 * 100, slots=4, count=101 * 101, channels=256, heads=8)


@pytest.mark.parametrize("name", ["grid x2.5", "points", "raster of 3"])
def test_autocast_changes_nothing(name):
    args, settings = arguments(name)
    for run in (coordinate_decode_hoisted, coordinate_decode_reference):
        expected = run(*args, **settings)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(run(*args, **settings), expected)


def test_backends():
    args, settings = arguments("grid x2.5")
    auto = coordinate_decode(*args, **settings)
    assert torch.equal(auto, coordinate_decode(*args, **settings, backend="hoisted"))
    reference = coordinate_decode(*args, **settings, backend="reference")
    assert torch.equal(reference, coordinate_decode_reference(*args, **settings))
    with pytest.raises(ValueError, match="backend 'cuda' is unknown; take one of auto, triton"):
        coordinate_decode(*args, **settings, backend="cuda")
