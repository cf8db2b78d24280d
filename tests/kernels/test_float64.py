"""Devices without float64, such as Apple's: the plain PyTorch code makes no such tensor there."""

import math

import pytest
import torch
from op_cases import QUERIES, cells, random_map, rng, stage_weights
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from clit_kernels import StageCall, coordinate_decode, decode_stage, local_attention, position_bias
from clit_kernels.local_attention import torch as plain
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
    for module in (position_bias, plain):
        monkeypatch.setattr(module, "has_float64", lambda device: False)
    for radius in (1, 3):
        axis_table(torch.zeros(1), torch.zeros(2, 4 * BANDS), 0, radius)
    return NoFloat64()


def stage(name: str, radius: int = 3) -> StageCall:
    size, queries = QUERIES[name]
    maps = (random_map(8, size, seed) for seed in (1, 2, 3))
    return StageCall(*maps, queries, stage_weights(8, 2, radius), cells(queries))


def run(op: str, backend: str, name: str) -> list[torch.Tensor]:
    """An op's result and the gradients of its maps and of the projection."""
    call = stage(name)
    inputs = [*call[: 2 if op == "local_attention" else 3], *call.weights[:2]]
    for tensor in inputs:
        tensor.requires_grad_()
    if op == "decode_stage":
        out = decode_stage(call, backend=backend)
    else:
        out = local_attention(call.attention(), backend=backend)
        if op == "coordinate_decode":
            out = coordinate_decode(call.decoding(out), backend=backend)
    grad = torch.randn(out.shape, generator=rng(3))
    return [out.detach(), *torch.autograd.grad(out, inputs, grad)]


def test_the_mode_refuses():
    with pytest.raises(TypeError, match="made a float64 tensor"), NoFloat64():
        torch.zeros(1).double()
    with pytest.raises(TypeError, match="made a float64 tensor"), NoFloat64():
        run("local_attention", "torch", "points")


@pytest.mark.parametrize("op", ["local_attention", "coordinate_decode", "decode_stage"])
@pytest.mark.parametrize("backend", ["torch", "reference"])
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
    call = stage(name)
    with torch.no_grad(), without:
        got = decode_stage(call, backend="torch")
    monkeypatch.undo()
    expected = decode_stage(call, backend="torch")
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
