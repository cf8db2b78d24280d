"""What must hold of the gradients of an op's call with positions and cells that ask for some."""

import torch
from misfits import arguments, call, moved

KINDS = ["points", "grid", "raster"]


def assert_constant(op: str, kind: str, backend: str, device: torch.device) -> None:
    """No gradient of offsets and cell, the usual ones of the rest."""
    fitting = moved(arguments(kind), device)
    # copies: the queries are those of other tests too
    queries = type(fitting["queries"])(*(t.clone() for t in fitting["queries"]))
    cell = fitting["cell"].clone()
    fitting |= {"queries": queries, "cell": cell}
    asking = [t.requires_grad_() for t in (*queries, cell) if t.is_floating_point()]
    value = {"local_attention": "q", "coordinate_decode": "attention", "decode_stage": "v"}[op]
    fitting[value] = fitting[value].clone().requires_grad_()
    call(op, fitting, backend).square().sum().backward()
    assert all(t.grad is None for t in asking)
    assert fitting[value].grad.abs().max() > 0
    # and where nothing else asks
    fitting[value] = fitting[value].detach()
    assert not call(op, fitting, backend).requires_grad
