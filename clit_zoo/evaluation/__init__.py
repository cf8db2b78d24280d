"""Benchmark protocols, metrics, and tables beside published ones.

results = evaluate("bicubic", "Set5/HR", scales=(2, 3, 4))
print(render(results, "text"))
"""

from .evaluate import evaluate
from .methods import Method, bicubic, model_method
from .metrics import luminance, psnr, ssim
from .protocol import PROTOCOLS, Protocol, protocol_for
from .report import FORMATS, render
from .results import Mean, Results, Score, Skipped

__all__ = [
    "FORMATS",
    "PROTOCOLS",
    "Mean",
    "Method",
    "Protocol",
    "Results",
    "Score",
    "Skipped",
    "bicubic",
    "evaluate",
    "luminance",
    "model_method",
    "protocol_for",
    "psnr",
    "render",
    "ssim",
]
