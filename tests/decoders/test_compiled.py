"""torch.compile, torch.export and opcheck see the decoder as whole operators."""

import pytest
import torch
from step_cases import KINDS, assert_as_good, predict, share, small_model, step
from torch.utils.checkpoint import checkpoint

import clit_zoo
from clit_kernels import Points, Queries, Raster
from clit_kernels.queries import tensors as query_tensors
from clit_zoo import geometry
from clit_zoo.decoders import compiled as ops
from clit_zoo.geometry import Pixels

SCALES = (50 / 11, 61 / 9)
SMALL = {
    "encoder": {"blocks": 1, "channels": 8},
    "decoder": {"dim": 16, "heads": 2, "stages": 2, "hidden_dims": [12, 8]},
}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return clit_zoo.create_model("edsr-light-lit", **SMALL).eval()


class Enlarge(torch.nn.Module):
    def __init__(self, model, size):
        super().__init__()
        self.model, self.size = model, size

    def forward(self, image):
        return self.model(image, self.size)


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_the_whole_model_compiles_to_one_graph(model, backend):
    image = torch.rand(1, 3, 11, 9)
    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=True, backend=backend)
        torch.testing.assert_close(compiled(image, (50, 61)), model(image, (50, 61)))


def test_gradients_of_the_compiled_query_are_those_of_the_eager_one(model):
    image, cell = torch.rand(1, 3, 11, 9), torch.tensor([[2 / 50, 2 / 61]])
    coords, maps = torch.rand(1, 7, 2) * 2 - 1, geometry.plan(11, 9, SCALES, 2)
    compiled = torch.compile(model.query, fullgraph=True, backend="aot_eager")
    found, wanted = (
        torch.autograd.grad(query(image, coords, cell, maps=maps).square().sum(), list(model.parameters()))
        for query in (compiled, model.query)
    )
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b)


class Query(torch.nn.Module):
    def __init__(self, model, maps):
        super().__init__()
        self.model, self.maps = model, maps

    def forward(self, image, coords, cell):
        return self.model.query(image, coords, cell, maps=self.maps)


def positions(batch: int, count: int):
    """Arguments of a query."""
    return torch.rand(batch, 3, 11, 9), torch.rand(batch, count, 2) * 2 - 1, torch.full((batch, 2), 0.04)


@pytest.fixture
def graphs():
    """How many graphs were compiled since the test began."""
    torch.compiler.reset()
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    return lambda: torch._dynamo.utils.counters["stats"]["unique_graphs"] - before


@pytest.mark.slow
@torch.no_grad()
def test_a_graph_serves_pictures_of_other_sizes(model, graphs):
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=True)
    for (h, w), size in (((11, 9), (50, 61)), ((8, 12), (40, 63)), ((7, 10), (45, 52))):
        image = torch.rand(1, 3, h, w)
        torch.testing.assert_close(compiled(image, size), model(image, size))
    assert graphs() <= 2  # one for maps with rows beyond a band's reach, one without


@pytest.mark.slow
@torch.no_grad()
def test_one_graph_serves_any_number_of_positions(model, graphs):
    maps = geometry.plan(11, 9, SCALES, 2)
    compiled = torch.compile(model.query, fullgraph=True, backend="aot_eager", dynamic=True)
    # none of them 2, 3, 9 or 11: torch takes equal sizes of a first call for one
    for batch, count in ((4, 7), (5, 10), (6, 12)):
        arguments = positions(batch, count)
        torch.testing.assert_close(compiled(*arguments, maps=maps), model.query(*arguments, maps=maps))
    assert graphs() == 1


@torch.no_grad()
def test_exports_for_any_batch_and_number_of_positions(model):
    batch, count = torch.export.Dim("batch", min=1, max=64), torch.export.Dim("count", min=1, max=4096)
    program = torch.export.export(
        Enlarge(model, (18, 13)), (torch.rand(2, 3, 7, 5),), dynamic_shapes=({0: batch},)
    )
    image = torch.rand(5, 3, 7, 5)
    torch.testing.assert_close(program.module()(image), model(image, (18, 13)))

    query = Query(model, geometry.plan(11, 9, SCALES, 2))
    shapes = ({0: batch}, {0: batch, 1: count}, {0: batch})
    program = torch.export.export(query, positions(2, 7), dynamic_shapes=shapes)
    arguments = positions(5, 13)
    torch.testing.assert_close(program.module()(*arguments), query(*arguments))


@torch.no_grad()
def test_exports_for_pictures_of_any_size_that_pass_the_same_stages(model):
    auto = torch.export.Dim.AUTO
    enlarge = Enlarge(model, (50, 61))
    program = torch.export.export(enlarge, (torch.rand(1, 3, 7, 5),), dynamic_shapes=({2: auto, 3: auto},))
    for size in ((8, 9), (12, 11)):
        image = torch.rand(1, 3, *size)
        torch.testing.assert_close(program.module()(image), enlarge(image))
    with pytest.raises(AssertionError, match="Guard failed"):
        program.module()(torch.rand(1, 3, 20, 25))  # ×2.5: one stage


@pytest.mark.parametrize("kind", ["points", *(pytest.param(k, marks=pytest.mark.slow) for k in KINDS[1:])])
def test_a_compiled_step_under_autocast(kind):
    """The compiled backward pass computes the forward pass again, in the dtypes it had."""
    call = predict(kind)
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    truth, true_grads = step(small_model("reference"), call, wide=True)
    eager, eager_grads = step(small_model("torch"), call, autocast=torch.bfloat16)
    out, grads = step(small_model("torch"), compiled, autocast=torch.bfloat16)
    assert out.dtype == eager.dtype == torch.float32
    assert_as_good(out, eager, truth)
    assert_as_good(*(share(g, true_grads) for g in (grads, eager_grads, true_grads)))


def test_a_compiled_step_with_a_checkpoint():
    call = predict("points")
    compiled = torch.compile(
        lambda model, x: checkpoint(call, model, x, use_reentrant=False), fullgraph=True, backend="aot_eager"
    )
    (out, grads), (other_out, other_grads) = (step(small_model("torch"), run) for run in (call, compiled))
    torch.testing.assert_close(other_out, out)
    torch.testing.assert_close(other_grads, grads)


def queries(kind: str) -> Queries:
    if kind == "Grid":
        return Pixels.whole((9, 7)).on((4, 3))
    if kind == "Points":
        return Points(torch.randint(-1, 5, (2, 6, 2)), torch.rand(2, 6, 2) - 0.5)
    return Raster(torch.rand(2, 1, 4, 3, 2) - 0.5)


@pytest.mark.parametrize("kind", ["Grid", "Points", "Raster"])
def test_opcheck(kind):
    torch.manual_seed(0)
    dim, heads = 8, 2
    maps = [torch.randn(2, dim, 4, 3) for _ in range(3)]
    stage = [torch.randn(heads, 64), torch.randn(heads)]
    mlp = [torch.randn(6, 9 * dim + 2), torch.randn(3, 6), torch.randn(6), torch.randn(3)]
    tensors = [t.requires_grad_() for t in (*maps, *stage, *mlp)]
    where = queries(kind)
    previous, base = (torch.randn(2, where.count, 3, requires_grad=True) for _ in range(2))
    cell = torch.rand(2, 2)
    arguments = (tensors, kind, query_tensors(where), cell, previous, base, heads, 1, 0.75, "torch")
    torch.library.opcheck(ops._decode_stage, arguments)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradients_come_in_the_layout_that_the_compiler_was_promised(layout):
    generator = torch.Generator().manual_seed(3)
    maps = [torch.randn(2, 8, 4, 3, generator=generator).contiguous(memory_format=layout) for _ in range(3)]
    shapes = [(2, 64), (2,), (6, 9 * 8 + 2), (3, 6), (6,), (3,)]
    tensors = [*maps, *(torch.randn(s, generator=generator) / 8 for s in shapes)]
    where = [torch.rand(2, 1, 4, 3, 2, generator=generator) - 0.5]
    args = (torch.randn(2, 12, 3), tensors, "Raster", where, torch.full((2, 2), 0.5), 2, 1, 0.75, "auto")
    grads = torch.ops.clit_zoo.decode_stage_backward(*args)
    assert [g.stride() for g in grads] == [t.stride() for t in tensors]
    assert grads[0].abs().max() > 0
