"""The family's MLP, under its common parameter names: Linear layers at the even indices of ``layers``."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


class MLP(nn.Module):
    """Linear layers with an activation between them.

    Args:
        in_features, hidden_dims, out_features: widths.
        activation: makes the modules at the odd indices.
        beside: numbers that every layer after the first reads after those of the layer before it.
    """

    def __init__(
        self,
        in_features: int,
        hidden_dims: Sequence[int],
        out_features: int,
        activation: Callable[[], nn.Module] = nn.GELU,
        *,
        beside: int = 0,
    ):
        super().__init__()
        layers: list[nn.Module] = []
        for width in hidden_dims:
            layers += [nn.Linear(in_features, width), activation()]
            in_features = width + beside
        self.layers = nn.Sequential(*layers, nn.Linear(in_features, out_features))

    def forward(self, x: Tensor, beside: Tensor | None = None) -> Tensor:
        """(..., in_features), and (..., beside) where there are any -> (..., out_features)."""
        for i, layer in enumerate(self.layers):
            if beside is not None and i and isinstance(layer, nn.Linear):
                x = torch.cat((x, beside), -1)
            x = layer(x)
        return x

    def linears(self) -> list[nn.Linear]:
        """The Linear layers in order."""
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]
