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

from clit_kernels import Grid, Points, Raster, coordinate_decode, settings
from clit_kernels.coordinate_decode import coordinate_decode_reference, function, launch, prepare
from clit_kernels.triton_support import power_of_two

LONG = {"grid x1.01", "grid x17.3", "grid x3.999", "grid x1.2 and x6.7", "raster of 20"}
ALL = [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in QUERIES]
GRIDS = [case for case in ALL if "grid" in str(case)]

LARGE = {
    "hoisted": {"PIXELS_Y": 8, "PIXELS_X": 8, "GROUP": 1, "SLOTS": 16, "COLUMNS": 32},
    "direct": {"QUERIES": 256, "COLUMNS": 32},
    "mlp": {"ROWS": 512, "STEP": 16},
    "grad_first": {"QUERIES": 64, "COLUMNS": 32},
    "grad_queries": {"QUERIES": 64},
    "grad_raster": {"PIXELS": 64},
}
"""Few programs, which is what the interpreter is slow at."""

SMALL = {
    "hoisted": {"PIXELS_Y": 2, "PIXELS_X": 4, "GROUP": 4, "SLOTS": 4, "COLUMNS": 16},
    "direct": {"QUERIES": 16, "COLUMNS": 16, "GROUP": 1},
    "mlp": {"ROWS": 16, "STEP": 8},
    "grad_first": {"QUERIES": 8, "COLUMNS": 16, "GROUP": 1},
    "grad_queries": {"QUERIES": 16, "GROUP": 1},
    "grad_raster": {"PIXELS": 8, "GROUP": 1},
}
"""Several programs along every axis, and tiles that overhang."""


def forced(tile):
    return settings.forced({f"coordinate_decode/{name}": entries for name, entries in tile.items()})


@pytest.fixture(params=["direct", "hoisted"])
def order(request, monkeypatch):
    """Always one order, whatever the count says."""
    monkeypatch.setattr(launch, "prefer_hoisted", lambda *_: request.param == "hoisted")
    return request.param


def to(value, device):
    """A tensor, or the tensors of queries or of a list, on ``device``."""
    if torch.is_tensor(value):
        return value.to(device)
    moved = [to(t, device) for t in value]
    return moved if isinstance(value, list) else type(value)(*moved)


def arguments(name, device, channels=8, heads=2, radius=1, dtype=torch.float32, widths=(24, 16)):
    size, queries = QUERIES[name]
    v = random_map(channels, size, 3, dtype)
    stage = stage_weights(channels, heads, radius, widths)
    logits = torch.randn(2, queries.count, heads, stage.area, generator=rng(4))
    weights = logits.softmax(-1).to(dtype).transpose(2, 3).contiguous().transpose(2, 3)
    args = (weights, v, queries, list(stage.mlp_weights), list(stage.mlp_biases), cells(queries))
    return tuple(to(a, device) for a in args), {"previous": to(previous_residual(queries, dtype), device)}


def check(args, config, tile=LARGE):
    with forced(tile):
        out = coordinate_decode(*args, **config, backend="triton")
    assert_exact(out, coordinate_decode_reference(*args, **config, upcast=torch.float64))


@pytest.mark.parametrize("name", ALL)
def test_direct(name, device, monkeypatch):
    monkeypatch.setattr(launch, "prefer_hoisted", lambda *_: False)
    check(*arguments(name, device))


@pytest.mark.parametrize("name", GRIDS)
def test_hoisted(name, device, monkeypatch):
    monkeypatch.setattr(launch, "prefer_hoisted", lambda *_: True)
    check(*arguments(name, device))


@pytest.mark.parametrize("name", ["grid scattered", "grid band"])
def test_small_tiles(name, device, order):
    check(*arguments(name, device), SMALL)


@pytest.mark.parametrize("group", [1, 2, 8])
def test_pixels_share_a_product(group, device, monkeypatch):
    monkeypatch.setattr(launch, "prefer_hoisted", lambda *_: True)
    tile = LARGE["hoisted"] | {"GROUP": group, "SLOTS": 4}
    if group == 8:
        tile["PIXELS_X"] = 4  # with 8, more shared memory than any chip has
    check(*arguments("grid x2.5", device), LARGE | {"hoisted": tile})


@pytest.mark.parametrize("shape", [(5, 1, 0), (12, 3, 2), (36, 2, 1)])
def test_any_channels_heads_and_radius(shape, device, order):
    check(*arguments("grid one pixel x 5", device, *shape))


@pytest.mark.parametrize("widths", [(7,), (40, 8, 100), (256, 256)])
def test_any_layers(widths, device):
    check(*arguments("raster", device, widths=widths), tile={})


@pytest.mark.slow
@pytest.mark.parametrize(
    "shape", [(256, 8, 3, (256,) * 4), (64, 4, 1, (128, 64, 64, 64)), (180, 6, 3, (96, 33))]
)
@pytest.mark.parametrize("name", ["grid x2.5", "points", "raster"])
def test_registered_shapes(name, shape, device, order):
    check(*arguments(name, device, *shape[:3], widths=shape[3]), {})


@pytest.mark.slow
@pytest.mark.parametrize("tile", [LARGE, SMALL])
@pytest.mark.parametrize("name", QUERIES)
def test_every_case(name, tile, device, order):
    check(*arguments(name, device, 12, 2, 2), tile)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_lower_precision(dtype, device, order):
    args, config = arguments("grid band", device, 16, 2, 1, dtype)
    config = {"previous": None}
    truth = coordinate_decode_reference(*args, **config, upcast=torch.float64)
    plain = coordinate_decode_reference(*args, **config)
    with forced(LARGE):
        assert_as_good(coordinate_decode(*args, **config, backend="triton"), plain, truth)


def test_nothing_added_and_a_base(device):
    args, config = arguments("raster of 3", device)
    base = torch.randn(config["previous"].shape, generator=rng(5)).to(device)
    with forced(LARGE):
        bare = coordinate_decode(*args, backend="triton")
        full = coordinate_decode(*args, **config, gain=0.5, base=base, backend="triton")
    assert_exact(bare, coordinate_decode_reference(*args, upcast=torch.float64))
    torch.testing.assert_close(full, bare + 0.5 * config["previous"] + base)
    for backend in ("hoisted", "reference"):
        other = coordinate_decode(*args, **config, gain=0.5, base=base, backend=backend)
        torch.testing.assert_close(other, full, atol=1e-5, rtol=1e-5)


def test_strides_beyond_31_bits(device, tmp_path, monkeypatch):
    """Two images 2**31 numbers apart, in a file of which only a few pages exist."""
    monkeypatch.setattr(launch, "prefer_hoisted", lambda *_: False)
    (weights, v, queries, *mlp), _ = arguments("raster", device, dtype=torch.float16)
    apart = (1 << 31) + 64
    if device.type == "cpu":
        monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # 4 GB of it
        memory = torch.from_file(str(tmp_path / "map"), shared=True, size=apart + v[0].numel(), dtype=v.dtype)
    else:
        memory = torch.empty(apart + v[0].numel(), dtype=v.dtype, device=device)
    h, w, c = v.shape[2], v.shape[3], v.shape[1]
    far = memory.as_strided(v.shape, (apart, 1, w * c, c))
    far.copy_(v)
    assert far.stride(0) > 1 << 31 and h * w * c == v[0].numel()
    with forced(LARGE):
        out = coordinate_decode(weights, far, queries, *mlp, backend="triton")
        assert torch.equal(out, coordinate_decode(weights, v, queries, *mlp, backend="triton"))


def gradients(run, args, config, dtype):
    """Gradients of everything that has one, of a fixed random weighting of the result."""
    weights, v, queries, mlp, biases, cell = args
    inputs = [t.detach().to(dtype).requires_grad_() for t in (weights, v, config["previous"], *mlp, *biases)]
    n = 3 + len(mlp)
    out = run(*inputs[:2], queries, inputs[3:n], inputs[n:], cell.to(dtype), previous=inputs[2], gain=0.75)
    grad = torch.randn(out.shape, generator=rng(3)).to(out)
    return torch.autograd.grad(out, inputs, grad)


def check_gradients(args, config, tile):
    truth = gradients(coordinate_decode_reference, args, config, torch.float64)
    with forced(tile):
        got = gradients(function.coordinate_decode_triton, args, config, torch.float32)
    for result, expected in zip(got, truth, strict=True):
        assert result.shape == expected.shape and expected.abs().max() > 0
        assert (result.double() - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("name", ["grid one pixel x 5", "points", "raster of 3"])
def test_gradients(name, device):
    check_gradients(*arguments(name, device), LARGE)


@pytest.mark.parametrize("name", ["points on one pixel", "raster"])
def test_gradients_in_small_tiles(name, device, monkeypatch):
    monkeypatch.setattr(function, "PROGRAMS", 100)  # sums over the queries in parts
    check_gradients(*arguments(name, device, 5, 1, 1, widths=(20, 9)), SMALL)


@pytest.mark.slow
@pytest.mark.parametrize("tile", [LARGE, SMALL])
@pytest.mark.parametrize("shape", [(12, 3, 2), (5, 1, 0), (8, 2, 3)])
@pytest.mark.parametrize(
    "name", ["grid x2.5", "grid scattered", "points", "points on one pixel", "raster", "raster of 3"]
)
def test_gradients_everywhere(name, shape, tile, device, order):
    check_gradients(*arguments(name, device, *shape), tile)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["points", "raster"])
def test_gradients_in_lower_precision(name, dtype, device):
    args, config = arguments(name, device, 16, 2, 1, dtype)
    args = (*args[:3], *([t.to(dtype) for t in ts] for ts in args[3:5]), args[5])
    truth = gradients(coordinate_decode_reference, args, config, torch.float64)
    plain = gradients(coordinate_decode_reference, args, config, dtype)
    with forced(LARGE):
        got = gradients(function.coordinate_decode_triton, args, config, dtype)
    for result, reference, expected in zip(got, plain, truth, strict=True):
        assert_as_good(result, reference, expected)


def test_only_the_gradients_asked_for(device):
    args, config = arguments("raster", device)
    weights, v = (t.detach().requires_grad_() for t in args[:2])
    with forced(LARGE):
        out = function.coordinate_decode_triton(weights, v.detach(), *args[2:], **config)
        assert out.requires_grad
        (to_weights,) = torch.autograd.grad(out.sum(), weights)
        out = function.coordinate_decode_triton(weights.detach(), v, *args[2:], **config)
        (to_v,) = torch.autograd.grad(out.sum(), v)
    out = coordinate_decode_reference(weights, v, *args[2:], **config)
    for got, expected in zip((to_weights, to_v), torch.autograd.grad(out.sum(), (weights, v)), strict=True):
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


def saved_bytes(run, args, config):
    """Memory that a forward pass keeps for the backward one, its inputs aside."""
    kept: dict[int, int] = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    weights, v, queries, mlp, biases, cell = args
    inputs = [t.detach().clone().requires_grad_() for t in (weights, v, *mlp, *biases)]
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        run(*inputs[:2], queries, inputs[2 : 2 + len(mlp)], inputs[2 + len(mlp) :], cell, **config)
    for tensor in inputs:
        kept.pop(tensor.untyped_storage().data_ptr(), None)
    return sum(kept.values())


def test_memory_kept_for_the_backward_pass(device):
    args, config = arguments("raster", device, 64, 4, 2, widths=(64, 64, 64, 64))
    with forced(LARGE | {"direct": {"QUERIES": 64, "COLUMNS": 64}}):
        ours = saved_bytes(function.coordinate_decode_triton, args, config)
    assert 0 < 4 * ours <= saved_bytes(coordinate_decode_reference, args, config)


def test_an_order_for_each_number_of_queries():
    def hoisted(pixels, slots, count):
        return launch.prefer_hoisted(pixels, slots, count, 256, 8, max(4, min(32, power_of_two(slots))))

    assert not hoisted(pixels=1000, slots=1, count=1000)
    assert not hoisted(pixels=1000, slots=4, count=4000)
    assert hoisted(pixels=1000, slots=16, count=16000)
    assert hoisted(pixels=1000, slots=900, count=900000)
    # x1.01: one row in a hundred has room for two
    assert not hoisted(pixels=10000, slots=4, count=10201)


def test_slots_of_a_band():
    """The rows of a map around a band have no queries; the band's scale is that of its columns."""
    row = torch.arange(4).repeat_interleave(4) + 3
    grid = Grid(row, torch.zeros(16), torch.arange(20).repeat_interleave(4), torch.zeros(80))
    slots = launch.Slots.of(grid, h=10, w=20, radius=3)
    assert slots.most == 16
    assert slots.rows.tolist()[:11] == [0, 0, 0, 0, 4, 8, 12, 16, 16, 16, 16]


def test_layers_in_one_launch():
    def chains(widths, one_by_one):
        layers = prepare.Layers(*(torch.empty(0),) * 4, widths, 3)
        return prepare.segments(layers, one_by_one)

    assert chains((256, 256, 256, 256, 16), False) == [(0, 1), (1, 2), (2, 4)]
    assert chains((128, 64, 64, 64, 16), False) == [(0, 4)]
    assert chains((128, 64, 64, 16), True) == [(0, 1), (1, 2), (2, 3)]


def why_not(args, config, **changed):
    names = ("weights", "v", "queries", "mlp_weights", "mlp_biases", "cell")
    with pytest.raises(ValueError, match="coordinate_decode: backend 'triton' cannot serve this call") as e:
        coordinate_decode(**dict(zip(names, args, strict=True)) | changed, **config, backend="triton")
    return str(e.value)


def test_why_not(device):
    args, config = arguments("points", device)
    _, v, _, mlp, biases, _ = args
    assert "float64" in why_not(args, config, v=v.double())
    single = {"mlp_weights": [mlp[0][:3]], "mlp_biases": biases[-1:]}
    assert "no hidden layer" in why_not(args, config, **single)

    def layers(hidden, out):
        sizes = [(hidden, 74), (out, hidden)]
        weights = [torch.zeros(size, device=device) for size in sizes]
        return {"mlp_weights": weights, "mlp_biases": [w[:, 0] for w in weights]}

    assert "300 neurons, and the kernels take up to 256" in why_not(args, config, **layers(300, 3))
    assert "puts out 65 channels" in why_not(args, {}, **layers(24, 65))
    many = {"v": torch.zeros(2, 260, 5, 7, device=device)}
    many["mlp_weights"] = [torch.zeros(mlp[0].shape[0], 9 * 260 + 2, device=device), *mlp[1:]]
    assert "130 channels, and the kernels take up to 64" in why_not(args, config, **many)


def test_atomics_are_refused_where_results_must_repeat(device):
    args, config = arguments("points", device)
    tracked = args[1].clone().requires_grad_()
    torch.use_deterministic_algorithms(True)
    assert "atomics" in why_not(args, config, v=tracked)
    empty = Points(args[2].index[:, :0], args[2].offset[:, :0])
    with torch.no_grad():
        coordinate_decode(args[0][:, :0], tracked, empty, *args[3:], backend="triton")
    raster = Raster(torch.zeros(2, 0, 5, 7, 2, device=device))
    coordinate_decode(args[0][:, :0], tracked, raster, *args[3:], backend="triton")
