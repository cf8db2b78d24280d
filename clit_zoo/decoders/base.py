"""What a decoder is: the contract between a paper's way to colours and everything else."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from torch import Tensor
from torch.nn import Parameter

from ..geometry import Size, Where

Progress = Callable[[float], None]
"""Called with the share of the work done, in (0, 1]."""


class Decoder(Protocol):
    """A ``torch.nn.Module`` that gives colours at any positions of an encoded picture.

    ``__init__(in_channels, **settings)`` takes the channels of the encoder's map and keyword settings with
    the paper's values as defaults. Parameter names are those of the authors' checkpoints. Calls leave nothing
    behind in the module, so threads may share it and what ``prepare`` returns.

    Attributes:
        reach: how far positions see: a colour depends on no feature pixel of the encoder's map more than so
            many rows or columns from the nearest one. None where all is read.
        backend: who computes, one of ``clit_kernels.BACKENDS``; "auto" takes the fastest that can.
    """

    reach: int | None
    backend: str

    def prepare(self, features: Tensor, image: Tensor) -> Any:
        """What belongs to the picture and not to a position: computed once, read by every ``decode``.

        Args:
            features: (B, in_channels, h, w) the encoder's map.
            image: (B, 3, h, w) in [-1, 1], float32 at least.

        Returns:
            A NamedTuple of tensors, of the picture's size: nothing in it grows with the output.
        """
        ...

    def plan(self, h: int, w: int, where: Where) -> list[Size]:
        """Sizes of the maps that positions of an h x w picture are read on, in order: [(h, w)] but in a
        cascade.

        Raises:
            ScaleError: ``where`` names maps that do not fit, or asks for different ones in one batch.
        """
        ...

    def decode(self, prepared: Any, where: Where, *, progress: Progress | None = None) -> Tensor:
        """Colours at positions.

        A window's pixels come out bit for bit as in the whole picture where they share its grid
        (``Pixels.window``). Without gradients, memory grows with the output's three channels and with nothing
        else that depends on it: work goes in bands.

        Args:
            prepared: what ``prepare`` returned.
            where: the Q positions of each image, and their cell.
            progress: called after each band with the share done.

        Returns:
            (B, Q, 3) in [-1, 1] as ``image`` is, in ``where``'s order, float32 at least.
        """
        ...

    def parameters(self) -> Iterator[Parameter]:
        """As every ``torch.nn.Module`` has it."""
        ...

    def why_not(self, backend: str, like: Tensor) -> str | None:
        """Why ``backend`` cannot serve tensors like this one, by device and dtype; None if it can."""
        ...
