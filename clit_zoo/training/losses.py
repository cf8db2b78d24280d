"""What a step minimises: one function a loss, and their table."""

from collections.abc import Callable

from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]
"""From the predicted colours (B, Q, 3), in about [0, 1] and not clamped, and the true ones to one number."""

CHARBONNIER_EPSILON = 1e-3
"""Differences well below it count by their square (Lai et al., CVPR 2017, section 3.3)."""


def l1(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference: the paper's."""
    return (predicted - target).abs().mean()


def charbonnier(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference, smooth around zero."""
    return ((predicted - target).square() + CHARBONNIER_EPSILON**2).sqrt().mean()


LOSSES: dict[str, Loss] = {"l1": l1, "charbonnier": charbonnier}
