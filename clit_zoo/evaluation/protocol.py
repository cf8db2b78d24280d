"""What is measured, and where: the two protocols of the super-resolution tables."""

import math
from dataclasses import dataclass

import numpy as np

from ..zoo.schema import require
from .metrics import as_rgb, gray, luminance, psnr, ssim
from .published import dataset_name


@dataclass(frozen=True)
class Protocol:
    """How an enlarged picture is scored against its original.

    ``quantise`` rounds the output to 8 bits first, as a saved picture is and as the MATLAB and EDSR scripts
    behind the benchmark figures do; with it bicubic gives all of its published figures to the last digit
    (33.67 dB on Set5 at ×2; 33.68 without). LIIF's script and those made from it, CLIT's among them, score
    the unrounded output, which reads some hundredths of a dB higher for good models.

    ``gray_as_rgb`` scores a gray original (``bridge`` of Set14) as three equal channels, whose studio-range
    luminance spans 219 levels instead of 255: PSNR of that picture rises by 1.32 dB and Set14's mean by 0.09.
    The LIIF family does so; the MATLAB scripts score the gray values themselves, which is the default.
    """

    name: str
    luminance_only: bool
    extra_shave: int
    quantise: bool = True
    gray_as_rgb: bool = False

    def shave(self, scale: float) -> int:
        """Pixels left out along every border."""
        return math.ceil(scale) + self.extra_shave

    def leaves_some(self, size: tuple[int, int], scale: float) -> bool:
        """Whether anything of a picture ``(H, W)`` lies inside the borders."""
        return min(size) > 2 * self.shave(scale)

    def describe(self) -> str:
        what = "luminance" if self.luminance_only else "RGB"
        shave = f"shave = scale + {self.extra_shave}" if self.extra_shave else "shave = scale"
        parts = [f"{what}, {shave}"]
        if not self.quantise:
            parts.append("output not rounded to 8 bits")
        if self.gray_as_rgb:
            parts.append("gray as RGB")
        return ", ".join(parts)

    def score(
        self, output: np.ndarray, reference: np.ndarray, scale: float, *, with_ssim: bool = True
    ) -> tuple[float, float | None]:
        """PSNR in dB and SSIM of ``output`` (H, W, 3), uint8 or float in [0, 1], against uint8 ``reference``.

        A gray reference is ``(H, W)``. SSIM is None where it is not wanted or under 11 pixels are left.
        """
        values = self._to_levels(output)
        truth = reference.astype(np.float64)
        if self.gray_as_rgb:
            truth = as_rgb(truth)
        if truth.ndim == 2:
            values = gray(values)
        elif self.luminance_only:
            values, truth = luminance(values), luminance(truth)
        border = self.shave(scale)
        inside = (slice(border, truth.shape[0] - border), slice(border, truth.shape[1] - border))
        values, truth = values[inside], truth[inside]
        return psnr(values, truth), ssim(values, truth) if with_ssim else None

    def _to_levels(self, output: np.ndarray) -> np.ndarray:
        """The output as float64 in 0…255."""
        if output.dtype == np.uint8:
            return output.astype(np.float64)
        levels = np.clip(output.astype(np.float64), 0, 1) * 255
        return np.floor(levels + 0.5) if self.quantise else levels


PROTOCOLS = {
    "benchmark": Protocol("benchmark", luminance_only=True, extra_shave=0),  # Set5, Set14, B100, Urban100
    "div2k": Protocol("div2k", luminance_only=False, extra_shave=6),  # DIV2K validation, as EDSR and LIIF
}


def protocol_for(name: str | Protocol, dataset: str) -> Protocol:
    """A protocol by name; "auto" takes ``div2k`` for a dataset called so and ``benchmark`` for any other."""
    if isinstance(name, Protocol):
        return name
    if name == "auto":
        name = "div2k" if dataset_name(dataset) == "DIV2K" else "benchmark"
    require(name in PROTOCOLS, "protocol", name, f"one of auto, {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
