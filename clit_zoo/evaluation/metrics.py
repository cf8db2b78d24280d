"""PSNR and SSIM of 8-bit pictures, and the luminance the benchmarks measure them on."""

import math

import numpy as np

# Luminance of ITU-R BT.601 in the studio range, as MATLAB's rgb2ycbcr has it, for RGB from 0 to 255.
LUMA = np.array([65.738, 129.057, 25.064]) / 256
LUMA_OFFSET = 16.0


def luminance(rgb: np.ndarray) -> np.ndarray:
    """Y of RGB ``(H, W, 3)`` in 0…255, as float64 ``(H, W)`` in 16…235, not rounded."""
    return rgb @ LUMA + LUMA_OFFSET


def gray(rgb: np.ndarray) -> np.ndarray:
    """RGB ``(H, W, 3)`` as the gray ``(H, W)`` it shows, 0…255: luminance weights that sum to one."""
    return rgb @ (LUMA / LUMA.sum())


def as_rgb(pixels: np.ndarray) -> np.ndarray:
    """A gray ``(H, W)`` as three equal channels; a colour picture as it is."""
    return np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels


def psnr(image: np.ndarray, reference: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of two arrays in 0…255; infinite where they agree."""
    error = float(np.mean((image.astype(np.float64) - reference) ** 2))
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


_WINDOW = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
_WINDOW /= _WINDOW.sum()


def _blur(plane: np.ndarray) -> np.ndarray:
    """Gaussian mean over 11×11 pixels, σ = 1.5, only where the window lies inside."""
    for axis in (0, 1):
        n = plane.shape[axis] - 10
        shifts = (plane[i : i + n] if axis == 0 else plane[:, i : i + n] for i in range(11))
        blurred = np.zeros_like(plane[:n] if axis == 0 else plane[:, :n])
        for weight, shifted in zip(_WINDOW, shifts):
            blurred += weight * shifted
        plane = blurred
    return plane


def ssim(image: np.ndarray, reference: np.ndarray) -> float | None:
    """Structural similarity of two ``(H, W)`` or ``(H, W, C)`` arrays in 0…255, channels averaged.

    Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", 2004: 11×11
    Gaussian window with σ = 1.5, K₁ = 0.01, K₂ = 0.03, valid region. None where a side is under 11 pixels.

    Published SSIM differs in the fourth digit by how luminance was rounded: bicubic on Set5 at ×2 is 0.9303
    here and 0.9299 in many papers.
    """
    if min(image.shape[:2]) < 11:
        return None
    if image.ndim == 3:
        planes = [ssim(image[..., c], reference[..., c]) for c in range(image.shape[2])]
        return float(np.mean(planes))  # type: ignore[arg-type]
    x, y = image.astype(np.float64), reference.astype(np.float64)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_x, mean_y = _blur(x), _blur(y)
    var_x = _blur(x * x) - mean_x**2
    var_y = _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    score = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    score /= (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    return float(score.mean())
