"""The family's MLP, under its common parameter names: Linear layers at the even indices of ``layers``."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn


class MLP(nn.Module):
    """Linear layers with an activation between them.

    Args:
        in_features, hidden_dims, out_features: widths.
        activation: makes the modules at the odd indices.
    """

    def __init__(
        self,
        in_features: int,
        hidden_dims: Sequence[int],
        out_features: int,
        activation: Callable[[], nn.Module] = nn.GELU,
    ):
        super().__init__()
        layers: list[nn.Module] = []
        for width in hidden_dims:
            layers += [nn.Linear(in_features, width), activation()]
            in_features = width
        self.layers = nn.Sequential(*layers, nn.Linear(in_features, out_features))

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        out: Tensor = self.layers(x)
        return out

    def linears(self) -> list[nn.Linear]:
        """The Linear layers in order."""
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]
