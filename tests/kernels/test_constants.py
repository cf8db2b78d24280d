"""Positions and cells are constants to every backend."""

import pytest
import torch
from constants import KINDS, assert_constant
from misfits import OPS


@pytest.mark.parametrize("backend", ["auto", "torch", "reference"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("op", OPS)
def test_no_gradient_reaches_positions_and_cells(op, kind, backend):
    assert_constant(op, kind, backend, torch.device("cpu"))
