"""Triton is there and cannot build a kernel: here, because no driver serves the CPU's tensors."""

import warnings
from typing import Any

import pytest
import torch
from op_cases import QUERIES, cells, random_map, stage_weights

from clit_kernels import StageCall, backends, coordinate_decode, decode_stage, local_attention, triton_support

pytestmark = [
    pytest.mark.skipif(not triton_support.has_triton(), reason="Triton is not installed"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine where Triton finds no driver"),
]


@pytest.fixture(autouse=True)
def _believed_to_serve_the_cpu(monkeypatch):
    monkeypatch.setattr(triton_support, "INTERPRETED", True)
    monkeypatch.setattr(backends, "_not_built", set())


def call(op: str, backend: str, **how: Any) -> torch.Tensor:
    size, queries = QUERIES["grid x2.5"]
    maps = (random_map(8, size, seed).requires_grad_() for seed in (1, 2, 3))
    stage = StageCall(*maps, queries, stage_weights(8, 2, 1), cells(queries))
    if op == "local_attention":
        return local_attention(stage.attention(), backend=backend, **how)
    if op == "coordinate_decode":
        weights = local_attention(stage.attention(), backend="torch")
        return coordinate_decode(stage.decoding(weights), backend=backend, **how)
    return decode_stage(stage, backend=backend, **how)


@pytest.mark.parametrize("op", ["local_attention", "coordinate_decode", "decode_stage"])
def test_auto_warns_once_and_computes(op):
    with pytest.warns(RuntimeWarning, match=rf"{op}: Triton failed to build its kernel .* cpu .*'torch'"):
        out = call(op, "auto")
    expected = call(op, "torch")
    assert torch.equal(out, expected) and out.requires_grad
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(call(op, "auto"), expected)
    with pytest.warns(RuntimeWarning, match="failed to build"):  # with other tiles it is tried again
        assert torch.equal(call(op, "auto", tiles={f"{op}/none": {"SIZE": 1}}), expected)


@pytest.mark.parametrize("op", ["local_attention", "coordinate_decode", "decode_stage"])
def test_triton_by_name_raises(op):
    with pytest.raises(Exception) as caught:
        call(op, "triton")
    assert backends.from_triton(caught.value)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("memory"), ValueError("the caller's")])
def test_other_errors_are_not_hidden(error):
    def triton():
        raise error

    with pytest.raises(type(error), match=str(error)):
        backends.serve(
            "op", "auto", torch.zeros(1), (), why_not=lambda name: None, triton=triton,
            torch=lambda: torch.zeros(1), reference=lambda: torch.zeros(1),
        )  # fmt: skip


def test_an_error_of_the_backward_pass_names_the_remedy():
    import triton.compiler

    with pytest.raises(Exception) as caught, backends.explained("local_attention"):
        triton.compiler.compile(None)
    assert caught.value.__notes__ == [
        "local_attention: Triton failed in the backward pass; train with backend='torch'."
    ]
    with pytest.raises(ValueError) as other, backends.explained("local_attention"):
        raise ValueError("something else")
    assert not hasattr(other.value, "__notes__")
