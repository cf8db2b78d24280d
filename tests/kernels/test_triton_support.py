"""Saying why Triton cannot serve a call, and how tensors are handed to it; no kernel runs here."""

import pytest
import torch
from op_cases import QUERIES, random_map, stage_weights

from clit_kernels import AttentionCall, local_attention, triton_support
from clit_kernels.local_attention import why_not

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
