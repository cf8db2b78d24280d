"""Bicubic resizing exactly as the super-resolution benchmarks do it: MATLAB's recipe and Pillow's."""

import math

import numpy as np

from ..errors import ImageError, ScaleError


def imresize(
    image: np.ndarray,
    scale: float | tuple[float, float] | None = None,
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

    Raises:
        ImageError: the array is no picture.
        ScaleError: the scale or size is not a positive one.
    """
    _check(image)
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
    _check(image)
    if image.dtype != np.uint8:
        raise ImageError(
            f"Pillow's bicubic takes 8-bit pictures here, not {image.dtype}: convert to uint8 first."
        )
    from PIL import Image

    _, (height, width) = _target(image.shape[:2], None, size)
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def _check(image: np.ndarray) -> None:
    if not isinstance(image, np.ndarray) or image.ndim not in (2, 3) or 0 in image.shape:
        shape = getattr(image, "shape", type(image).__name__)
        raise ImageError(f"Expected a picture of shape (H, W) or (H, W, C), got {shape}.")
    if image.dtype not in (np.uint8, np.float32, np.float64):
        raise ImageError(
            f"Expected a uint8, float32 or float64 picture, got {image.dtype}: convert it first."
        )


def _target(
    shape: tuple[int, ...], scale: float | tuple[float, float] | None, size: tuple[int, int] | None
) -> tuple[tuple[float, float], tuple[int, int]]:
    """The scale of each axis and the output size."""
    if (scale is None) == (size is None):
        raise ScaleError("Give either a scale or a size, one of the two.")
    if size is not None:
        height, width = (int(n) for n in size)
        if (height, width) != tuple(size) or min(height, width) < 1:
            raise ScaleError(f"Output size {tuple(size)} is not a pair of whole numbers ≥ 1.")
        return (height / shape[0], width / shape[1]), (height, width)
    pair = scale if isinstance(scale, tuple) else (scale, scale)
    rows, columns = (float(s) for s in pair)  # type: ignore[arg-type]
    if not all(math.isfinite(s) and s > 0 for s in (rows, columns)):
        raise ScaleError(f"Scale {scale} is not a positive number.")
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
