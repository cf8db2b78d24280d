"""What a decoder is: the contract between a paper's way to colours and everything else."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

from torch import Tensor
from torch.nn import Parameter

from ..geometry import Size, Where

Progress = Callable[[float], None]
"""Called with the share of the work done, in (0, 1]."""


class Normalisation(NamedTuple):
    """How colours in [0, 1] meet a network: it reads and gives (colour - mean) / std, LIIF's ½ and ½ here."""

    mean: float | tuple[float, float, float] = 0.5
    std: float = 0.5

    def normalise(self, image: Tensor) -> Tensor:
        """Image (B, 3, h, w) in [0, 1] -> what the encoder reads and ``prepare`` gets."""
        return (image - self._mean(image, 3, 1, 1)) / self.std

    def restore(self, colors: Tensor) -> Tensor:
        """What ``decode`` gave, (B, Q, 3) -> colours in about [0, 1]; without gradients in its place."""
        mean = self._mean(colors, 3)
        if colors.requires_grad:
            return colors * self.std + mean
        return colors.mul_(self.std).add_(mean)  # spares two outputs' memory

    def _mean(self, like: Tensor, *shape: int) -> float | Tensor:
        return self.mean if isinstance(self.mean, float) else like.new_tensor(self.mean).view(shape)


class Decoder(Protocol):
    """A ``torch.nn.Module`` that gives colours at any positions of an encoded picture.

    ``__init__(in_channels, **settings)`` takes the channels of the encoder's map and keyword settings with
    the paper's values as defaults. Parameter names are those of the authors' checkpoints. Calls leave nothing
    behind in the module, so threads may share it and what ``prepare`` returns. One whose paper normalises
    otherwise than LIIF has its own ``normalisation``: a ``Normalisation``, or a module with its two methods.
    One whose colours depend on the size of the whole picture has ``framed = True``, and its ``prepare`` takes
    a ``Frame`` besides, None for a whole picture.

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
            image: (B, 3, h, w) normalised, so in [-1, 1] as a rule, float32 at least.

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
            (B, Q, 3) normalised as ``image`` is, in ``where``'s order, float32 at least.
        """
        ...

    def parameters(self) -> Iterator[Parameter]:
        """As every ``torch.nn.Module`` has it."""
        ...

    def why_not(self, backend: str, like: Tensor) -> str | None:
        """Why ``backend`` cannot serve tensors like this one, by device and dtype; None if it can."""
        ...
