"""The benchmarks are scripts that stand side by side: their folder is on the path."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[3] / "kernels" / "benchmarks"))
