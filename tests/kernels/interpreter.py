"""Whether Triton's interpreter is here, works with the NumPy that is here, and is at work."""

import importlib.metadata
import os

import numpy as np
import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

KERNELS_RUN = INTERPRETED or torch.cuda.is_available()

BACKENDS = [*([] if INTERPRETED else ["auto", "torch", "reference"]), *(["triton"] if KERNELS_RUN else [])]
"""What tests that say the same of every backend go through: a process that interprets has "triton" only."""

DEVICE = torch.device("cuda" if KERNELS_RUN and not INTERPRETED else "cpu")


def why_not() -> str | None:
    """Why kernels cannot be interpreted here, or None."""
    try:
        version = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        return "Triton is not installed"
    if tuple(map(int, version.split(".")[:2])) < (3, 7) and np.lib.NumpyVersion(np.__version__) >= "2.4.0":
        return "the interpreter of Triton 3.6 fails with NumPy 2.4"
    return None


needs_interpreter = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
