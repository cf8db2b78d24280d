"""Bicubic resizing exactly as the super-resolution benchmarks do it: MATLAB's recipe and Pillow's."""

import math

import numpy as np
from PIL import Image


def imresize(
    image: np.ndarray,
    scale: float | tuple[float, float] = 1.0,
    *,
    size: tuple[int, int] | None = None,
) -> np.ndarray:
    """Resize as MATLAB's ``imresize(…, 'bicubic')``, which made the low-resolution benchmark images.

    Two separable passes with Keys' cubic (a = −0.5), widened by the scale when shrinking (antialiasing), over
    the picture continued by mirroring with the edge pixel repeated. The axis that shrinks most goes first,
    rows before columns when both scales are equal, and 8-bit pictures are rounded after each pass.

    Args:
        image: ``(H, W)`` or ``(H, W, C)``. uint8 is rounded and clipped to 0…255 after each pass; float32 and
            float64 are neither rounded nor clipped, so that they can overshoot their range.
        scale: output size / input size, > 0, one number or ``(rows, columns)``. The output has
            ``ceil(scale · input)`` pixels.
        size: ``(H, W)`` of the output instead; the scale of each axis is then output / input.

    Returns:
        The resized picture, of the same dtype and number of dimensions.
    """
    scales, (height, width) = _target(image.shape[:2], scale, size)
    passes = sorted([(scales[0], 0, height), (scales[1], 1, width)])
    for axis_scale, axis, length in passes:
        image = _resize_axis(image, axis, length, axis_scale)
    return image


def pil_bicubic(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize uint8 ``(H, W)`` or ``(H, W, 3)`` to ``size`` = (H, W) with Pillow's antialiased bicubic.

    LIIF and the papers after it make their low-resolution images this way for scales above ×4. It differs
    from ``imresize`` by fixed-point weights, column-first passes and renormalised weights at the border
    instead of mirroring.
    """
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC))


def _target(
    shape: tuple[int, ...], scale: float | tuple[float, float], size: tuple[int, int] | None
) -> tuple[tuple[float, float], tuple[int, int]]:
    """The scale of each axis and the output size."""
    if size is not None:
        return (size[0] / shape[0], size[1] / shape[1]), size
    rows, columns = scale if isinstance(scale, tuple) else (scale, scale)
    # The margin keeps 1/3 of 255 at 85, whichever way the float 1/3 was rounded.
    return (rows, columns), (math.ceil(rows * shape[0] - 1e-9), math.ceil(columns * shape[1] - 1e-9))


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution kernel with a = −0.5, zero outside [−2, 2]."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


def _taps(n_in: int, n_out: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """For each output pixel the input pixels it reads and their weights, both ``(n_out, taps)``."""
    shrink = min(scale, 1.0)
    width = 4 / shrink
    centre = (np.arange(n_out) + 0.5) / scale - 0.5
    taps = math.ceil(width) + 2
    index = np.floor(centre - width / 2)[:, None].astype(np.int64) + np.arange(taps)
    weight = _cubic(shrink * (centre[:, None] - index))
    weight /= weight.sum(axis=1, keepdims=True)
    used = (weight != 0).any(axis=0)
    index, weight = index[:, used], weight[:, used]
    # Mirror with the edge repeated, … 1 0 0 1 … n−1 n−1 n−2 …: a period of 2n, however small the picture.
    index = np.mod(index, 2 * n_in)
    return np.minimum(index, 2 * n_in - 1 - index), weight


def _resize_axis(image: np.ndarray, axis: int, n_out: int, scale: float) -> np.ndarray:
    index, weight = _taps(image.shape[axis], n_out, scale)
    source = image.astype(np.float64)
    along = [1] * image.ndim
    along[axis] = n_out
    total = np.zeros((*image.shape[:axis], n_out, *image.shape[axis + 1 :]))
    # Taps are summed in ascending order in float64: with that, values that fall on .5 round as MATLAB's do.
    for tap in range(index.shape[1]):
        total += source.take(index[:, tap], axis=axis) * weight[:, tap].reshape(along)
    if image.dtype == np.uint8:
        return np.clip(np.floor(total + 0.5), 0, 255).astype(np.uint8)
    return total.astype(image.dtype)
