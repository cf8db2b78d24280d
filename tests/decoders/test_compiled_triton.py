"""A training step of a whole model on the kernels: autocast and torch.utils.checkpoint."""

import pytest
import torch
from step_cases import check_autocast, check_checkpoint

from clit_kernels import decode_stage
from clit_kernels.triton_support import INTERPRETED
from clit_zoo.decoders import compiled as ops

TILES = {
    "local_attention/forward_any": {"QUERIES": 32},
    "local_attention/backward_queries": {"QUERIES": 32},
    "local_attention/backward_map": {"PIXELS": 64},
    "local_attention/backward_table": {"ENTRIES": 32},
    "coordinate_decode/direct": {"QUERIES": 64, "COLUMNS": 16},
    "coordinate_decode/mlp": {"ROWS": 64, "STEP": 16},
    "coordinate_decode/grad_first": {"QUERIES": 64, "COLUMNS": 16},
    "coordinate_decode/grad_queries": {"QUERIES": 64},
    "coordinate_decode/grad_raster": {"PIXELS": 64},
}
"""Few programs, which is what the interpreter is slow at."""


pytestmark = pytest.mark.skipif(
    not INTERPRETED, reason="for the interpreter: tests/kernels/test_interpreted.py"
)


@pytest.fixture(autouse=True)
def few_programs(monkeypatch):
    monkeypatch.setattr(
        ops, "decode_stage_eager", lambda call, *, backend: decode_stage(call, backend=backend, tiles=TILES)
    )


@pytest.mark.parametrize(
    "kind, dtype",
    [
        ("points", torch.bfloat16),
        ("raster", torch.float16),
        pytest.param("points", torch.float16, marks=pytest.mark.slow),
        pytest.param("blocks", torch.float16, marks=pytest.mark.slow),
        pytest.param("grid", torch.float16, marks=pytest.mark.slow),
    ],
)
def test_autocast(kind, dtype):
    check_autocast("triton", kind, dtype)


@pytest.mark.parametrize(
    "kind, where, reentrant, autocast",
    [
        ("raster", "stage", True, None),
        pytest.param("points", "decoder", False, None, marks=pytest.mark.slow),
        pytest.param("points", "stage", False, torch.float16, marks=pytest.mark.slow),
        pytest.param("raster", "decoder", True, torch.float16, marks=pytest.mark.slow),
        pytest.param("grid", "stage", True, None, marks=pytest.mark.slow),
    ],
)
def test_checkpoint(kind, where, reentrant, autocast, monkeypatch):
    check_checkpoint("triton", kind, where, reentrant, autocast, monkeypatch)
