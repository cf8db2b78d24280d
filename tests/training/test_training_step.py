"""A training step under autocast and with torch.utils.checkpoint (on Triton: test_training_step_triton)."""

import pytest
import torch
from step_cases import KINDS, check_autocast, check_checkpoint


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", KINDS)
def test_autocast(kind, dtype):
    check_autocast("torch", kind, dtype)


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("where", ["decoder", "stage"])
@pytest.mark.parametrize("kind", KINDS)
def test_checkpoint(kind, where, reentrant, autocast, monkeypatch):
    check_checkpoint("torch", kind, where, reentrant, autocast, monkeypatch)
