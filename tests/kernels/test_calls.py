"""Calls of the ops: positions and cells are constants to every backend; a stage's calls of its two ops."""

import pytest
import torch
from interpreter import BACKENDS, DEVICE
from misfits import OPS, arguments, call, moved

from clit_kernels import Points, StageCall, StageWeights
from clit_kernels.queries import as_points, tensors

KINDS = ("points", "grid", "raster")
# the interpreter takes seconds for each, and a stage's are both ops'
INTERPRETED = {("local_attention", "points"), ("coordinate_decode", "raster"), ("decode_stage", "points")}
CASES = [
    (op, kind, backend)
    for op in OPS
    for kind in KINDS
    for backend in BACKENDS
    if backend != "triton" or (op, kind) in INTERPRETED
]


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize(("op", "kind", "backend"), CASES)
def test_no_gradient_reaches_positions_and_cells(op, kind, backend):
    fitting = moved(arguments(kind), DEVICE)
    # copies: the queries are those of other tests too
    queries = type(fitting["queries"])(*(t.clone() for t in tensors(fitting["queries"])))
    cell = fitting["cell"].clone()
    fitting |= {"queries": queries, "cell": cell}
    asking = [t.requires_grad_() for t in (*tensors(queries), cell) if t.is_floating_point()]
    value = {"local_attention": "q", "coordinate_decode": "attention", "decode_stage": "v"}[op]
    fitting[value] = fitting[value].clone().requires_grad_()
    call(op, fitting, backend).square().sum().backward()
    assert all(t.grad is None for t in asking)
    assert fitting[value].grad.abs().max() > 0
    # and where nothing else asks
    fitting[value] = fitting[value].detach()
    assert not call(op, fitting, backend).requires_grad


def test_a_stages_calls_and_its_parts():
    a = arguments("grid")
    weights = StageWeights(**{name: a[name] for name in StageWeights._fields})
    stage = StageCall(a["q"], a["k"], a["v"], a["queries"], weights, a["cell"], a["previous"], 0.5, a["base"])
    attention, decoding = stage.attention(), stage.decoding(a["attention"])
    assert all(getattr(attention, n) is a[n] for n in ("q", "k", "queries", "proj_weight", "proj_bias"))
    assert (attention.heads, attention.radius, decoding.gain) == (2, 1, 0.5)
    names = ("attention", "v", "queries", "mlp_weights", "mlp_biases", "cell", "previous", "base")
    assert all(getattr(decoding, n) is a[n] for n in names)
    points = as_points(a["queries"], 2)
    part = stage.part(points, 3, 9)
    assert isinstance(part.queries, Points) and part.queries.count == 6
    assert torch.equal(part.queries.index, points.index[:, 3:9])
    assert torch.equal(part.previous, a["previous"][:, 3:9]) and torch.equal(part.base, a["base"][:, 3:9])
    assert part.q is stage.q and part.weights is weights
