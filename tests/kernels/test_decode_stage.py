"""A whole stage, tile by tile: against its two ops in float64, at any tile size."""

import sys

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

from clit_kernels import coordinate_decode, decode_stage, local_attention
from clit_kernels.decode_stage import decode_stage_hoisted, decode_stage_reference

pytestmark = pytest.mark.usefixtures("poisoned")
HOISTED = sys.modules["clit_kernels.decode_stage.hoisted"]


F64 = {"upcast": torch.float64}


@pytest.fixture(params=[1, 3_000, 20_000, None], ids=lambda n: f"tile={n}")
def tile(request, monkeypatch):
    """From one pixel a tile to all of them."""
    if request.param is not None:
        monkeypatch.setattr(HOISTED, "TILE_BYTES", request.param)


def arguments(name, channels=8, heads=2, radius=1, dtype=torch.float32):
    size, queries = QUERIES[name]
    q, k, v = (random_map(channels, size, seed, dtype) for seed in (1, 2, 3))
    return (q, k, v, queries, stage_weights(channels, heads, radius, dtype=dtype), cells(queries))


def with_tensors(stage, tensors):
    """The stage with other tensors, in the order of ``StageWeights.tensors``."""
    proj_weight, proj_bias, *mlp = tensors
    n = len(mlp) // 2
    return stage._replace(
        proj_weight=proj_weight, proj_bias=proj_bias, mlp_weights=mlp[:n], mlp_biases=mlp[n:]
    )


@pytest.mark.parametrize("shape", [(8, 2, 1), (12, 3, 3)])
@pytest.mark.parametrize("name", QUERIES)
def test_hoisted_is_the_formula(name, shape, tile):
    args = arguments(name, *shape)
    previous = previous_residual(args[3])
    truth = decode_stage_reference(*args, previous=previous, upcast=torch.float64)
    assert_exact(decode_stage_hoisted(*args, previous=previous), truth)
    kept = [t.clone() for t in args[:3]] + [previous.clone()]
    decode_stage_hoisted(*args, previous=previous)
    assert all(torch.equal(a, b) for a, b in zip([*args[:3], previous], kept, strict=True))


@pytest.mark.parametrize("name", ["grid x2.5", "grid x17.3", "grid scattered"])
@pytest.mark.parametrize("most", [1, 7, 40])
def test_many_queries_of_one_pixel_are_split(name, most, monkeypatch):
    monkeypatch.setattr(HOISTED, "MAX_SLOTS", most)
    args = arguments(name)
    previous = previous_residual(args[3])
    truth = decode_stage_reference(*args, previous=previous, upcast=torch.float64)
    assert_exact(decode_stage_hoisted(*args, previous=previous), truth)


@pytest.mark.parametrize("hoist", [True, False])
@pytest.mark.parametrize(
    "name", ["grid x1.01", "grid x2.5", "grid x17.3", "grid scattered", "grid x1.2 and x6.7"]
)
def test_both_orders_in_tiles(name, hoist, tile, monkeypatch):
    monkeypatch.setattr(HOISTED, "prefer_hoisted", lambda *_: hoist)
    args = arguments(name)
    assert_exact(decode_stage_hoisted(*args), decode_stage_reference(*args, upcast=torch.float64))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["grid x2.5", "grid scattered", "grid x17.3", "points", "raster of 3"])
def test_lower_precision(name, dtype):
    args = arguments(name, 16, 2, 2, dtype)
    truth = decode_stage_reference(*args, upcast=torch.float64)
    assert_as_good(decode_stage_hoisted(*args), decode_stage_reference(*args), truth)


@pytest.mark.parametrize(
    "name", ["grid x2.5", "grid x1", "grid scattered", "points", "raster", "raster of 20"]
)
def test_gradients(name):
    q, k, v, queries, stage, cell = arguments(name, 12, 3, 2)
    found = []
    for run in (decode_stage_hoisted, decode_stage_reference):
        inputs = leaves([q, k, v, previous_residual(queries), *stage.tensors()])
        n = len(stage.mlp_weights)
        own = stage._replace(
            proj_weight=inputs[4],
            proj_bias=inputs[5],
            mlp_weights=inputs[6 : 6 + n],
            mlp_biases=inputs[6 + n :],
        )
        out = run(*inputs[:3], queries, own, cell.double(), previous=inputs[3])
        found.append(torch.autograd.grad(out, inputs, torch.randn(out.shape, generator=rng(3)).double()))
    assert_same_gradients(*found)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["grid x2.5", "points", "raster", "raster of 20"])
def test_gradients_in_lower_precision(name, dtype):
    """Maps and weights in ``dtype``; the truth from the same rounded numbers in float64."""
    q, k, v, queries, stage, cell = arguments(name, 16, 2, 2, dtype)
    found = []
    for run, upcast in (
        (decode_stage_hoisted, {}),
        (decode_stage_reference, {}),
        (decode_stage_reference, F64),
    ):
        wide = torch.float64 if upcast else dtype
        inputs = [t.detach().to(wide, copy=True).requires_grad_() for t in (q, k, v, *stage.tensors())]
        out = run(*inputs[:3], queries, with_tensors(stage, inputs[3:]), cell, **upcast)
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
    q, k, v, queries, stage, cell = arguments(name)
    for backend in ("hoisted", "reference"):
        weights = local_attention(
            q, k, queries, stage.proj_weight, stage.proj_bias, heads=2, radius=1, backend=backend
        )
        expected = coordinate_decode(
            weights, v, queries, stage.mlp_weights, stage.mlp_biases, cell, backend=backend
        )
        got = decode_stage(q, k, v, queries, stage, cell, backend=backend)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_chunks_of_the_reference_change_nothing():
    args = arguments("points")
    previous = previous_residual(args[3])
    whole = decode_stage_reference(*args, previous=previous)
    parts = decode_stage_reference(*args, previous=previous, chunk=7)
    torch.testing.assert_close(parts, whole)


def test_inference_mode_and_frozen_weights():
    args = arguments("grid x2.5")
    expected = decode_stage_hoisted(*args)
    with torch.inference_mode():
        assert torch.equal(decode_stage_hoisted(*args), expected)
    maps = [t.clone().requires_grad_() for t in args[:3]]
    out = decode_stage_hoisted(*maps, *args[3:])
    torch.testing.assert_close(out, expected)
    assert torch.autograd.grad(out.sum(), maps[2])[0].abs().sum() > 0


@pytest.mark.parametrize("name", ["grid x2.5", "points", "raster of 3"])
def test_autocast_changes_nothing(name):
    args = arguments(name)
    for run in (decode_stage_hoisted, decode_stage_reference):
        expected = run(*args)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(run(*args), expected)


def test_backends():
    args = arguments("grid x2.5")
    assert torch.equal(decode_stage(*args), decode_stage(*args, backend="hoisted"))
    with pytest.raises(ValueError, match=r"decode_stage: backend 'triton' cannot serve this call: [a-z]"):
        decode_stage(*args, backend="triton")
    with pytest.raises(ValueError, match="backend 'none' is unknown; take one of auto, triton"):
        decode_stage(*args, backend="none")
