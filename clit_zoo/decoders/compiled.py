"""clit_kernels as custom operators, so that torch.compile and torch.export see one opaque node each.

The kernels decide by tensor values (how many output rows meet a feature row) and launch Triton, which a
tracer cannot follow. Eager calls bypass the operators: there autograd keeps the forward's intermediates,
while an operator's backward computes them again.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from clit_kernels import Grid, Points, Queries, Raster, StageCall, StageWeights
from clit_kernels import decode_stage as decode_stage_eager
from clit_kernels.queries import tensors

_KINDS: dict[str, type] = {"Grid": Grid, "Points": Points, "Raster": Raster}

# A grid's rows are read back from the device, which no CUDA graph can hold.
_TAGS = (torch.Tag.cudagraph_unsafe,) if hasattr(torch.Tag, "cudagraph_unsafe") else ()


def decode_stage(call: StageCall, *, backend: str = "auto") -> Tensor:
    """``clit_kernels.decode_stage``, traceable."""
    if not torch.compiler.is_compiling():
        return decode_stage_eager(call, backend=backend)
    q, k, v, queries, stage, cell, previous, gain, base, nearest = call
    return _decode_stage(
        [q, k, v, *stage.tensors()], type(queries).__name__, tensors(queries), cell, previous, base,
        stage.heads, stage.radius, gain, backend, nearest,
    )  # fmt: skip


@torch.library.custom_op("clit_zoo::decode_stage", mutates_args=(), tags=_TAGS)
def _decode_stage(
    tensors: list[Tensor],
    kind: str,
    where: list[Tensor],
    cell: Tensor,
    previous: Tensor | None,
    base: Tensor | None,
    heads: int,
    radius: int,
    gain: float,
    backend: str,
    nearest: bool = False,
) -> Tensor:
    return _run(tensors, kind, where, cell, previous, base, heads, radius, gain, backend, nearest)


def _run(
    tensors: list[Tensor], kind: str, where: list[Tensor], cell: Tensor, previous: Tensor | None,
    base: Tensor | None, heads: int, radius: int, gain: float, backend: str, nearest: bool,
) -> Tensor:  # fmt: skip
    q, k, v, proj_weight, proj_bias, *mlp = tensors
    half = len(mlp) // 2
    stage = StageWeights(proj_weight, proj_bias, mlp[:half], mlp[half:], heads, radius)
    queries: Queries = _KINDS[kind](*where)
    call = StageCall(q, k, v, queries, stage, cell, previous, gain, base, nearest)
    return decode_stage_eager(call, backend=backend)


@_decode_stage.register_fake
def _(tensors, kind, where, cell, previous, base, heads, radius, gain, backend, nearest=False):
    if kind == "Grid":
        count = where[0].shape[0] * where[2].shape[0]
    elif kind == "Points":
        count = where[0].shape[1]
    else:
        count = where[0].shape[1] * where[0].shape[2] * where[0].shape[3]
    v, out = tensors[2], tensors[-1].shape[0]
    dtype = v.dtype if base is None else torch.promote_types(v.dtype, base.dtype)
    return v.new_empty(v.shape[0], count, out, dtype=dtype)


@torch.library.custom_op("clit_zoo::decode_stage_backward", mutates_args=(), tags=_TAGS)
def _decode_stage_backward(
    grad: Tensor,
    tensors: list[Tensor],
    kind: str,
    where: list[Tensor],
    cell: Tensor,
    heads: int,
    radius: int,
    gain: float,
    backend: str,
    nearest: bool = False,
) -> list[Tensor]:
    def differentiate() -> list[Tensor]:
        inputs = [t.detach().requires_grad_() for t in tensors]
        out = _run(inputs, kind, where, cell, None, None, heads, radius, gain, backend, nearest)
        grads = torch.autograd.grad(out, inputs, grad.to(out.dtype), allow_unused=True)
        # in the memory format that was promised to the compiler, the tensor's own
        return [
            torch.zeros_like(t) if g is None else torch.empty_like(t).copy_(g)
            for g, t in zip(grads, tensors, strict=True)
        ]

    return _in_new_thread(differentiate, grad.device)


def _in_new_thread(work: Callable[[], list[Tensor]], device: torch.device) -> list[Tensor]:
    """Run ``work`` where autograd records: it is off inside a custom operator, by a thread-local switch.

    Its backward pass must run in that thread too: autograd's own thread for the device is the one that waits
    here, and would wait for itself.
    """
    stream = torch.cuda.current_stream(device) if device.type == "cuda" else None

    def run() -> list[Tensor]:
        with torch.autograd.set_multithreading_enabled(False), torch.cuda.stream(stream):
            return work()

    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(run).result()


@_decode_stage_backward.register_fake
def _(grad, tensors, kind, where, cell, heads, radius, gain, backend, nearest=False):
    return [torch.empty_like(t) for t in tensors]


def _setup_context(ctx, inputs, output) -> None:
    tensors, kind, where, cell, previous, base, *settings = inputs
    ctx.save_for_backward(cell, *where, *tensors)
    ctx.kind, ctx.where, ctx.settings = kind, len(where), settings
    ctx.added = [None if t is None else t.dtype for t in (previous, base)]


def _backward(ctx, grad):
    cell, *rest = ctx.saved_tensors
    where, tensors = rest[: ctx.where], rest[ctx.where :]
    grads = _decode_stage_backward(grad, tensors, ctx.kind, where, cell, *ctx.settings)
    gain = ctx.settings[2]
    to_previous, to_base = (
        None if dtype is None else (scale * grad).to(dtype)
        for dtype, scale in zip(ctx.added, (gain, 1), strict=True)
    )
    return grads, None, [None] * len(where), None, to_previous, to_base, None, None, None, None, None


_decode_stage.register_autograd(_backward, setup_context=_setup_context)
