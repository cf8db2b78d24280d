"""Sizes that do not fit together are refused, in the same words by every backend."""

import pytest
import torch
from misfits import CASES, MISFITS, OPS, arguments, call, message

from clit_kernels import Points

CPU = torch.device("cpu")


@pytest.mark.parametrize("backend", ["auto", "torch", "reference"])
@pytest.mark.parametrize(("op", "name"), CASES)
def test_a_misfit_is_named(op, name, backend):
    sentence = MISFITS[name][-1]
    assert message(op, name, backend, pytest.raises, CPU).startswith(f"{op}: {sentence}")


@pytest.mark.parametrize("kind", ["points", "grid", "raster"])
@pytest.mark.parametrize("op", OPS)
def test_what_fits_passes(op, kind):
    assert call(op, arguments(kind), "torch").isfinite().all()


TRACED = ["local_attention", "coordinate_decode"]
"""With points no tensor's values are asked for. A stage walks them in parts, and their number is fixed."""


@pytest.mark.parametrize("op", TRACED)
def test_exports_for_any_number_of_points(op):
    given = arguments("points")  # made outside: torch 2.12 cannot trace a generator

    class Call(torch.nn.Module):
        def forward(self, index, offset, attention):
            some = {"queries": Points(index, offset), "attention": attention, "previous": None, "base": None}
            return call(op, given | some, "torch")

    (index, offset), attention = given["queries"], given["attention"]
    count = torch.export.Dim("count", min=2, max=4096)
    shapes = ({1: count}, {1: count}, {1: count})
    program = torch.export.export(Call(), (index, offset, attention), dynamic_shapes=shapes)
    some = (index[:, :33], offset[:, :33], attention[:, :33])
    torch.testing.assert_close(program.module()(*some), Call()(*some))
