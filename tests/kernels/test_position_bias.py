"""The bias from two tables, against the encoding written out."""

import math

import pytest
import torch
from op_cases import rng

from clit_kernels.position_bias import BANDS, axis_table, encode, frequencies
from clit_kernels.queries import tap_offsets


def test_the_encoding_by_hand():
    b = [2 ** (10 * i / 15) - 1 for i in range(16)]
    y, x = 0.3, -1.7
    expected = [f(b_i * d) for f in (math.sin, math.cos) for d in (y, x) for b_i in b]
    got = encode(torch.tensor([y, x], dtype=torch.float64))
    # the published bands are float32 numbers up to 1023, met by arguments up to 1740
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64), atol=3e-4, rtol=0)
    assert BANDS == 16 and frequencies(torch.device("cpu"), torch.float32)[-1] == 1023


@pytest.mark.parametrize("radius", [0, 1, 3])
def test_two_tables_make_the_bias(radius):
    offset = torch.rand(6, 2, generator=rng(), dtype=torch.float64) - 0.5
    weight = torch.randn(3, 4 * BANDS, generator=rng(), dtype=torch.float64)
    taps = tap_offsets(radius).double()
    expected = encode(2 * (offset.unsqueeze(1) - taps)) @ weight.T
    y, x = (axis_table(offset[:, i], weight, i, radius) for i in (0, 1))
    got = (y.unsqueeze(2) + x.unsqueeze(1)).flatten(1, 2)
    # only the order of roundings differs: 1e3 rad in float64
    torch.testing.assert_close(got, expected, atol=1e-11, rtol=0)


def test_the_table_is_exact_where_float32_positions_are_not():
    """The tables take sines of arguments in float64; the formula rounds them, up to 7,000 rad, to float32."""
    offset = (torch.rand(500, generator=rng()) - 0.5).float()
    weight = torch.randn(2, 4 * BANDS, generator=rng()) / 8
    truth = axis_table(offset.double(), weight, 0, 3)
    error = (axis_table(offset, weight, 0, 3).double() - truth).abs().max()
    relative = torch.stack((2 * (offset.unsqueeze(1) - torch.arange(-3, 4)), torch.zeros(500, 7)), -1)
    cosines = weight[:, 3 * BANDS :].sum(1)  # the x part at 0
    plain = (encode(relative) @ weight.T - cosines).double()
    assert error < (plain - truth).abs().max()
    assert error < 2e-6


def test_gradient_of_the_table():
    offset = torch.rand(3, generator=rng(), dtype=torch.float64) - 0.5
    weight = torch.randn(2, 4 * BANDS, generator=rng(), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w: axis_table(offset, w, 1, 1), weight)
