"""What a decoder is: the contract between a paper's way to colours and everything else."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from torch import Tensor
from torch.nn import Parameter

from ..geometry import Frame, Size, Where

Progress = Callable[[float], None]
"""Called with the share of the work done, in (0, 1]."""


class Decoder(Protocol):
    """A ``torch.nn.Module`` that gives colours at any positions of an encoded picture.

    ``__init__(in_channels, **settings)`` takes the channels of the encoder's map and keyword settings with
    the paper's values as defaults. Parameter names are those of the authors' checkpoints. Calls leave nothing
    behind in the module, so threads may share it and what ``prepare`` returns. A class derived from this one
    has the usual answers: LIIF's normalisation, one map, computed in PyTorch.

    Attributes:
        reach: how far positions see: a colour depends on no feature pixel of the encoder's map more than so
            many rows or columns from the nearest one. None where all is read.
        backend: who computes, one of ``clit_kernels.BACKENDS``; "auto" takes the fastest that can.
        mean, std: the network reads and gives (colour - mean) / std, ``mean`` for all channels or for each.
    """

    reach: int | None
    backend: str = "auto"
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

    def begin(self, features: Tensor, image: Tensor) -> None:
        """Let new weights start near an interpolation, before training; see ``training.grow``.

        Nothing to do where the formula adds the picture itself, as most do.

        Args:
            features, image: of some patches, as ``prepare`` gets them.
        """

    def prepare(self, features: Tensor, image: Tensor, frame: Frame | None = None) -> Any:
        """What belongs to the picture and not to a position: computed once, read by every ``decode``.

        Args:
            features: (B, in_channels, h, w) the encoder's map.
            image: (B, 3, h, w) normalised, so in [-1, 1] as a rule, float32 at least.
            frame: where they lie in a larger picture, on whose size colours may depend; None for a whole one.

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
        return [(h, w)]

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
        reason = f"{type(self).__name__} computes in PyTorch: take auto, torch or reference"
        return reason if backend == "triton" else None
