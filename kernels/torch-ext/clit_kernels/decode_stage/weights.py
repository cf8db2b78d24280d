"""What one stage of CLIT owns besides its q, k and v maps."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


class StageWeights(NamedTuple):
    """Position-bias projection (H, 64), (H,); MLP weights and biases; heads H and window radius.

    ``mlp_weights[0]`` is (D, K*K*C + 2) with its inputs ordered tap, head, channel, then cell (y, x).
    """

    proj_weight: Tensor
    proj_bias: Tensor
    mlp_weights: Sequence[Tensor]
    mlp_biases: Sequence[Tensor]
    heads: int
    radius: int

    @property
    def area(self) -> int:
        """K*K, the taps of a window."""
        return (2 * self.radius + 1) ** 2

    def tensors(self) -> list[Tensor]:
        """All tensors, in a fixed order."""
        return [self.proj_weight, self.proj_bias, *self.mlp_weights, *self.mlp_biases]
