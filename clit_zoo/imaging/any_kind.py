"""Any kind of picture -> Picture -> the same kind."""

import os
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import ImageError
from .files import read
from .picture import Origin, Picture, from_planes, from_samples, to_rows, to_samples
from .pil import from_pil, to_pil

KINDS = (
    "a path, a PIL image, a NumPy array (h, w), (h, w, 1–4) or (B, h, w, 1–4), or a tensor (h, w), (1–4, h, "
    "w) or (B, 1–4, h, w); arrays and tensors of uint8, uint16 or floats in [0, 1]"
)


def decode(image: Any) -> Picture:
    """The Picture of anything that shows one.

    Args:
        image: a path, PIL image (of several frames the current one), NumPy array, tensor or Picture. Two
            channels are gray and alpha, four are colour and alpha. Integers fill their range; floats lie in
            [0, 1].

    Raises:
        ImageError: it is something else, or holds values it should not.
    """
    if isinstance(image, Picture):
        return replace(image, origin=Origin("picture"))
    if isinstance(image, str | os.PathLike):
        return read(image)
    if isinstance(image, Image.Image):
        return from_pil(image, "the PIL image")
    if isinstance(image, np.ndarray):
        return _from_ndarray(image)
    if isinstance(image, Tensor):
        return _from_tensor(image)
    raise ImageError(f"cannot enlarge a {type(image).__name__}: pass {KINDS}.")


def _check(values: np.ndarray | Tensor, channels: int) -> None:
    """Refuse values that are not dense, or of another shape; ``channels`` is their axis."""
    nested = isinstance(values, Tensor) and values.is_nested  # which has no shape
    shape = () if nested else tuple(values.shape)
    dense = not isinstance(values, Tensor) or (
        values.layout == torch.strided and not values.is_meta and not nested
    )
    if not dense or len(shape) not in (2, 3, 4) or (len(shape) > 2 and shape[channels] not in (1, 2, 3, 4)):
        kind = "" if dense else "values that are not dense, of "
        raise ImageError(f"cannot enlarge {kind}shape {shape}: pass {KINDS}.")


def encode(picture: Picture, stacklevel: int = 3) -> Any:
    """The kind of thing a picture was decoded from: a path gives a PIL image, the others themselves.

    Args:
        picture: from ``decode``, its samples replaced.
        stacklevel: of the warnings that say what a PIL image could not hold; 3 is the caller's caller.
    """
    origin = picture.origin
    if origin.kind == "ndarray":
        samples = to_samples(picture, picture.dtype)
        if origin.ndim == 2:
            return samples[0, :, :, 0]
        return samples if origin.ndim == 4 else samples[0]
    if origin.kind == "tensor":
        planes = to_rows(picture, picture.dtype).permute(0, 3, 1, 2)
        return planes.to(origin.device)[(0,) * (4 - origin.ndim)]
    if origin.kind == "picture":
        return picture
    image, notices = to_pil(picture)
    for notice in notices:
        warnings.warn(notice, stacklevel=stacklevel)
    return image


def _from_ndarray(array: np.ndarray) -> Picture:
    _check(array, channels=-1)
    try:
        dtype = torch.from_numpy(np.empty(0, array.dtype.newbyteorder("="))).dtype
    except TypeError as error:
        raise ImageError(f"the array cannot be enlarged: {error}") from error
    return from_samples(array.copy(), "the array", origin=Origin("ndarray", dtype=dtype, ndim=array.ndim))


def _from_tensor(tensor: Tensor) -> Picture:
    _check(tensor, channels=-3)
    origin = Origin("tensor", dtype=tensor.dtype, ndim=tensor.ndim, device=tensor.device)
    return from_planes(tensor.detach().clone(), "the tensor", origin=origin)
