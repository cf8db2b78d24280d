"""A whole stage in Triton against the formulas in float64, in tiles of bounded memory and with gradients."""

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

from clit_kernels import StageCall, StageWeights, decode_stage
from clit_kernels.backends import why_not_maps
from clit_kernels.decode_stage import decode_stage_reference, why_not
from clit_kernels.decode_stage.triton import launch
from clit_kernels.self_check import check_backend

pytestmark = pytest.mark.usefixtures("poisoned")

TILES = {
    "coordinate_decode/hoisted": {"PIXELS_Y": 4, "PIXELS_X": 8, "GROUP": 1, "SLOTS": 16, "COLUMNS": 32},
    "coordinate_decode/direct": {"QUERIES": 256, "COLUMNS": 32},
    "coordinate_decode/mlp": {"ROWS": 512, "STEP": 16},
    "coordinate_decode/grad_first": {"QUERIES": 64, "COLUMNS": 32},
    "coordinate_decode/grad_queries": {"QUERIES": 64},
    "coordinate_decode/grad_raster": {"PIXELS": 64},
}
"""Few programs, which is what the interpreter is slow at."""


def to(value, device):
    return (
        value.to(device)
        if torch.is_tensor(value)
        else type(value)(*(t.to(device) for t in value if torch.is_tensor(t)))
    )


def arguments(name, device, channels=8, heads=2, radius=1, dtype=torch.float32, previous=True):
    size, queries = QUERIES[name]
    maps = [to(random_map(channels, size, seed, dtype), device) for seed in (1, 2, 3)]
    stage = stage_weights(channels, heads, radius)
    stage = StageWeights(
        *(to(t, device) for t in stage[:2]),
        *([to(t, device) for t in ts] for ts in stage[2:4]),
        heads,
        radius,
    )
    before = to(previous_residual(queries, dtype), device) if previous else None
    return StageCall(*maps, to(queries, device), stage, to(cells(queries), device), before)


@torch.no_grad()
def check(call, order=None):
    out = decode_stage(call, backend="triton", order=order, tiles=TILES)
    assert_exact(out, decode_stage_reference(call, upcast=torch.float64))


@pytest.mark.parametrize(
    "name", ["grid one pixel", "grid x2.5", "grid scattered", "grid band", "points", "no points", "raster"]
)
def test_stage(name, device):
    check(arguments(name, device))


@pytest.fixture
def seen(monkeypatch):
    """Bytes of attention weights and of first-layer results of every tile."""
    sizes: list[int] = []
    attend, layers = launch.attention.forward, launch.decode.later_layers

    def forward(*args):
        weights = attend(*args)
        sizes.append(weights.nbytes)
        return weights

    def later_layers(hidden, *args):
        sizes[-1] += hidden.nbytes
        return layers(hidden, *args)

    monkeypatch.setattr(launch.attention, "forward", forward)
    monkeypatch.setattr(launch.decode, "later_layers", later_layers)
    return sizes


@pytest.mark.parametrize(
    "name, limit, count, order",
    [
        ("grid scattered", 14_000, (5, 12), "hoisted"),
        ("grid band", 6_000, (5, 12), "direct"),
        ("grid one pixel x 5", 2_000, (5, 5), "hoisted"),
        ("points", 4_000, (3, 3), "direct"),
    ],
)
def test_tiles_are_bounded(name, limit, count, order, device, seen, monkeypatch):
    monkeypatch.setattr(launch, "TILE_BYTES", limit)
    monkeypatch.setattr(launch, "TILE_ROWS", 2)
    check(arguments(name, device), order)
    assert max(seen) <= limit
    assert count[0] <= len(seen) <= count[1]


def test_grids_are_cut_between_feature_pixels():
    row, col = [0] * 3 + [1] * 2 + [2] * 3 + [3] * 3, [0] * 2 + [1] * 2 + [2] * 2
    tiles = list(launch._tiles(row, col, 4, 3, slots=6, limit=40))
    assert tiles == [(slice(0, 11), slice(x, x + 2)) for x in (0, 2, 4)]
    tiles = list(launch._tiles(row, col, 4, 3, slots=6, limit=18))
    assert {(r.start, r.stop) for r, _ in tiles} == {(0, 8), (8, 11)}
    covered = [(y, x) for r, c in tiles for y in range(r.start, r.stop) for x in range(c.start, c.stop)]
    assert sorted(covered) == [(y, x) for y in range(11) for x in range(6)]
    # one pixel with more queries than a tile takes is cut inside
    tiles = list(launch._tiles([0] * 10, [0] * 10, 1, 1, slots=100, limit=7))
    assert max((r.stop - r.start) * (c.stop - c.start) for r, c in tiles) <= 7
    assert sum((r.stop - r.start) * (c.stop - c.start) for r, c in tiles) == 100


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_lower_precision(dtype, device):
    call = arguments("grid band", device, 16, 2, 1, dtype, previous=False)
    truth = decode_stage_reference(call, upcast=torch.float64)
    with torch.no_grad():
        found = decode_stage(call, backend="triton", tiles=TILES)
    assert_as_good(found, decode_stage_reference(call), truth)


@pytest.mark.parametrize("name", ["grid one pixel x 5", "raster"])
def test_gradients(name, device):
    found = []
    for run, dtype, how in (
        (decode_stage, torch.float32, {"backend": "triton", "tiles": TILES}),
        (decode_stage_reference, torch.float64, {}),
    ):
        call = arguments(name, device, 6, 2, 1)
        tensors = (*call[:3], *call.weights.tensors())
        q, k, v, *own = inputs = [t.detach().to(dtype).requires_grad_() for t in tensors]
        count = len(call.weights.mlp_weights)
        stage = StageWeights(
            *own[:2], own[2 : 2 + count], own[2 + count :], call.weights.heads, call.weights.radius
        )
        call = call._replace(q=q, k=k, v=v, weights=stage, cell=call.cell.to(dtype))
        out = run(call, **how)
        grad = torch.randn(out.shape, generator=rng(3)).to(out)
        found.append(torch.autograd.grad(out, inputs, grad))
    for got, expected in zip(*found, strict=True):
        # the projection's bias moves all logits of a head alike: its gradient is zero
        assert (got.double() - expected).abs().max() <= 1e-5 * max(1.0, float(expected.abs().max()))


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(256, 8, 3), (64, 4, 1), (12, 3, 2)])
@pytest.mark.parametrize("name", ["grid x2.5", "grid x17.3", "grid x1.01", "points", "raster of 3"])
def test_every_shape(name, shape, device):
    check(arguments(name, device, *shape))


def test_auto_takes_what_can_serve(device):
    """Kernels on a GPU, and in the interpreter too; the reasons of both ops hold for the stage."""
    call = arguments("points", device)
    with torch.no_grad():
        auto = decode_stage(call)
        assert torch.equal(auto, decode_stage(call, backend="triton"))
    assert why_not_maps("triton", call.v) is None and why_not("triton", call) is None
    assert "float64" in why_not_maps("triton", call.v.double())
    layers = [torch.zeros(300, 74, device=device), torch.zeros(3, 300, device=device)]
    wide = call.weights._replace(mlp_weights=layers)
    assert "300 neurons" in why_not("triton", call._replace(weights=wide))
    with pytest.raises(ValueError, match="one dtype"):
        decode_stage(call._replace(q=call.q.half()), backend="triton")


@pytest.mark.slow
def test_the_self_check_finds_the_kernels_right(device):
    found = check_backend("triton", device, torch.float32, "light")
    assert found.right
