"""A picture as the models see it, with what is needed to hand back the kind that came in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..errors import ImageError

# Integer samples of these NumPy types fill their whole range; floats are read as [0, 1].
FULL_SCALE = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}

# What rounding in somebody's resize or colour conversion leaves outside [0, 1]; clamped. More is a mistake.
RANGE_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Origin:
    """The kind of thing a picture was made from, so that `encode` returns the same kind."""

    kind: str = "path"  # "path", "pil", "ndarray", "tensor" or "picture"
    dtype: object = None  # numpy.dtype or torch.dtype of an array
    ndim: int = 0  # 2: no channel axis; 3: one picture; 4: a batch
    device: torch.device | None = None  # of a tensor
    mode: str = ""  # of a PIL image


@dataclass(frozen=True)
class Picture:
    """Colour and alpha as float32 tensors in [0, 1], plus everything that must survive enlargement.

    color: (B, 3, h, w), not premultiplied. A gray picture carries its one channel three times.
    alpha: (B, 1, h, w) or None.
    bits:  8 or 16 for integers, 32 for floating point: what the samples were and will be.
    """

    color: Tensor
    alpha: Tensor | None = None
    gray: bool = False
    bits: int = 8
    icc: bytes | None = None
    exif: bytes | None = None  # as Pillow's Exif.tobytes() writes it; the orientation is applied already
    dpi: tuple[float, float] | None = None
    notices: tuple[str, ...] = ()  # what a person should know: frames left out, bits lost, colours converted
    source: str = "the picture"
    origin: Origin = field(default_factory=Origin)

    @property
    def height(self) -> int:
        return self.color.shape[-2]

    @property
    def width(self) -> int:
        return self.color.shape[-1]

    @property
    def channels(self) -> int:
        """Samples per pixel on the outside: 1 gray, 2 gray + alpha, 3 colour, 4 colour + alpha."""
        return (1 if self.gray else 3) + (self.alpha is not None)


def check_values(low: float, high: float, source: str) -> None:
    """Refuse floating-point samples that are not finite or lie outside [0, 1]."""
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ImageError(f"{source} holds NaN or infinite values; replace them by numbers in [0, 1].")
    if low < -RANGE_TOLERANCE or high > 1 + RANGE_TOLERANCE:
        if low >= 0 and 1 < high <= 255:
            remedy = "divide by 255, or convert to 8-bit integers (uint8)"
        elif low >= 0 and high <= 65535:
            remedy = "divide by 65535, or convert to 16-bit integers (uint16)"
        elif low >= -1 - RANGE_TOLERANCE and high <= 1 + RANGE_TOLERANCE:
            remedy = "map [-1, 1] to [0, 1] with x / 2 + 0.5"
        else:
            remedy = "scale or clip them"
        raise ImageError(
            f"{source} holds floating-point values from {low:g} to {high:g}; they must lie in [0, 1]: "
            f"{remedy}."
        )


def from_samples(samples: np.ndarray, source: str) -> tuple[Tensor, Tensor | None, bool]:
    """(h, w, c) or (B, h, w, c) samples of uint8, uint16 or float, c = 1 to 4 -> color, alpha, gray."""
    if 0 in samples.shape:
        raise ImageError(f"{source} has no pixels: its shape is {tuple(samples.shape)}.")
    if samples.dtype.kind == "f":
        check_values(float(samples.min()), float(samples.max()), source)
    # Always a fresh, native-endian copy: the caller's array may be read-only, reversed or shared.
    planes = torch.from_numpy(np.array(samples, dtype=np.float32, order="C"))
    if samples.dtype.kind == "f":
        planes.clamp_(0, 1)
    else:
        planes /= FULL_SCALE[np.dtype(samples.dtype.type)]
    if planes.ndim == 3:
        planes = planes[None]
    return split_planes(planes.permute(0, 3, 1, 2))


def split_planes(planes: Tensor) -> tuple[Tensor, Tensor | None, bool]:
    """(B, 1 | 2 | 3 | 4, h, w) -> color (B, 3, h, w), alpha (B, 1, h, w) or None, gray."""
    channels = planes.shape[1]
    gray = channels < 3
    color = planes[:, :1].repeat(1, 3, 1, 1) if gray else planes[:, :3].contiguous()
    alpha = planes[:, -1:].contiguous() if channels in (2, 4) else None
    return color, alpha, gray


def join_planes(color: Tensor, alpha: Tensor | None, gray: bool) -> Tensor:
    """The inverse of `split_planes`. Gray is the mean: three predictions of one value, weighted alike."""
    planes = color.mean(dim=1, keepdim=True) if gray else color
    return planes if alpha is None else torch.cat([planes, alpha.to(planes)], dim=1)


def to_samples(picture: Picture, dtype: np.dtype | type) -> np.ndarray:
    """(B, h, w, c) samples of `dtype`, integers rounded to nearest; made band by band to spare memory."""
    dtype = np.dtype(dtype)
    batch, _, height, width = picture.color.shape
    samples = np.empty((batch, height, width, picture.channels), dtype)
    for rows in bands(height, width):
        alpha = None if picture.alpha is None else picture.alpha[:, :, rows]
        planes = join_planes(picture.color[:, :, rows], alpha, picture.gray).clamp(0, 1)
        if dtype in FULL_SCALE:
            planes = planes.mul_(FULL_SCALE[dtype]).round_()
        samples[:, rows] = planes.permute(0, 2, 3, 1).cpu().numpy()
    return samples


def bands(height: int, width: int) -> Iterator[slice]:
    """Row slices of about a million pixels."""
    step = max(1, 2**20 // max(1, width))
    for top in range(0, height, step):
        yield slice(top, min(top + step, height))
