"""Any kind of picture -> Picture -> the same kind, and the enlargement in between."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import ImageError
from ..geometry import Pixels
from .alpha import enlarge_alpha, fill_hidden
from .files import read
from .picture import (
    FULL_SCALE,
    Origin,
    Picture,
    check_values,
    from_samples,
    join_planes,
    split_planes,
    to_samples,
)
from .pil import from_pil, to_pil

KINDS = (
    "a path, a PIL image, a NumPy array (h, w), (h, w, 1–4) or (B, h, w, 1–4), or a tensor (h, w), (1–4, h, "
    "w) or (B, 1–4, h, w); arrays and tensors of uint8, uint16 or floats in [0, 1]"
)


def decode(image: Any) -> Picture:
    """Picture of a path, PIL image, ndarray, tensor or Picture; ImageError for anything else or unfit values.

    Two channels are gray and alpha, four are colour and alpha. Integers fill their range; floats lie in
    [0, 1]. Of a PIL image with several frames the current one is taken.
    """
    if isinstance(image, Picture):
        return replace(image, origin=Origin("picture"))
    if isinstance(image, str | os.PathLike):
        return read(image)
    if isinstance(image, Image.Image):
        try:
            return from_pil(image, "the PIL image")
        except ImageError:
            raise
        except Exception as error:  # a lazily opened, damaged file
            raise ImageError(f"the PIL image cannot be decoded ({error}); open an intact file.") from error
    if isinstance(image, np.ndarray):
        return _from_ndarray(image)
    if isinstance(image, Tensor):
        return _from_tensor(image)
    raise ImageError(f"cannot enlarge a {type(image).__name__}: pass {KINDS}.")


def encode(picture: Picture) -> Any:
    """The kind of thing `picture` was decoded from: a path gives a PIL image, the others themselves."""
    kind = picture.origin.kind
    if kind == "ndarray":
        samples = to_samples(picture, np.dtype(cast(Any, picture.origin.dtype)))
        if picture.origin.ndim == 2:
            return samples[0, :, :, 0]
        return samples if picture.origin.ndim == 4 else samples[0]
    if kind == "tensor":
        return _to_tensor(picture)
    if kind == "picture":
        return picture
    image, notices = to_pil(picture)
    _warn(notices, 5)
    return image


def enlarge(
    image: Any,
    target: Callable[[int, int], tuple[int, int]],
    run: Callable[[Tensor, tuple[int, int]], Tensor],
) -> Any:
    """`image` (any kind) enlarged to `target(h, w)` = (H, W), as the same kind.

    run: (B, 3, h, w) float32 in [0, 1] and (H, W) -> (B, 3, H, W), on any device. Notices become warnings.
    """
    picture = decode(image)
    _warn(picture.notices, 4)
    size = target(picture.height, picture.width)
    return encode(enlarge_picture(picture, size, run))


def enlarge_picture(
    picture: Picture, size: tuple[int, int], run: Callable[[Tensor, tuple[int, int]], Tensor]
) -> Picture:
    """`picture` at `size` (H, W): colours by `run`, alpha by bicubic, metadata kept."""
    color, alpha = picture.color, picture.alpha
    if alpha is not None:
        color = fill_hidden(color, alpha)
        alpha = enlarge_alpha(alpha, Pixels.whole(size))
    output = run(color, size)
    if tuple(output.shape) != (color.shape[0], 3, *size):
        raise RuntimeError(
            f"the model returned {tuple(output.shape)} instead of {(color.shape[0], 3, *size)}"
        )
    return replace(picture, color=output, alpha=alpha)


def _from_ndarray(array: np.ndarray) -> Picture:
    source = "the array"
    if array.dtype.kind != "f" and np.dtype(array.dtype.type) not in FULL_SCALE:
        raise ImageError(
            f"{source} is of dtype {array.dtype}; pass uint8 or uint16 (full range) or floats in [0, 1]."
        )
    if array.ndim not in (2, 3, 4) or (array.ndim > 2 and array.shape[-1] not in (1, 2, 3, 4)):
        raise ImageError(
            f"{source} has shape {array.shape}; arrays carry 1 to 4 channels last: (h, w), (h, w, channels) "
            "or (B, h, w, channels). Move them with numpy.moveaxis, or pass a tensor: channels first."
        )
    samples = array[:, :, None] if array.ndim == 2 else array
    color, alpha, gray = from_samples(samples, source)
    bits = 32 if array.dtype.kind == "f" else 8 * array.dtype.itemsize
    dtype = array.dtype.newbyteorder("=")
    origin = Origin("ndarray", dtype=dtype, ndim=array.ndim)
    return Picture(color, alpha, gray, bits, source=source, origin=origin)


_INTEGER_TENSORS = {torch.uint8: 8, torch.uint16: 16}


def _from_tensor(tensor: Tensor) -> Picture:
    source = "the tensor"
    tensor = tensor.detach()
    if tensor.is_meta:
        raise ImageError(f"{source} is on the device meta and holds no values; pass one on cpu or cuda.")
    if tensor.layout != torch.strided or tensor.is_nested:
        kind = "nested" if tensor.is_nested else f"of layout {tensor.layout}"
        remedy = "stack pictures of one size" if tensor.is_nested else "call its to_dense() first"
        raise ImageError(f"{source} is {kind}, and only dense ones can be enlarged; {remedy}.")
    if not tensor.is_floating_point() and tensor.dtype not in _INTEGER_TENSORS:
        raise ImageError(
            f"{source} is of dtype {tensor.dtype}; pass uint8 or uint16 (full range) or floats in [0, 1]."
        )
    if tensor.ndim not in (2, 3, 4) or (tensor.ndim > 2 and tensor.shape[-3] not in (1, 2, 3, 4)):
        raise ImageError(
            f"{source} has shape {tuple(tensor.shape)}; tensors carry 1 to 4 channels first: (channels, h, "
            "w) or (B, channels, h, w). Move them with permute, or pass a NumPy array: channels last."
        )
    if tensor.numel() == 0:
        raise ImageError(f"{source} has no pixels: its shape is {tuple(tensor.shape)}.")
    planes = tensor.to(torch.float32, copy=True)
    bits = _INTEGER_TENSORS.get(tensor.dtype, 32)
    if bits == 32:
        low, high = torch.aminmax(planes)
        check_values(low.item(), high.item(), source)
        planes.clamp_(0, 1)
    else:
        planes /= 2**bits - 1
    origin = Origin("tensor", dtype=tensor.dtype, ndim=tensor.ndim, device=tensor.device)
    planes = planes[(None,) * (4 - planes.ndim)]
    return Picture(*split_planes(planes), bits, source=source, origin=origin)


def _to_tensor(picture: Picture) -> Tensor:
    origin = picture.origin
    assert isinstance(origin.dtype, torch.dtype)
    planes = join_planes(picture.color, picture.alpha, picture.gray).clamp(0, 1)
    if origin.dtype in _INTEGER_TENSORS:
        planes = planes.mul_(2 ** _INTEGER_TENSORS[origin.dtype] - 1).round_()
    planes = planes.to(device=origin.device, dtype=origin.dtype)
    for _ in range(4 - origin.ndim):
        planes = planes[0]
    return planes


def _warn(notices: list[str] | tuple[str, ...], stacklevel: int) -> None:
    """Warn where ``SuperResolver.upscale`` was called."""
    for notice in notices:
        warnings.warn(notice, stacklevel=stacklevel)
