"""Whether Triton's interpreter is here, and works with the NumPy that is here."""

import importlib.metadata

import numpy as np
import pytest


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
