"""torch.compile, torch.export and opcheck see the decoder as whole operators."""

import pytest
import torch

import clit_zoo
from clit_kernels import Points, Queries, Raster
from clit_zoo import geometry, ops

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
    coords, sizes = torch.rand(1, 7, 2) * 2 - 1, geometry.plan(11, 9, (50, 61), 2)
    compiled = torch.compile(model.query, fullgraph=True, backend="aot_eager")
    found, wanted = (
        torch.autograd.grad(query(image, coords, cell, sizes=sizes).square().sum(), list(model.parameters()))
        for query in (compiled, model.query)
    )
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b)


def test_the_model_exports(model):
    image = torch.rand(2, 3, 7, 5)
    with torch.no_grad():
        program = torch.export.export(Enlarge(model, (18, 13)), (image,))
        other = torch.rand(2, 3, 7, 5)
        torch.testing.assert_close(program.module()(other), model(other, (18, 13)))


def queries(kind: str) -> Queries:
    if kind == "Grid":
        return geometry.grid((4, 3), (9, 7), torch.device("cpu"))
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
    arguments = (tensors, kind, list(where), cell, previous, base, heads, 1, 0.75, "hoisted")
    torch.library.opcheck(ops._decode_stage, arguments)
