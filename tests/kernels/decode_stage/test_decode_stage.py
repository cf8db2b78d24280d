"""A whole stage, tile by tile: against its two ops in float64, at any tile size."""

import pytest
import torch
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

from clit_kernels import StageCall, coordinate_decode, decode_stage, local_attention
from clit_kernels.decode_stage import decode_stage_reference, decode_stage_torch
from clit_kernels.decode_stage import torch as plain

pytestmark = pytest.mark.usefixtures("poisoned")

F64 = {"upcast": torch.float64}


@pytest.fixture(params=[1, 3_000, 20_000, None], ids=lambda n: f"tile={n}")
def tile(request, monkeypatch):
    """From one pixel a tile to all of them."""
    if request.param is not None:
        for name in ("TILE_BYTES", "MOST_BYTES", "U_BYTES"):
            monkeypatch.setattr(plain, name, request.param)


def arguments(name, channels=8, heads=2, radius=1, dtype=torch.float32):
    size, queries = QUERIES[name]
    q, k, v = (random_map(channels, size, seed, dtype) for seed in (1, 2, 3))
    return StageCall(q, k, v, queries, stage_weights(channels, heads, radius, dtype=dtype), cells(queries))


def residual(call):
    """The call on the residual of a stage before."""
    return call._replace(previous=previous_residual(call.queries))


def with_tensors(stage, tensors):
    """The stage with other tensors, in the order of ``StageWeights.tensors``."""
    proj_weight, proj_bias, *mlp = tensors
    n = len(mlp) // 2
    return stage._replace(
        proj_weight=proj_weight, proj_bias=proj_bias, mlp_weights=mlp[:n], mlp_biases=mlp[n:]
    )


@pytest.mark.parametrize("shape", [(8, 2, 1), (12, 3, 3)])
@pytest.mark.parametrize("name", QUERIES)
def test_torch_is_the_formula(name, shape, tile):
    call = residual(arguments(name, *shape))
    truth = decode_stage_reference(call, upcast=torch.float64)
    kept = [t.clone() for t in (*call[:3], call.previous)]
    assert_exact(decode_stage_torch(call), truth)
    assert all(torch.equal(a, b) for a, b in zip((*call[:3], call.previous), kept, strict=True))


@pytest.mark.parametrize("name", ["grid x2.5", "grid x17.3", "grid scattered"])
@pytest.mark.parametrize("most", [1, 7, 40])
def test_many_queries_of_one_pixel_are_split(name, most, monkeypatch):
    monkeypatch.setattr(plain, "MAX_SLOTS", most)
    call = residual(arguments(name))
    assert_exact(decode_stage_torch(call), decode_stage_reference(call, upcast=torch.float64))


@pytest.mark.parametrize("order", ["hoisted", "direct"])
@pytest.mark.parametrize(
    "name", ["grid x1.01", "grid x2.5", "grid x17.3", "grid scattered", "grid x1.2 and x6.7"]
)
def test_both_orders_in_tiles(name, order, tile):
    call = arguments(name)
    found = decode_stage(call, backend="torch", order=order)
    assert_exact(found, decode_stage_reference(call, upcast=torch.float64))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["grid x2.5", "grid scattered", "grid x17.3", "points", "raster of 3"])
def test_lower_precision(name, dtype):
    call = arguments(name, 16, 2, 2, dtype)
    truth = decode_stage_reference(call, upcast=torch.float64)
    assert_as_good(decode_stage_torch(call), decode_stage_reference(call), truth)


@pytest.mark.parametrize(
    "name", ["grid x2.5", "grid x1", "grid scattered", "points", "raster", "raster of 20"]
)
def test_gradients(name):
    call = residual(arguments(name, 12, 3, 2))
    found = []
    for run in (decode_stage_torch, decode_stage_reference):
        inputs = leaves([*call[:3], call.previous, *call.weights.tensors()])
        q, k, v, previous, *own = inputs
        weights, cell = with_tensors(call.weights, own), call.cell.double()
        out = run(StageCall(q, k, v, call.queries, weights, cell, previous))
        found.append(torch.autograd.grad(out, inputs, torch.randn(out.shape, generator=rng(3)).double()))
    assert_same_gradients(*found)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["grid x2.5", "points", "raster", "raster of 20"])
def test_gradients_in_lower_precision(name, dtype):
    """Maps and weights in ``dtype``; the truth from the same rounded numbers in float64."""
    call = arguments(name, 16, 2, 2, dtype)
    found = []
    for run, upcast in (
        (decode_stage_torch, {}),
        (decode_stage_reference, {}),
        (decode_stage_reference, F64),
    ):
        wide = torch.float64 if upcast else dtype
        tensors = (*call[:3], *call.weights.tensors())
        inputs = [t.detach().to(wide, copy=True).requires_grad_() for t in tensors]
        q, k, v, *own = inputs
        here = call._replace(q=q, k=k, v=v, weights=with_tensors(call.weights, own))
        out = run(here, **upcast)
        grad = torch.randn(out.shape, generator=rng(3)).to(dtype).to(out.dtype)
        found.append(torch.autograd.grad(out, inputs, grad))
    # as one vector, each gradient in units of its size; the projection's bias has none but rounding
    units = [truth.square().mean().sqrt() for truth in found[2]]
    rounded, plain, truth = (
        torch.cat(
            [(g.double() / u).flatten() for i, (g, u) in enumerate(zip(grads, units, strict=True)) if i != 4]
        )
        for grads in found
    )
    assert_as_good(rounded, plain, truth)


@pytest.mark.parametrize("name", ["grid x2.5", "points", "raster of 3"])
def test_a_stage_is_its_two_ops(name):
    call = arguments(name)
    for backend in ("torch", "reference"):
        attention = local_attention(call.attention(), backend=backend)
        expected = coordinate_decode(call.decoding(attention), backend=backend)
        torch.testing.assert_close(decode_stage(call, backend=backend), expected, rtol=1e-5, atol=1e-5)


def test_chunks_of_the_reference_change_nothing():
    call = residual(arguments("points"))
    parts = decode_stage_reference(call, chunk=7)
    torch.testing.assert_close(parts, decode_stage_reference(call))


def test_inference_mode_and_frozen_weights():
    call = arguments("grid x2.5")
    expected = decode_stage_torch(call)
    with torch.inference_mode():
        assert torch.equal(decode_stage_torch(call), expected)
    q, k, v = (t.clone().requires_grad_() for t in call[:3])
    out = decode_stage_torch(call._replace(q=q, k=k, v=v))
    torch.testing.assert_close(out, expected)
    assert torch.autograd.grad(out.sum(), v)[0].abs().sum() > 0


@pytest.mark.parametrize("name", ["grid x2.5", "points", "raster of 3"])
def test_autocast_changes_nothing(name):
    call = arguments(name)
    for run in (decode_stage_torch, decode_stage_reference):
        expected = run(call)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(run(call), expected)


def test_backends():
    call = arguments("grid x2.5")
    assert torch.equal(decode_stage(call), decode_stage(call, backend="torch"))
    with pytest.raises(ValueError, match=r"decode_stage: backend 'triton' cannot serve this call: [a-z]"):
        decode_stage(call, backend="triton")
    with pytest.raises(ValueError, match="backend 'none' is unknown; take one of auto, triton"):
        decode_stage(call, backend="none")
