"""Queries by feature pixel, and windows of a map."""

import pytest
import torch
from op_cases import rng

from clit_kernels.grouping import crop, group_axis, windows


def test_every_position_has_a_slot_of_its_own_pixel():
    index = torch.tensor([3, 3, 3, 4, 6, 6, 9])  # 5, 7 and 8 have none
    axis = group_axis(index)
    assert (axis.first, axis.slots.shape, axis.full) == (3, (7, 3), False)
    slots = axis.slots.flatten()[axis.slot_of]
    assert slots.tolist() == list(range(7))
    assert axis.starts == [0, 3, 4, 4, 6, 6, 6, 7]
    own = axis.slot_of // 3 + axis.first
    assert torch.equal(own, index)


def test_full_slots():
    axis = group_axis(torch.tensor([0, 0, 1, 1]))
    assert axis.full and axis.slots.tolist() == [[0, 1], [2, 3]]


def test_crop_is_zero_outside():
    feature = torch.arange(1.0, 7).view(1, 1, 2, 3)
    assert crop(feature, -1, 2, 1, 4)[0, :, :, 0].tolist() == [[0, 0, 0], [2, 3, 0], [5, 6, 0]]
    assert crop(feature, 0, 1, -1, 1)[0, :, :, 0].tolist() == [[0, 1]]


@pytest.mark.parametrize("side", [1, 3, 7])
def test_windows(side):
    cropped = torch.randn(2, side + 2, side + 1, 3, generator=rng(), dtype=torch.float64)
    expected = torch.stack(
        [torch.stack([cropped[:, y : y + side, x : x + side] for x in range(2)], 1) for y in range(3)], 1
    )
    assert torch.equal(windows(cropped, side), expected)
    assert torch.equal(windows(cropped.clone().requires_grad_(), side), expected)


@pytest.mark.parametrize("side", [1, 3])
def test_gradient_of_windows(side):
    cropped = torch.randn(2, 4, 5, 2, generator=rng(), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda c: windows(c, side), cropped)
