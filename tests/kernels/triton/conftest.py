"""Triton kernels run here only in a process of their own (see ../test_triton.py), or on a GPU.

In the interpreter an unmasked load outside a tensor kills the process, and TRITON_INTERPRET must be set
before the first kernel is defined. Memory that nothing has written holds NaN throughout.
"""

import os

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

collect_ignore_glob = [] if INTERPRETED or torch.cuda.is_available() else ["test_*.py"]


@pytest.fixture
def device() -> torch.device:
    """Where kernels run: the CPU under the interpreter, else the GPU."""
    return torch.device("cpu" if INTERPRETED else "cuda")


@pytest.fixture(autouse=True)
def _poisoned_always(poisoned):
    """Every test here runs on poisoned memory."""
