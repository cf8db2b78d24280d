"""A picture as the models see it, with what is needed to hand back the kind that came in."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ..errors import ImageError
from .metadata import Metadata

# Integers of these types fill their whole range; floats are read as [0, 1].
INTEGER_BITS = {torch.uint8: 8, torch.uint16: 16}
SAMPLE_TYPES = {8: torch.uint8, 16: torch.uint16, 32: torch.float32}  # by a Picture's bits

# What rounding in somebody's resize or colour conversion leaves outside [0, 1]; clamped. More is a mistake.
RANGE_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Origin:
    """The kind of thing a picture was made from, so that ``encode`` returns the same kind."""

    kind: str = "path"  # "path", "pil", "ndarray", "tensor" or "picture"
    dtype: torch.dtype | None = None  # of an array or tensor
    ndim: int = 0  # 2: no channel axis; 3: one picture; 4: a batch
    device: torch.device | None = None  # of a tensor
    mode: str = ""  # of a PIL image


class Samples(Protocol):
    """Stored samples (B, c, h, w) that are read when they are asked for: a tensor, or a file."""

    @property
    def shape(self) -> Sequence[int]: ...

    @property
    def dtype(self) -> torch.dtype: ...

    def __getitem__(self, where: tuple[slice, slice, slice, slice]) -> Tensor: ...


@dataclass(frozen=True)
class Picture:
    """Samples as they were stored, plus everything that must survive enlargement.

    Attributes:
        samples: (B, c, h, w): uint8 or uint16 that fill their range, or float32 in [0, 1]. One channel is
            gray, two are gray and alpha, three are colour, four colour and alpha, not premultiplied.
        bits: 8 or 16 for integers, 32 for floating point: what the samples were and will be.
        metadata: profile, EXIF, XMP, IPTC and resolution.
        notices: what a person should know: frames left out, bits lost, colours converted.
        source: its name in messages.
        origin: the kind of thing it was made from.
        ground: a colour in [0, 1] that a transparent picture is laid on.
    """

    samples: Samples
    bits: int = 8
    metadata: Metadata = field(default_factory=Metadata)
    notices: tuple[str, ...] = ()
    source: str = "the picture"
    origin: Origin = field(default_factory=Origin)
    ground: tuple[float, float, float] | None = None

    @property
    def height(self) -> int:
        return self.samples.shape[2]

    @property
    def width(self) -> int:
        return self.samples.shape[3]

    @property
    def transparent(self) -> bool:
        """Whether it has alpha, and is laid on nothing."""
        return self.samples.shape[1] in (2, 4) and self.ground is None

    @property
    def gray(self) -> bool:
        """Whether it has one channel of colour on the outside."""
        return self.samples.shape[1] < 3 and (self.ground is None or len(set(self.ground)) == 1)

    @property
    def channels(self) -> int:
        """Samples of a pixel on the outside."""
        return (1 if self.gray else 3) + self.transparent

    @property
    def dtype(self) -> torch.dtype:
        """Of the samples that it gives on the outside."""
        return self.origin.dtype or SAMPLE_TYPES[self.bits]

    def part(self, rows: slice = slice(None), cols: slice = slice(None)) -> tuple[Tensor, Tensor | None]:
        """A part as the models see it: colour (B, 3, h, w) and alpha (B, 1, h, w), or None, in [0, 1]."""
        stored = self.samples[:, :, rows, cols]
        values = stored.to(torch.float32)
        if stored.dtype in INTEGER_BITS:
            values = values.div_(2 ** INTEGER_BITS[stored.dtype] - 1)
        channels = values.shape[1]
        color = values[:, :1].expand(-1, 3, -1, -1) if channels < 3 else values[:, :3]
        alpha = values[:, -1:] if channels in (2, 4) else None
        if alpha is not None and self.ground is not None:
            ground = color.new_tensor(self.ground)[None, :, None, None]
            return torch.lerp(ground, color, alpha), None
        return color, alpha

    @property
    def color(self) -> Tensor:
        """Colour of the whole."""
        return self.part()[0]

    @property
    def alpha(self) -> Tensor | None:
        """Alpha of the whole; None where it has none."""
        return self.part()[1] if self.transparent else None


def from_planes(planes: Tensor, source: str, *, bits: int | None = None, **kept: Any) -> Picture:
    """A Picture of samples; floats are checked, and clamped in a copy.

    Args:
        planes: (h, w), (c, h, w) or (B, c, h, w), c = 1 to 4: two channels are gray and alpha.
        source: its name in messages.
        bits: of the samples, where their type does not say.
        kept: the Picture's other fields.

    Raises:
        ImageError: samples that are neither uint8 nor uint16 nor floats in [0, 1], or none at all.
    """
    if planes.numel() == 0:
        raise ImageError(f"{source} has no pixels: its shape is {tuple(planes.shape)}.")
    full_bits = INTEGER_BITS.get(planes.dtype)
    if full_bits is None and not planes.is_floating_point():
        raise ImageError(
            f"{source} is of dtype {planes.dtype}; pass uint8 or uint16 (full range) or floats in [0, 1]."
        )
    if full_bits is None:
        values = planes.to(torch.float32)
        low, high = (bound.item() for bound in torch.aminmax(values))
        if not (low >= -RANGE_TOLERANCE and high <= 1 + RANGE_TOLERANCE):  # NaN is neither
            raise ImageError(
                f"{source} holds floating-point values from {low:g} to {high:g}; they must lie in [0, 1]: "
                "rescale them, or pass 8 or 16 bits as uint8 or uint16."
            )
        planes = values.clamp(0, 1)
    return Picture(planes[(None,) * (4 - planes.ndim)], bits or full_bits or 32, source=source, **kept)


def from_samples(samples: np.ndarray, source: str, **kept: Any) -> Picture:
    """``from_planes`` of (h, w), (h, w, c) or (B, h, w, c), in any byte order and memory layout."""
    native = samples.astype(samples.dtype.newbyteorder("="), order="C", copy=False)
    planes = torch.from_numpy(native if native.flags.writeable else native.copy())
    return from_planes(planes if planes.ndim == 2 else planes.movedim(-1, -3), source, **kept)


def store(color: Tensor, alpha: Tensor | None, gray: bool, out: Tensor) -> None:
    """Write colours as samples, integers rounded to nearest; gray is the mean of three predictions of it.

    Args:
        color: (B, h, w, 3), which is changed.
        alpha: (B, h, w, 1) or None, which is changed.
        gray: one channel is wanted.
        out: (B, h, w, c) of the samples' type.
    """
    first = 0
    for part in (color.mean(-1, keepdim=True) if gray else color, alpha):
        if part is None:
            continue
        part = part.clamp_(0, 1)
        if out.dtype in INTEGER_BITS:
            part = part.mul_(2 ** INTEGER_BITS[out.dtype] - 1).round_()
        out[..., first : first + part.shape[-1]] = part.to(out.dtype)
        first += part.shape[-1]


def to_samples(picture: Picture, dtype: torch.dtype) -> np.ndarray:
    """(B, h, w, c) samples of a type; those that are stored so already are not copied."""
    return to_rows(picture, dtype).contiguous().cpu().numpy()


def to_rows(picture: Picture, dtype: torch.dtype) -> Tensor:
    """``to_samples`` as a tensor, where the picture is, made in bands to spare memory."""
    if picture.samples.dtype == dtype and picture.ground is None:
        return picture.samples[:, :, :, :].permute(0, 2, 3, 1)
    made = None
    for rows in bands(picture.height, picture.width):
        color, alpha = (None if t is None else t.permute(0, 2, 3, 1) for t in picture.part(rows))
        assert color is not None
        if made is None:
            shape = (color.shape[0], picture.height, picture.width, picture.channels)
            made = color.new_empty(shape, dtype=dtype)
        store(color.clone(), alpha, picture.gray, made[:, rows])
    assert made is not None
    return made


def bands(height: int, width: int) -> Iterator[slice]:
    """Row slices of about a million pixels."""
    step = max(1, 2**20 // max(1, width))
    for top in range(0, height, step):
        yield slice(top, min(top + step, height))
