"""Which order the first layer is summed in: by count, or as asked."""

import pytest
from misfits import arguments, call

from clit_kernels.orders import takes_hoisted


def by_count(backend, pixels, slots, count, walks=1):
    sizes = {"pixels": pixels, "slots": slots, "count": count, "walks": walks}
    return takes_hoisted(None, backend, **sizes, channels=256, heads=8)


def test_torch_hoists_from_three_queries_per_pixel():
    assert not by_count("torch", pixels=100, slots=1, count=100)
    assert not by_count("torch", pixels=100, slots=2, count=200)
    assert by_count("torch", pixels=100, slots=3, count=300)
    assert by_count("torch", pixels=48 * 48, slots=16, count=192 * 192)
    # x1.01: one pixel in a hundred has two rows, yet all have room for them
    assert not by_count("torch", pixels=100 * 100, slots=4, count=101 * 101)


def test_triton_counts_a_product_for_each_walk():
    assert not by_count("triton", pixels=1000, slots=4, count=1000)
    assert not by_count("triton", pixels=1000, slots=4, count=4000)
    assert by_count("triton", pixels=1000, slots=16, count=16000)
    assert by_count("triton", pixels=1000, slots=29 * 32, count=900000, walks=29)
    assert not by_count("triton", pixels=1000, slots=29 * 32, count=900000, walks=1000)
    assert not by_count("triton", pixels=10000, slots=4, count=10201)


def test_an_order_that_is_asked_for_is_taken():
    for order in ("hoisted", "direct"):
        for slots in (1, 100):
            found = takes_hoisted(order, "torch", pixels=1, slots=slots, count=slots, channels=256, heads=8)
            assert found == (order == "hoisted")


@pytest.mark.parametrize("op", ["coordinate_decode", "decode_stage"])
@pytest.mark.parametrize(
    ("kind", "backend", "sentence"),
    [
        ("points", "auto", "a list of points is summed in the direct order"),
        ("points", "torch", "a list of points is summed in the direct order"),
        ("grid", "reference", "the formula is summed in the direct order"),
        ("raster", "triton", "the kernels sum a raster in the direct order"),
    ],
)
def test_an_order_that_cannot_be_taken(op, kind, backend, sentence):
    with pytest.raises(ValueError, match=f"{op}: backend '{backend}' cannot serve this call: {sentence}"):
        call(op, arguments(kind), backend, order="hoisted")


@pytest.mark.parametrize("op", ["coordinate_decode", "decode_stage"])
def test_unknown_orders(op):
    with pytest.raises(ValueError, match="order 'fast' is unknown; take one of hoisted, direct, or None"):
        call(op, arguments("grid"), "auto", order="fast")
