"""How much of an enlargement's time its convolutions and matrix products take, were there nothing else."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_unflatten

from .cases import Enlargement
from .memory import run

ROUNDS = 3

_PRODUCTS = (
    "conv2d",
    "convolution",
    "linear",
    "matmul",
    "addmm",
    "mm",
    "bmm",
    "baddbmm",
    "_linear_pointwise",
)


def share(case: Enlargement) -> dict[str, float]:
    """Least CPU seconds, in three rounds and one thread, of a run, ``whole``, and of its ``products`` alone.

    The products are noted in one run and made again on tensors of their own, as long and as laid out, with
    neither the activations that were fused with them nor anything in between. Runs and products take turns.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # products are noted in the calling thread
    try:
        with torch.inference_mode():
            with _Noted() as noted:
                run(case)
            again = [(_alone(*one), times) for one, times in noted.calls.items()]
            rounds = [(_seconds(lambda: run(case)), _seconds(lambda: _make(again))) for _ in range(ROUNDS)]
    finally:
        torch.set_num_threads(threads)
    whole, products = (min(times) for times in zip(*rounds, strict=True))
    return {"whole": whole, "products": products}


Leaf = tuple[Any, ...]


class _Noted(TorchDispatchMode):
    """Counts products by what they are called with, tensors by their layout."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[tuple[Any, Any, tuple[Leaf, ...]]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in _PRODUCTS:
            leaves, tree = tree_flatten((args, kwargs or {}))
            self.calls[func, tree, tuple(_layout(leaf) for leaf in leaves)] += 1
        return func(*args, **(kwargs or {}))


def _layout(leaf: Any) -> Leaf:
    if isinstance(leaf, Tensor):
        return "tensor", leaf.dtype, tuple(leaf.shape), leaf.stride()
    return "value", None if leaf == "gelu" else leaf


def _alone(func: Any, tree: Any, leaves: tuple[Leaf, ...]) -> Callable[[], Any]:
    """The call on tensors of its own."""

    def made(leaf: Leaf) -> Any:
        if leaf[0] == "value":
            return leaf[1]
        _, dtype, shape, stride = leaf
        numbers = 1 + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
        return torch.randn(numbers).to(dtype).as_strided(shape, stride)

    args, kwargs = tree_unflatten([made(leaf) for leaf in leaves], tree)
    if func.overloadpacket.__name__ == "_linear_pointwise":
        args = (*args[:3], "none", [], None)
    return lambda: func(*args, **kwargs)


def _make(calls: list[tuple[Callable[[], Any], int]]) -> None:
    for call, times in calls:
        for _ in range(times):
            call()


def _seconds(work: Callable[[], Any]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start
