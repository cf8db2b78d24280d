"""Local attention in Triton against the formula in float64: weights and gradients."""

import pytest
import torch
from op_cases import QUERIES, assert_as_good, assert_exact, random_map, stage_weights

from clit_kernels import AttentionCall, Grid, local_attention
from clit_kernels.local_attention import local_attention_reference
from clit_kernels.local_attention.triton import kernels, launch, tiles

pytestmark = pytest.mark.usefixtures("poisoned")

DTYPES = [torch.float16, torch.bfloat16]
LONG = {"grid x1.01", "grid x17.3", "grid x3.999", "raster of 20"}  # seconds each in the interpreter
ALL = [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in QUERIES]
BACKWARD = ["grid scattered", "grid one pixel x 5", "points on one pixel", "points", "raster"]


def to(value, device):
    """A tensor, or the tensors of queries, on ``device``."""
    return (
        value.to(device)
        if torch.is_tensor(value)
        else type(value)(*(t.to(device) for t in value if torch.is_tensor(t)))
    )


def arguments(name, device, channels=8, heads=2, radius=1, dtype=torch.float32):
    size, queries = QUERIES[name]
    q, k = (to(random_map(channels, size, seed, dtype), device) for seed in (1, 2))
    stage = stage_weights(channels, heads, radius)
    proj = (to(stage.proj_weight, device), to(stage.proj_bias, device))
    return AttentionCall(q, k, to(queries, device), *proj, heads, radius)


FEW_PROGRAMS = {
    "local_attention/forward_grid": {"GROUP": 4, "SLOTS": 32},
    "local_attention/forward_any": {"QUERIES": 32},
}
"""Large tiles, for what is not about tiles: the interpreter is slow for each program."""


def check(call, tiles=None):
    weights = local_attention(call, backend="triton", tiles=tiles)
    assert_exact(weights, local_attention_reference(call, upcast=torch.float64))


def gradients(run, call, dtype=None, **how):
    """Gradients of q, k and the projection, of a fixed random weighting of the result."""
    tensors = (call.q, call.k, call.proj_weight, call.proj_bias)
    q, k, weight, bias = inputs = [
        t.detach().to(dtype or t.dtype, copy=True).requires_grad_() for t in tensors
    ]
    weights = run(call._replace(q=q, k=k, proj_weight=weight, proj_bias=bias), **how)
    generator = torch.Generator().manual_seed(3)
    grad = torch.randn(weights.shape, generator=generator, dtype=torch.float64).to(weights)
    return torch.autograd.grad(weights, inputs, grad)


def true_gradients(call):
    return gradients(local_attention_reference, call, torch.float64)


def assert_exact_gradients(got, truth):
    for result, expected in zip(got, truth, strict=True):
        # the projection's bias adds the same to all taps' logits: its gradient is zero, and 1 its scale
        limit = 1e-5 * max(1.0, float(expected.abs().max()))
        assert (result.double() - expected).abs().max() <= limit


@pytest.mark.parametrize("name", ALL)
def test_weights(name, device):
    check(arguments(name, device))


@pytest.mark.parametrize("shape", [(5, 1, 0), (12, 3, 3), (36, 2, 2), (6, 2, 4)])
@pytest.mark.parametrize("name", ["grid band", "points"])
def test_any_channels_heads_and_radius(name, shape, device):
    check(arguments(name, device, *shape), FEW_PROGRAMS)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(256, 8, 3), (64, 4, 1), (180, 6, 3), (256, 2, 4)])
@pytest.mark.parametrize("name", QUERIES)
def test_registered_and_largest_shapes(name, shape, device):
    check(arguments(name, device, *shape))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["grid band", "points", "raster of 3"])
def test_lower_precision(name, dtype, device):
    call = arguments(name, device, 16, 2, 2, dtype)
    truth = local_attention_reference(call, upcast=torch.float64)
    plain = local_attention_reference(call)
    assert_as_good(local_attention(call, backend="triton"), plain, truth)


@pytest.mark.parametrize("name", BACKWARD)
def test_gradients(name, device):
    call = arguments(name, device, 8, 1)
    truth = true_gradients(call)
    assert_exact_gradients(gradients(local_attention, call, backend="triton"), truth)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(32, 2, 3), (5, 1, 0), (36, 2, 2), (18, 3, 4)])
@pytest.mark.parametrize("name", [*BACKWARD, "no points", "raster of 20", "grid x2.5"])
def test_gradients_of_more_shapes(name, shape, device):
    call = arguments(name, device, *shape)
    truth = true_gradients(call)
    assert_exact_gradients(gradients(local_attention, call, backend="triton"), truth)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["grid one pixel x 5", "points", "raster"])
def test_gradients_in_lower_precision(name, dtype, device):
    if device.type == "cpu" and dtype == torch.bfloat16:
        pytest.skip("the interpreter computes bfloat16 in float32")
    call = arguments(name, device, 16, 1, 1, dtype)
    truth = true_gradients(call)
    plain = gradients(local_attention_reference, call)
    got = gradients(local_attention, call, backend="triton")
    for result, expected, allowed in zip(got[:3], truth[:3], plain[:3], strict=True):
        assert_as_good(result, allowed, expected)
    assert got[3].abs().max() <= 1e-5  # the bias: zero


FORWARD_TILES = [
    {"local_attention/forward_grid": {"GROUP": 1, "SLOTS": 4}, "local_attention/forward_any": {"QUERIES": 4}},
    FEW_PROGRAMS,
]
BACKWARD_TILES = [
    {
        "local_attention/backward_queries": {"QUERIES": 4},
        "local_attention/backward_map": {"PIXELS": 8, "SLOTS": 2},
        "local_attention/backward_table": {"ENTRIES": 4, "REPEATS": 2},
    },
    {
        "local_attention/backward_queries": {"QUERIES": 64},
        "local_attention/backward_map": {"PIXELS": 128, "SLOTS": 8},
        "local_attention/backward_table": {"ENTRIES": 2, "REPEATS": 64},
    },
]


@pytest.mark.parametrize("other", FORWARD_TILES, ids=["small", "large"])
@pytest.mark.parametrize("name", ["grid one pixel x 5", "grid scattered", "points"])
def test_weights_of_other_tiles(name, other, device):
    check(arguments(name, device, 12, 2, 1), other)


@pytest.mark.parametrize("other", BACKWARD_TILES, ids=["small", "large"])
@pytest.mark.parametrize("name", ["grid one pixel x 5", "points on one pixel", "raster of 3"])
def test_gradients_of_other_tiles(name, other, device):
    call = arguments(name, device, 12, 1, 1)
    got = gradients(local_attention, call, backend="triton", tiles=other)
    assert_exact_gradients(got, true_gradients(call))


@pytest.mark.parametrize("grid", [False, True])
def test_both_forward_kernels_serve_a_grid(grid, device, monkeypatch):
    monkeypatch.setattr(launch, "prefer_grid", lambda *_: grid)
    check(arguments("grid scattered", device))


def test_tf32_where_it_is_asked_for(device, monkeypatch):
    call = arguments("grid band", device)
    monkeypatch.setattr(launch, "dot_precision", lambda dtype: "tf32")
    weights = local_attention(call, backend="triton")
    truth = local_attention_reference(call, upcast=torch.float64)
    # the interpreter multiplies in float32 all the same; a GPU's two factors have 11 bits
    limit = 1e-5 if device.type == "cpu" else 2e-3
    assert (weights.double() - truth).abs().max() <= limit


def test_one_program_walks_all_queries_of_a_pixel(device, monkeypatch):
    monkeypatch.setattr(launch, "PROGRAMS", 1)
    check(arguments("grid one pixel x 5", device))


def test_any_memory_layout(device):
    call = arguments("points", device)
    q, k = call.q, call.k
    dense = k.contiguous()
    both = torch.cat((q, k), 1).contiguous(memory_format=torch.channels_last)
    shared = (q[:1].expand_as(q), k.flip(-1).transpose(2, 3).contiguous().transpose(2, 3).flip(-1))
    for one, other in ((dense, k), both.chunk(2, 1), shared, (q.contiguous(), q)):
        check(call._replace(q=one, k=other), FEW_PROGRAMS)
    call = arguments("grid band", device)
    check(call._replace(q=call.q.contiguous()), FEW_PROGRAMS)


def test_gradients_that_are_not_needed(device):
    call = arguments("raster", device)
    q = call.q.clone().requires_grad_()
    local_attention(call._replace(q=q), backend="triton").square().sum().backward()
    assert q.grad is not None and call.k.grad is None and q.grad.isfinite().all()


def test_offsets_beyond_two_to_the_31(device, tmp_path):
    """One query whose weights, and whose map's second row, lie past element 2**31 of sparse files."""
    if device.type != "cpu":
        pytest.skip("takes sparse memory")
    far = 2**31 + 64
    files = [
        torch.from_file(str(tmp_path / n), shared=True, size=far + 1024, dtype=torch.float16) for n in "ao"
    ]
    values = torch.randn(2, 16)
    near_map = values.half().reshape(1, 2, 1, 16).permute(0, 3, 1, 2)
    far_map = files[0].as_strided((1, 16, 2, 1), (0, 1, far, 16))
    far_map.copy_(near_map)
    proj = (torch.randn(1, 64) * 0.3, torch.zeros(1))
    queries = Grid(torch.tensor([1]), torch.tensor([0.25]), torch.tensor([0]), torch.tensor([-0.25]))
    call = AttentionCall(near_map, near_map, queries, *proj, heads=1, radius=1)
    truth = local_attention_reference(call, upcast=torch.float64)

    table_y, table_x = launch.bias_tables(call)
    shape = tiles.constants(16, 1, 1)
    cols = far // 9  # the query is number cols of an output of 9 weights each
    kernels.forward_grid[(2, 1, 1)](
        far_map, far_map, torch.cat((table_y, table_y)), table_x, torch.tensor([1, 1, 2], dtype=torch.int32),
        torch.tensor([0, 1], dtype=torch.int32), torch.tensor([9.0, 0.25]), torch.tensor([-0.25]), files[1],
        2, 1, 2, cols, 0, far, 16, 0, far, 16, 0.25, **shape, BIAS=16, GROUP=1, SLOTS=16, PRECISION="ieee",
    )  # fmt: skip
    torch.testing.assert_close(files[1][cols * 9 : cols * 9 + 9].double(), truth.flatten(), atol=1e-3, rtol=0)
    assert not files[1][:9].any()
