"""What the tests of clit_kernels share."""

import pytest
import torch


@pytest.fixture
def poisoned():
    """Fill what torch.empty and its relatives return with NaN (the largest number, for integers)."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert torch.empty(3).isnan().all(), "this torch does not poison memory"
    yield
    torch.use_deterministic_algorithms(before)
