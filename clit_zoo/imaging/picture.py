"""A picture as the models see it, with what is needed to hand back the kind that came in."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

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
    dtype: torch.dtype = torch.float32  # of an array or tensor
    ndim: int = 0  # 2: no channel axis; 3: one picture; 4: a batch
    device: torch.device | None = None  # of a tensor
    mode: str = ""  # of a PIL image


@dataclass(frozen=True)
class Picture:
    """Colour and alpha as float32 tensors in [0, 1], plus everything that must survive enlargement.

    Attributes:
        color: (B, 3, h, w), not premultiplied. A gray picture carries its one channel three times.
        alpha: (B, 1, h, w) or None.
        gray: it has one channel on the outside.
        bits: 8 or 16 for integers, 32 for floating point: what the samples were and will be.
        metadata: profile, EXIF, XMP, IPTC and resolution.
        notices: what a person should know: frames left out, bits lost, colours converted.
        source: its name in messages.
        origin: the kind of thing it was made from.
    """

    color: Tensor
    alpha: Tensor | None = None
    gray: bool = False
    bits: int = 8
    metadata: Metadata = field(default_factory=Metadata)
    notices: tuple[str, ...] = ()
    source: str = "the picture"
    origin: Origin = field(default_factory=Origin)

    @property
    def height(self) -> int:
        return self.color.shape[-2]

    @property
    def width(self) -> int:
        return self.color.shape[-1]


def from_planes(planes: Tensor, source: str, *, bits: int | None = None, **kept: Any) -> Picture:
    """A Picture of samples, which are copied.

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
    values = planes.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    if full_bits is None:
        low, high = (bound.item() for bound in torch.aminmax(values))
        if not (low >= -RANGE_TOLERANCE and high <= 1 + RANGE_TOLERANCE):  # NaN is neither
            raise ImageError(
                f"{source} holds floating-point values from {low:g} to {high:g}; they must lie in [0, 1]: "
                "rescale them, or pass 8 or 16 bits as uint8 or uint16."
            )
        values.clamp_(0, 1)
    else:
        values /= 2**full_bits - 1
    values = values[(None,) * (4 - values.ndim)]
    channels = values.shape[1]
    gray = channels < 3
    color = values[:, :1].repeat(1, 3, 1, 1) if gray else values[:, :3].contiguous()
    alpha = values[:, -1:].contiguous() if channels in (2, 4) else None
    return Picture(color, alpha, gray, bits or full_bits or 32, source=source, **kept)


def to_planes(picture: Picture, dtype: torch.dtype, rows: slice = slice(None)) -> Tensor:
    """(B, c, h, w) samples, integers rounded to nearest. Gray is the mean: three predictions of one value."""
    color = picture.color[:, :, rows]
    planes = color.mean(dim=1, keepdim=True) if picture.gray else color
    if picture.alpha is not None:
        planes = torch.cat([planes, picture.alpha[:, :, rows].to(planes)], dim=1)
    planes = planes.clamp(0, 1)
    if dtype in INTEGER_BITS:
        planes = planes.mul_(2 ** INTEGER_BITS[dtype] - 1).round_()
    return planes.to(dtype)


def from_samples(samples: np.ndarray, source: str, **kept: Any) -> Picture:
    """``from_planes`` of (h, w), (h, w, c) or (B, h, w, c), in any byte order and memory layout."""
    native = np.array(samples, dtype=samples.dtype.newbyteorder("="), order="C")
    planes = torch.from_numpy(native)
    return from_planes(planes if planes.ndim == 2 else planes.movedim(-1, -3), source, **kept)


def to_samples(picture: Picture, dtype: torch.dtype) -> np.ndarray:
    """(B, h, w, c) samples, made in bands to spare memory."""
    samples = None
    for rows in bands(picture.height, picture.width):
        band = to_planes(picture, dtype, rows).permute(0, 2, 3, 1).cpu().numpy()
        if samples is None:
            samples = np.empty((len(band), picture.height, *band.shape[2:]), band.dtype)
        samples[:, rows] = band
    assert samples is not None
    return samples


def bands(height: int, width: int) -> Iterator[slice]:
    """Row slices of about a million pixels."""
    step = max(1, 2**20 // max(1, width))
    for top in range(0, height, step):
        yield slice(top, min(top + step, height))
