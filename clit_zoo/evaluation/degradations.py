"""What happens to pictures before somebody wants them larger: compression, noise, blur.

Each function takes and returns 8-bit pictures ``(H, W, 3)`` or ``(H, W)`` and moves nothing: a degraded pixel
shows what the one at its place showed.
"""

import io
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from ..zoo.schema import require


def jpeg(
    pixels: np.ndarray, quality: int, *, subsampled: bool = True, shift: tuple[int, int] = (0, 0)
) -> np.ndarray:
    """Through a JPEG file and back.

    Args:
        pixels: the picture.
        quality: libjpeg's, from 1 to 100.
        subsampled: colour at half resolution (4:2:0) instead of the whole (4:4:4).
        shift: rows and columns by which the 8x8 grid begins before the picture, as after cropping; the rows
            and columns there mirror the picture's.
    """
    return _through(pixels, shift, "JPEG", quality=quality, subsampling=2 if subsampled else 0)


def webp(pixels: np.ndarray, quality: int, *, shift: tuple[int, int] = (0, 0)) -> np.ndarray:
    """Through a lossy WebP file and back; as ``jpeg``."""
    return _through(pixels, shift, "WEBP", quality=quality, method=2)


def gaussian_noise(pixels: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Independent normal noise of ``sigma`` levels on every value."""
    return _rounded(pixels + sigma * rng.standard_normal(pixels.shape, dtype=np.float32))


def poisson_noise(pixels: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Shot noise: its variance grows with the value, and is ``sigma`` squared at 128 levels."""
    per_level = 128 / sigma**2
    return _rounded(rng.poisson(pixels * per_level) / per_level)


def gaussian_blur(pixels: np.ndarray, sigma: float) -> np.ndarray:
    """Isotropic blur of ``sigma`` pixels."""
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(sigma)))


def motion_blur(pixels: np.ndarray, length: float, angle: float) -> np.ndarray:
    """Blur along a line of ``length`` pixels through each pixel, ``angle`` in radians."""
    along = np.linspace(-length / 2, length / 2, int(np.ceil(length)) + 1)
    offsets = [(round(t * np.sin(angle)), round(t * np.cos(angle))) for t in along]
    reach = int(np.ceil(length / 2))
    around = ((reach, reach), (reach, reach), (0, 0))[: pixels.ndim]
    wide = np.pad(pixels, around, mode="edge")
    height, width = pixels.shape[:2]
    total = np.zeros(pixels.shape, np.float32)
    for y, x in offsets:
        total += wide[reach + y : reach + y + height, reach + x : reach + x + width]
    return _rounded(total / len(offsets))


def camera(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What a plain camera leaves, all of it mild: blur of 0.5 pixels, shot noise of 4 levels, JPEG 85."""
    return jpeg(poisson_noise(gaussian_blur(pixels, 0.5), 4, rng), 85)


@dataclass(frozen=True)
class Degradation:
    """One degradation.

    Attributes:
        word: that asks for it, see ``degradation``.
        apply: the picture and a generator of random numbers -> the degraded picture.
    """

    word: str
    apply: Callable[[np.ndarray, np.random.Generator], np.ndarray]

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """The degraded picture; the noise depends on the picture alone."""
        seed = zlib.crc32(np.ascontiguousarray(pixels).tobytes())
        return self.apply(pixels, np.random.default_rng(seed))


_NUMBERS = {"jpeg": (1, 100), "webp": (1, 100), "noise": (0, 100), "blur": (0, 20)}


def degradation(word: str) -> Degradation:
    """The degradation that a word asks for.

    Args:
        word: "jpeg:QUALITY" (4:2:0), "webp:QUALITY", "noise:SIGMA" in levels of 255, "blur:SIGMA" in
            low-resolution pixels, or "camera".

    Raises:
        ConfigError: it is none of these, or the number is out of range.
    """
    if word == "camera":
        return Degradation(word, camera)
    found = re.fullmatch(r"(jpeg|webp):(\d+)|(noise|blur):(\d*\.?\d+)", word, re.ASCII)
    name, tail = filter(None, found.groups()) if found else ("", "0")
    number, (low, high) = float(tail), _NUMBERS.get(name, (1, 0))
    known = ", ".join(f"{key}:N with N from {low} to {high}" for key, (low, high) in _NUMBERS.items())
    require(low <= number <= high, "degradation", word, f"one of {known}; or camera")
    if name == "jpeg":
        return Degradation(word, lambda pixels, rng: jpeg(pixels, int(number)))
    if name == "webp":
        return Degradation(word, lambda pixels, rng: webp(pixels, int(number)))
    if name == "noise":
        return Degradation(word, lambda pixels, rng: gaussian_noise(pixels, number, rng))
    return Degradation(word, lambda pixels, rng: gaussian_blur(pixels, number))


def _through(pixels: np.ndarray, shift: tuple[int, int], kind: str, **options: int) -> np.ndarray:
    """A file's worth of ``kind`` and back, the picture lying ``shift`` rows and columns inside it."""
    top, left = shift
    around = ((top, 0), (left, 0), (0, 0))[: pixels.ndim]
    file = io.BytesIO()
    Image.fromarray(np.pad(pixels, around, mode="symmetric")).save(file, kind, **options)
    with Image.open(file) as image:
        decoded = np.asarray(image.convert("L" if pixels.ndim == 2 else "RGB"))
    return decoded[top:, left:]


def _rounded(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
