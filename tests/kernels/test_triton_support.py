"""Choosing tiles, and saying why Triton cannot serve a call; no kernel runs here."""

import json
import re

import pytest
import torch
from op_cases import QUERIES, random_map, stage_weights

from clit_kernels import AttentionCall, local_attention, tile_table, triton_support
from clit_kernels.coordinate_decode.triton import tiles as decode_tiles
from clit_kernels.local_attention import why_not
from clit_kernels.local_attention.triton.tiles import constants, tile
from clit_kernels.tile_table import Target

needs_triton = pytest.mark.skipif(not triton_support.has_triton(), reason="Triton is not installed")


def arguments(dtype=torch.float32, channels=8, radius=1):
    size, queries = QUERIES["grid x2.5"]
    stage = stage_weights(channels, 2, 1)
    q, k = (random_map(channels, size, seed, dtype) for seed in (1, 2))
    return AttentionCall(q, k, queries, stage.proj_weight, stage.proj_bias, 2, radius)


@needs_triton
def test_tensors_on_a_cpu_are_refused_with_the_remedy():
    message = r"its tensors are on cpu, and Triton kernels run on CUDA and ROCm devices; .*TRITON_INTERPRET=1"
    with pytest.raises(ValueError, match=message):
        local_attention(arguments(), backend="triton")


def test_without_triton_there_is_a_sentence_and_auto_falls_back(monkeypatch):
    monkeypatch.setattr(triton_support, "has_triton", lambda: False)
    with pytest.raises(ValueError, match="Triton is not installed here; `pip install triton`"):
        local_attention(arguments(), backend="triton")
    assert local_attention(arguments()).isfinite().all()


@pytest.fixture
def interpreted(monkeypatch):
    """As if kernels could run on the CPU."""
    monkeypatch.setattr(triton_support, "INTERPRETED", True)
    monkeypatch.setattr(triton_support, "has_triton", lambda: True)


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, None),
        ({"dtype": torch.float64}, "a map is torch.float64, and the kernels take float32, float16, bfloat16"),
        ({"channels": 258}, "a head has 129 channels, and the kernels take up to 128"),
        ({"radius": 5}, "the window's radius is 5, and the kernels take up to 4"),
    ],
)
def test_bounds(changes, sentence):
    assert why_not("triton", arguments(**changes)) == sentence


@pytest.mark.usefixtures("interpreted")
def test_mixed_tensors():
    call = arguments()
    assert why_not("triton", call._replace(k=call.k.half())) == (
        "q is torch.float32 and k is torch.float16; give both one dtype"
    )
    many = call.q[:1].expand(70_000, *call.q.shape[1:])
    found = why_not("triton", call._replace(q=many, k=many))
    assert found == "the batch is 70000, and the kernels take up to 65535; split it"
    found = why_not("triton", call._replace(proj_weight=call.proj_weight.to("meta")))
    assert "different devices (cpu, meta)" in found


@pytest.mark.parametrize(
    ("arch", "dtype", "width", "fit"),
    [
        *(
            (arch, dtype, 32, True)
            for arch in ("sm_80", "sm_89", "sm_90", "gfx942")
            for dtype in ("fp32", "bf16")
        ),
        ("sm_90", "bf16", 64, True),
        ("sm_80", "bf16", 64, True),  # with a smaller tile
        ("sm_89", "fp32", 64, False),
        ("sm_120", "fp32", 64, False),
        ("sm_75", "fp32", 32, True),
        ("gfx942", "fp32", 64, True),
        (
            "sm_90",
            "bf16",
            128,
            True,
        ),  # 128 channels fit with a smaller tile in this kernel, not in the others
        ("sm_90", "fp32", 128, False),
    ],
)
def test_tiles_that_fit_the_chip(arch, dtype, width, fit):
    """As compiled; where none fits, the direct order is taken."""
    shape = decode_tiles.constants(8 * width, 8, 3, 256)
    target = Target(arch, dtype)
    tile = decode_tiles.tile("hoisted", target, shape, 16)
    assert decode_tiles.hoisted_fits(tile, target, shape) == fit


def test_tf32_only_where_torch_was_asked_for_it():
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    try:
        for asked, given in (("none", "ieee"), ("ieee", "ieee"), ("tf32", "tf32")):
            matmul.fp32_precision = asked
            assert triton_support.dot_precision(torch.float32) == ("ieee" if torch.version.hip else given)
            assert triton_support.dot_precision(torch.bfloat16) == "ieee"
    finally:
        matmul.fp32_precision = before


def test_maps_are_read_where_they_lie():
    whole = torch.randn(2, 12, 3, 5).contiguous(memory_format=torch.channels_last)
    part = whole.chunk(3, 1)[1]
    feature, strides = triton_support.channels_last(part)
    assert feature.data_ptr() == part.data_ptr() and strides == (180, 60, 12)
    feature, strides = triton_support.channels_last(part.contiguous())
    assert feature.stride(1) == 1 and strides == (60, 20, 4) and torch.equal(feature, part)


def test_the_first_row_that_agrees_gives_the_tile(tmp_path, monkeypatch):
    rows = [
        {"kernel": "op/a", "when": {"dtype": "bf16", "side": 7}, "tile": {"SLOTS": 32, "num_warps": 8}},
        {"kernel": "op/a", "when": {"dtype": "bf16"}, "tile": {"SLOTS": 64}},
        {"kernel": "op/b", "when": {}, "tile": {"SLOTS": 1}},
    ]
    (tmp_path / "sm_90.json").write_text(json.dumps(rows))
    monkeypatch.setattr(tile_table, "FOLDER", tmp_path)
    tile_table.rows.cache_clear()
    default = {"SLOTS": 16, "num_warps": 4, "num_stages": 1}
    try:
        hopper = Target("sm_90", "bf16")
        assert hopper.tile("op/a", default, side=7) == default | rows[0]["tile"]
        assert hopper.tile("op/a", default, side=3) == default | rows[1]["tile"]
        assert Target("sm_90", "fp32").tile("op/a", default, side=7) == default
        assert Target("sm_80", "bf16").tile("op/a", default, side=7) == default
        asked = hopper._replace(asked={"op/a": {"SLOTS": 2}})
        assert asked.tile("op/a", default, side=7) == default | {"SLOTS": 2}
        assert asked.tile("op/b", default) == default | {"SLOTS": 1}
    finally:
        tile_table.rows.cache_clear()


@pytest.mark.parametrize("path", sorted(tile_table.FOLDER.glob("*.json")), ids=lambda p: p.name)
def test_shipped_tables_are_complete_rows(path):
    assert re.fullmatch(r"sm_\d+|gfx\w+", path.stem)
    for row in json.loads(path.read_text()):
        assert set(row) == {"kernel", "when", "tile"} and row["kernel"].count("/") == 1
        assert row["tile"] and all(isinstance(n, int) and n > 0 for n in row["tile"].values())


def test_default_tiles_are_powers_of_two_for_every_shape():
    kernels = ("forward_grid", "forward_any", "backward_queries", "backward_map", "backward_table")
    for channels, heads, radius in ((256, 8, 3), (64, 4, 1), (180, 6, 3), (5, 1, 0), (512, 4, 4)):
        shape = constants(channels, heads, radius)
        assert shape["TAPS"] >= (2 * radius + 1) ** 2 and shape["WIDTH_BLOCK"] >= channels // heads
        for name in kernels:
            for slots in (1, 2, 9, 300):
                for dtype in ("fp32", "bf16"):
                    chosen = tile(name, Target("sm_90", dtype), shape, slots)
                    assert all(n > 0 and n & (n - 1) == 0 for n in chosen.values()), (name, chosen)
