"""Sizes that do not fit together are refused, in the same words by every backend, before a kernel runs."""

import pytest
import torch
from interpreter import BACKENDS, DEVICE, INTERPRETED
from misfits import CASES, MISFITS, OPS, arguments, call, message, moved

from clit_kernels import Points


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("op", "name"), CASES)
def test_a_misfit_is_named(op, name, backend):
    sentence = MISFITS[name][-1]
    assert message(op, name, backend, pytest.raises, DEVICE).startswith(f"{op}: {sentence}")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["points"] if INTERPRETED else ["points", "grid", "raster"])
@pytest.mark.parametrize("op", OPS)
def test_what_fits_passes(op, kind, backend):
    assert call(op, moved(arguments(kind), DEVICE), backend).isfinite().all()


TRACED = ["local_attention", "coordinate_decode"]
"""With points no tensor's values are asked for. A stage walks them in parts, and their number is fixed."""


@pytest.mark.skipif(INTERPRETED, reason="PyTorch's own: no kernel takes part")
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
