"""Devices without float64, such as Apple's: the plain PyTorch code makes no such tensor there."""

import math

import pytest
import torch
from op_cases import QUERIES, cells, random_map, rng, stage_weights
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from clit_kernels import coordinate_decode, decode_stage, local_attention, position_bias
from clit_kernels.local_attention import hoisted
from clit_kernels.position_bias import BANDS, axis_table

NAMES = ["grid x2.5", "grid scattered", "points", "raster of 3"]


class NoFloat64(TorchDispatchMode):
    """Raise where a tensor of float64 appears."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if any(torch.is_tensor(t) and t.dtype == torch.float64 for t in tree_leaves(out)):
            raise TypeError(f"{func} made a float64 tensor")
        return out


@pytest.fixture
def without(monkeypatch):
    """As if the CPU had no float64; the constants, which are made where there is one, are made before."""
    for module in (position_bias, hoisted):
        monkeypatch.setattr(module, "has_float64", lambda device: False)
    for radius in (1, 3):
        axis_table(torch.zeros(1), torch.zeros(2, 4 * BANDS), 0, radius)
    return NoFloat64()


def run(op: str, backend: str, name: str, radius: int = 3) -> list[torch.Tensor]:
    """An op's result and the gradients of its maps and of the projection."""
    size, queries = QUERIES[name]
    stage = stage_weights(8, 2, radius)
    q, k, v = (random_map(8, size, seed).requires_grad_() for seed in (1, 2, 3))
    proj = (stage.proj_weight.requires_grad_(), stage.proj_bias.requires_grad_())
    mlp = (stage.mlp_weights, stage.mlp_biases)
    inputs = [q, k, *proj] if op == "local_attention" else [q, k, v, *proj]
    if op == "decode_stage":
        out = decode_stage(q, k, v, queries, stage, cells(queries), backend=backend)
    else:
        out = local_attention(q, k, queries, *proj, heads=2, radius=radius, backend=backend)
        if op == "coordinate_decode":
            out = coordinate_decode(out, v, queries, *mlp, cells(queries), backend=backend)
    grad = torch.randn(out.shape, generator=rng(3))
    return [out.detach(), *torch.autograd.grad(out, inputs, grad)]


def test_the_mode_refuses():
    with pytest.raises(TypeError, match="made a float64 tensor"), NoFloat64():
        torch.zeros(1).double()
    with pytest.raises(TypeError, match="made a float64 tensor"), NoFloat64():
        run("local_attention", "hoisted", "points")


@pytest.mark.parametrize("op", ["local_attention", "coordinate_decode", "decode_stage"])
@pytest.mark.parametrize("backend", ["hoisted", "reference"])
@pytest.mark.parametrize("name", NAMES)
def test_no_float64_and_the_same_result(name, backend, op, without, monkeypatch):
    with without:
        found = run(op, backend, name)
    monkeypatch.undo()
    for got, expected in zip(found, run(op, backend, name), strict=True):
        limit = 1e-5 * max(1.0, float(expected.abs().max()))
        assert (got - expected).abs().max() <= limit


@pytest.mark.parametrize("name", NAMES)
def test_without_gradients(name, without, monkeypatch):
    """Grids go tile by tile there."""
    size, queries = QUERIES[name]
    args = (*(random_map(8, size, seed) for seed in (1, 2, 3)), queries, stage_weights(8, 2, 3))
    with torch.no_grad(), without:
        got = decode_stage(*args, cells(queries), backend="hoisted")
    monkeypatch.undo()
    expected = decode_stage(*args, cells(queries), backend="hoisted")
    assert (got - expected).abs().max() <= 1e-5 * max(1.0, float(expected.abs().max()))


def test_angles_less_whole_turns():
    edges = torch.tensor([-0.5, 0.5, 0.0, 1e-7, -1e-7, 0.5 - 2**-25, 1 / 3])
    offset = torch.cat((edges, torch.rand(20_000, generator=rng()) - 0.5))
    got = position_bias._reduced_angles(offset).double()
    expected = 2 * offset.double().unsqueeze(-1) * position_bias._bands().double()
    assert got.abs().max() <= math.pi + 0.5
    for f in (torch.sin, torch.cos):
        assert (f(got) - f(expected)).abs().max() < 1e-6


def test_constants_are_kept_and_of_the_published_bands():
    device = torch.device("cpu")
    first, again = (position_bias.frequencies(device, torch.float64) for _ in range(2))
    assert first is again and torch.equal(first, position_bias._bands().double())
    with torch.device("meta"):  # another default device changes nothing
        assert position_bias._turns(2).device == device and position_bias._bands().device == device
