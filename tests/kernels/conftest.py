"""What the tests of clit_kernels share.

Files named test_*_triton.py run Triton kernels: in a process of their own (see test_interpreted.py), or on a
GPU. In the interpreter an unmasked load outside a tensor kills the process, and TRITON_INTERPRET must be set
before the first kernel is defined.
"""

import pytest
import torch
from interpreter import INTERPRETED

collect_ignore_glob = [] if INTERPRETED or torch.cuda.is_available() else ["*_triton.py"]


@pytest.fixture
def device() -> torch.device:
    """Where kernels run: the CPU under the interpreter, else the GPU."""
    return torch.device("cpu" if INTERPRETED else "cuda")


@pytest.fixture
def poisoned():
    """Fill what torch.empty and its relatives return with NaN (the largest number, for integers)."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert torch.empty(3).isnan().all(), "this torch does not poison memory"
    yield
    torch.use_deterministic_algorithms(before)
