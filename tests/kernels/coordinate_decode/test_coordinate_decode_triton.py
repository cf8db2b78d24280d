"""Decoding at coordinates in Triton against the formula in float64: both orders, later layers, gradients."""

import pytest
import torch
from op_cases import (
    QUERIES,
    assert_as_good,
    assert_exact,
    cells,
    previous_residual,
    random_map,
    rng,
    stage_weights,
)

from clit_kernels import DecodeCall, Grid, Points, Raster, coordinate_decode
from clit_kernels.coordinate_decode import coordinate_decode_reference
from clit_kernels.coordinate_decode.triton import backward, launch

pytestmark = pytest.mark.usefixtures("poisoned")

LONG = {"grid x1.01", "grid x17.3", "grid x3.999", "grid x1.2 and x6.7", "raster of 20"}
ALL = [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in QUERIES]
GRIDS = [case for case in ALL if "grid" in str(case)]

LARGE = {
    "coordinate_decode/hoisted": {"PIXELS_Y": 8, "PIXELS_X": 8, "GROUP": 1, "SLOTS": 16, "COLUMNS": 32},
    "coordinate_decode/direct": {"QUERIES": 256, "COLUMNS": 32},
    "coordinate_decode/mlp": {"ROWS": 512, "STEP": 16},
    "coordinate_decode/grad_first": {"QUERIES": 64, "COLUMNS": 32},
    "coordinate_decode/grad_queries": {"QUERIES": 64},
    "coordinate_decode/grad_raster": {"PIXELS": 64},
}
"""Few programs, which is what the interpreter is slow at."""

SMALL = {
    "coordinate_decode/hoisted": {"PIXELS_Y": 2, "PIXELS_X": 4, "GROUP": 4, "SLOTS": 4, "COLUMNS": 16},
    "coordinate_decode/direct": {"QUERIES": 16, "COLUMNS": 16, "GROUP": 1},
    "coordinate_decode/mlp": {"ROWS": 16, "STEP": 8},
    "coordinate_decode/grad_first": {"QUERIES": 8, "COLUMNS": 16, "GROUP": 1},
    "coordinate_decode/grad_queries": {"QUERIES": 16, "GROUP": 1},
    "coordinate_decode/grad_raster": {"PIXELS": 8, "GROUP": 1},
}
"""Several programs along every axis, and tiles that overhang."""

ORDERS = pytest.mark.parametrize("order", ["direct", "hoisted"])


def possible(order, queries):
    """The order, where the kernels can sum these queries in it."""
    return order if isinstance(queries, Grid) else "direct"


def to(value, device):
    """A tensor, or the tensors of queries or of a list, on ``device``."""
    if torch.is_tensor(value):
        return value.to(device)
    moved = [to(t, device) for t in value if t is not None]
    return moved if isinstance(value, list) else type(value)(*moved)


def arguments(name, device, channels=8, heads=2, radius=1, dtype=torch.float32, widths=(24, 16)):
    size, queries = QUERIES[name]
    v = random_map(channels, size, 3, dtype)
    stage = stage_weights(channels, heads, radius, widths)
    logits = torch.randn(2, queries.count, heads, stage.area, generator=rng(4))
    weights = logits.softmax(-1).to(dtype).transpose(2, 3).contiguous().transpose(2, 3)
    args = (weights, v, queries, list(stage.mlp_weights), list(stage.mlp_biases), cells(queries))
    return DecodeCall(*(to(a, device) for a in (*args, previous_residual(queries, dtype))))


def check(call, tiles=LARGE, order=None):
    out = coordinate_decode(call, backend="triton", tiles=tiles, order=order)
    assert_exact(out, coordinate_decode_reference(call, upcast=torch.float64))


@pytest.mark.parametrize("name", ALL)
def test_direct(name, device):
    check(arguments(name, device), order="direct")


@pytest.mark.parametrize("name", GRIDS)
def test_hoisted(name, device):
    check(arguments(name, device), order="hoisted")


@ORDERS
@pytest.mark.parametrize("name", ["grid scattered", "grid band"])
def test_small_tiles(name, device, order):
    check(arguments(name, device), SMALL, order)


@pytest.mark.parametrize("group", [1, 2, 8])
def test_pixels_share_a_product(group, device):
    tile = LARGE["coordinate_decode/hoisted"] | {"GROUP": group, "SLOTS": 4}
    if group == 8:
        tile["PIXELS_X"] = 4  # with 8, more shared memory than any chip has
    check(arguments("grid x2.5", device), LARGE | {"coordinate_decode/hoisted": tile}, "hoisted")


@ORDERS
@pytest.mark.parametrize("shape", [(5, 1, 0), (12, 3, 2), (36, 2, 1)])
def test_any_channels_heads_and_radius(shape, device, order):
    check(arguments("grid one pixel x 5", device, *shape), order=order)


@pytest.mark.parametrize("widths", [(7,), (40, 8, 100), (256, 256)])
def test_any_layers(widths, device):
    check(arguments("raster", device, widths=widths), None)


@pytest.mark.slow
@ORDERS
@pytest.mark.parametrize(
    "shape", [(256, 8, 3, (256,) * 4), (64, 4, 1, (128, 64, 64, 64)), (180, 6, 3, (96, 33))]
)
@pytest.mark.parametrize("name", ["grid x2.5", "points", "raster"])
def test_registered_shapes(name, shape, device, order):
    call = arguments(name, device, *shape[:3], widths=shape[3])
    check(call, None, possible(order, call.queries))


@pytest.mark.slow
@ORDERS
@pytest.mark.parametrize("tiles", [LARGE, SMALL])
@pytest.mark.parametrize("name", QUERIES)
def test_every_case(name, tiles, device, order):
    call = arguments(name, device, 12, 2, 2)
    check(call, tiles, possible(order, call.queries))


@ORDERS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_lower_precision(dtype, device, order):
    call = arguments("grid band", device, 16, 2, 1, dtype)._replace(previous=None)
    truth = coordinate_decode_reference(call, upcast=torch.float64)
    found = coordinate_decode(call, backend="triton", tiles=LARGE, order=order)
    assert_as_good(found, coordinate_decode_reference(call), truth)


def test_nothing_added_and_a_base(device):
    call = arguments("raster of 3", device)
    previous, base = call.previous, torch.randn(call.previous.shape, generator=rng(5)).to(device)
    bare = coordinate_decode(call._replace(previous=None), backend="triton", tiles=LARGE)
    call = call._replace(gain=0.5, base=base)
    full = coordinate_decode(call, backend="triton", tiles=LARGE)
    assert_exact(
        bare, coordinate_decode_reference(call._replace(previous=None, base=None), upcast=torch.float64)
    )
    torch.testing.assert_close(full, bare + 0.5 * previous + base)
    for backend in ("torch", "reference"):
        torch.testing.assert_close(coordinate_decode(call, backend=backend), full, atol=1e-5, rtol=1e-5)


def test_strides_beyond_31_bits(device, tmp_path, monkeypatch):
    """Two images 2**31 numbers apart, in a file of which only a few pages exist."""
    call = arguments("raster", device, dtype=torch.float16)._replace(previous=None)
    v, apart = call.v, (1 << 31) + 64
    if device.type == "cpu":
        monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # 4 GB of it
        memory = torch.from_file(str(tmp_path / "map"), shared=True, size=apart + v[0].numel(), dtype=v.dtype)
    else:
        memory = torch.empty(apart + v[0].numel(), dtype=v.dtype, device=device)
    h, w, c = v.shape[2], v.shape[3], v.shape[1]
    far = memory.as_strided(v.shape, (apart, 1, w * c, c))
    far.copy_(v)
    assert far.stride(0) > 1 << 31 and h * w * c == v[0].numel()
    how = {"backend": "triton", "tiles": LARGE, "order": "direct"}
    out = coordinate_decode(call._replace(v=far), **how)
    assert torch.equal(out, coordinate_decode(call, **how))


def with_leaves(call, dtype):
    """The call on leaves in ``dtype``, and those: weights, values, previous residual, MLP."""
    tensors = (call.attention, call.v, call.previous, *call.mlp_weights, *call.mlp_biases)
    attention, v, previous, *mlp = inputs = [t.detach().to(dtype).requires_grad_() for t in tensors]
    n, cell = len(mlp) // 2, call.cell.to(dtype)
    return DecodeCall(attention, v, call.queries, mlp[:n], mlp[n:], cell, previous), inputs


def gradients(run, call, dtype, **how):
    """Gradients of everything that has one, of a fixed random weighting of the result."""
    call, inputs = with_leaves(call, dtype)
    out = run(call, **how)
    grad = torch.randn(out.shape, generator=rng(3)).to(out)
    return torch.autograd.grad(out, inputs, grad)


def check_gradients(call, tiles, order=None):
    truth = gradients(coordinate_decode_reference, call, torch.float64)
    got = gradients(coordinate_decode, call, torch.float32, backend="triton", tiles=tiles, order=order)
    for result, expected in zip(got, truth, strict=True):
        assert result.shape == expected.shape and expected.abs().max() > 0
        assert (result.double() - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("name", ["grid one pixel x 5", "points", "raster of 3"])
def test_gradients(name, device):
    check_gradients(arguments(name, device), LARGE)


@pytest.mark.parametrize("name", ["points on one pixel", "raster"])
def test_gradients_in_small_tiles(name, device, monkeypatch):
    monkeypatch.setattr(backward, "PROGRAMS", 100)  # sums over the queries in parts
    check_gradients(arguments(name, device, 5, 1, 1, widths=(20, 9)), SMALL)


@pytest.mark.slow
@ORDERS
@pytest.mark.parametrize("tiles", [LARGE, SMALL])
@pytest.mark.parametrize("shape", [(12, 3, 2), (5, 1, 0), (8, 2, 3)])
@pytest.mark.parametrize(
    "name", ["grid x2.5", "grid scattered", "points", "points on one pixel", "raster", "raster of 3"]
)
def test_gradients_everywhere(name, shape, tiles, device, order):
    call = arguments(name, device, *shape)
    check_gradients(call, tiles, possible(order, call.queries))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["points", "raster"])
def test_gradients_in_lower_precision(name, dtype, device):
    call = arguments(name, device, 16, 2, 1, dtype)
    weights, biases = ([t.to(dtype) for t in ts] for ts in (call.mlp_weights, call.mlp_biases))
    call = call._replace(mlp_weights=weights, mlp_biases=biases)
    truth = gradients(coordinate_decode_reference, call, torch.float64)
    plain = gradients(coordinate_decode_reference, call, dtype)
    got = gradients(coordinate_decode, call, dtype, backend="triton", tiles=LARGE)
    for result, reference, expected in zip(got, plain, truth, strict=True):
        assert_as_good(result, reference, expected)


def test_only_the_gradients_asked_for(device):
    call = arguments("raster", device)
    weights, v = (t.detach().requires_grad_() for t in call[:2])
    found = []
    for tensor, asking in ((weights, {"attention": weights}), (v, {"v": v})):
        out = coordinate_decode(call._replace(**asking), backend="triton", tiles=LARGE)
        assert out.requires_grad
        found += torch.autograd.grad(out.sum(), tensor)
    out = coordinate_decode_reference(call._replace(attention=weights, v=v))
    for got, expected in zip(found, torch.autograd.grad(out.sum(), (weights, v)), strict=True):
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


def saved_bytes(run, call, **how):
    """Memory that a forward pass keeps for the backward one, its inputs aside."""
    kept: dict[int, int] = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    call, inputs = with_leaves(call, torch.float32)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        run(call, **how)
    for tensor in inputs:
        kept.pop(tensor.untyped_storage().data_ptr(), None)
    return sum(kept.values())


def test_memory_kept_for_the_backward_pass(device):
    call = arguments("raster", device, 64, 4, 2, widths=(64, 64, 64, 64))
    tiles = LARGE | {"coordinate_decode/direct": {"QUERIES": 64, "COLUMNS": 64}}
    ours = saved_bytes(coordinate_decode, call, backend="triton", tiles=tiles)
    assert 0 < 4 * ours <= saved_bytes(coordinate_decode_reference, call)


def test_slots_of_a_band():
    """The rows of a map around a band have no queries; the band's scale is that of its columns."""
    row = torch.arange(4).repeat_interleave(4) + 3
    grid = Grid(row, torch.zeros(16), torch.arange(20).repeat_interleave(4), torch.zeros(80))
    slots = launch.Slots.of(grid, h=10, w=20, radius=3)
    assert slots.most == 16
    assert slots.rows.tolist()[:11] == [0, 0, 0, 0, 4, 8, 12, 16, 16, 16, 16]


def test_layers_in_one_launch():
    assert launch.segments((256, 256, 256, 256, 16), False) == [(0, 1), (1, 2), (2, 4)]
    assert launch.segments((128, 64, 64, 64, 16), False) == [(0, 4)]
    assert launch.segments((128, 64, 64, 16), True) == [(0, 1), (1, 2), (2, 3)]


def why_not(call):
    with pytest.raises(ValueError, match="coordinate_decode: backend 'triton' cannot serve this call") as e:
        coordinate_decode(call, backend="triton")
    return str(e.value)


def test_why_not(device):
    call = arguments("points", device)
    first, *later = call.mlp_weights
    assert "float64" in why_not(call._replace(v=call.v.double()))
    single = call._replace(mlp_weights=[first[:3]], mlp_biases=call.mlp_biases[-1:])
    assert "no hidden layer" in why_not(single)

    def layers(hidden, out):
        sizes = [(hidden, 74), (out, hidden)]
        weights = [torch.zeros(size, device=device) for size in sizes]
        return call._replace(previous=None, mlp_weights=weights, mlp_biases=[w[:, 0] for w in weights])

    assert "300 neurons, and the kernels take up to 256" in why_not(layers(300, 3))
    assert "puts out 65 channels" in why_not(layers(24, 65))
    weights = [torch.zeros(first.shape[0], 9 * 260 + 2, device=device), *later]
    many = call._replace(v=torch.zeros(2, 260, 5, 7, device=device), mlp_weights=weights)
    assert "130 channels, and the kernels take up to 64" in why_not(many)


def test_atomics_are_refused_where_results_must_repeat(device):
    call = arguments("points", device)
    call = call._replace(v=call.v.clone().requires_grad_())
    torch.use_deterministic_algorithms(True)
    assert "atomics" in why_not(call)
    empty = Points(call.queries.index[:, :0], call.queries.offset[:, :0])
    none = call._replace(attention=call.attention[:, :0], queries=empty, previous=None)
    with torch.no_grad():
        coordinate_decode(none, backend="triton")
    raster = Raster(torch.zeros(2, 0, 4, 5, 2, device=device))
    coordinate_decode(none._replace(queries=raster), backend="triton")
