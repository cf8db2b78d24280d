"""The check that `clit-zoo doctor` runs finds a right backend right and a wrong one wrong."""

import pytest
import torch
from torch import Tensor

from clit_kernels import self_check
from clit_kernels.self_check import SHAPES, check_backend


@pytest.mark.parametrize(
    "shape, dtype",
    [
        pytest.param(shape, dtype, marks=[pytest.mark.slow] * (shape == "paper" and dtype != torch.float32))
        for shape in SHAPES
        for dtype in (torch.float32, torch.float16, torch.bfloat16)
    ],
)
def test_torch_is_right(shape, dtype):
    found = check_backend("torch", "cpu", dtype, shape)
    assert found.right
    if dtype == torch.float32:
        assert max(found.output, found.gradients) < 2e-6
    else:
        assert found.output > 1e-5, "nothing was computed in lower precision"


class Doubled(torch.autograd.Function):
    """A right result with a wrong gradient."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return 2 * grad


@pytest.mark.parametrize(
    "fault",
    [
        lambda out: out + 0.01 * out.detach().abs().max(),
        lambda out: torch.where(torch.arange(3) == 2, out * torch.nan, out),
        Doubled.apply,
    ],
    ids=["offset", "NaN", "gradient"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_fault_is_found(fault, dtype, monkeypatch):
    right = self_check.decode_stage

    def faulty(*args, backend):
        out = right(*args, backend=backend)
        return fault(out) if backend == "torch" else out

    monkeypatch.setattr(self_check, "decode_stage", faulty)
    assert not check_backend("torch", "cpu", dtype, "light").right


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine that Triton does not serve")
def test_a_backend_that_cannot_serve_says_why():
    with pytest.raises(ValueError, match="backend 'triton' cannot serve this call"):
        check_backend("triton", "cpu", shape="light")
