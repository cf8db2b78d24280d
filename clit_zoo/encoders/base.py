"""What an encoder is: the contract between a picture's network and everything else."""

from collections.abc import Iterator
from typing import Protocol

from torch import Tensor
from torch.nn import Parameter


class Encoder(Protocol):
    """A ``torch.nn.Module`` that turns a picture into a feature map of the picture's own size.

    Its settings are keyword arguments of ``__init__`` with the paper's values as defaults. Calls leave
    nothing behind in the module, so threads may share it.

    Attributes:
        out_channels: channels C of its map.
        reach: how far one output pixel sees: it reads no input pixel more than ``reach`` rows or columns
            away. A picture cut into tiles with that much around them gives the same map. None where all is
            read.
        grid: tiles must begin at multiples of so many pixels, 1 for a network of convolutions.
    """

    out_channels: int
    reach: int | None
    grid: int

    def parameters(self) -> Iterator[Parameter]:
        """As every ``torch.nn.Module`` has it."""
        ...

    def __call__(self, image: Tensor) -> Tensor:
        """Image (B, 3, h, w) -> features (B, C, h, w) in the same dtype, for any h, w >= 1.

        The image is normalised: in [-1, 1] unless the decoder normalises otherwise.
        The image comes in channels_last memory, which convolutions are faster with.
        """
        ...
