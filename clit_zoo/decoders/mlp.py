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

    @torch.no_grad()
    def pass_on(self, weight: Tensor) -> None:
        """Start as the linear map ``weight`` (out_features, n) of the first n inputs.

        Two units of each hidden layer carry a number x, as a(x) - a(-x) = x for ReLU and GELU. The others
        keep their weights, and the last layer learns to read them.
        """
        *hidden, last = self.linears()
        count = 2 * len(weight)
        if any(layer.out_features < count for layer in hidden):
            return
        for layer in hidden:
            layer.weight[:count], layer.bias[:count] = 0, 0
            signed = torch.cat((weight, -weight)) if layer is hidden[0] else torch.eye(count)
            layer.weight[:count, : signed.shape[1]] = signed
        one = torch.eye(len(weight))
        ends = torch.cat((one, -one), 1) if hidden else weight
        last.weight.zero_()
        last.bias.zero_()
        last.weight[:, : ends.shape[1]] = ends

    def linears(self) -> list[nn.Linear]:
        """The Linear layers in order."""
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]
