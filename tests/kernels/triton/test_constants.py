"""Positions and cells are constants to the kernels."""

import pytest
from constants import KINDS, assert_constant
from misfits import OPS

# a grid takes the interpreter 10 seconds, and the stage's is both ops'
CASES = [(op, kind) for op in OPS for kind in KINDS if kind != "grid" or op == "decode_stage"]


@pytest.mark.parametrize(("op", "kind"), CASES)
def test_no_gradient_reaches_positions_and_cells(op, kind, device):
    assert_constant(op, kind, "triton", device)
