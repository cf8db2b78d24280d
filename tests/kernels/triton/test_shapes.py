"""Sizes that do not fit together are refused before a kernel reads beside a tensor."""

import pytest
from misfits import CASES, MISFITS, OPS, arguments, call, message, moved


@pytest.mark.parametrize(("op", "name"), CASES)
def test_a_misfit_is_named(op, name, device):
    sentence = MISFITS[name][-1]
    assert message(op, name, "triton", pytest.raises, device).startswith(f"{op}: {sentence}")


@pytest.mark.parametrize("op", OPS)
def test_what_fits_passes(op, device):
    assert call(op, moved(arguments("points"), device), "triton").isfinite().all()
