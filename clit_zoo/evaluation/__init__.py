"""Benchmark protocols, metrics, and tables beside the paper's.

results = evaluate("bicubic", "Set5/HR", scales=(2, 3, 4))
print(render(results, "text"))
"""

from .evaluate import evaluate
from .metrics import luminance, psnr, ssim
from .protocol import PROTOCOLS, Protocol, protocol_for
from .report import FORMATS, render
from .results import Mean, Results, Score, Skipped
from .runners import Runner, bicubic, model_fingerprint, model_runner

__all__ = [
    "FORMATS",
    "PROTOCOLS",
    "Mean",
    "Protocol",
    "Results",
    "Runner",
    "Score",
    "Skipped",
    "bicubic",
    "evaluate",
    "luminance",
    "model_fingerprint",
    "model_runner",
    "protocol_for",
    "psnr",
    "render",
    "ssim",
]
