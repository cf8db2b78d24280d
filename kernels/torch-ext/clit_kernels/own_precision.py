"""Ops decide their dtypes themselves, also under autocast.

Autocast would compute float32 matrix products in bfloat16, that of the position encoding among them. So it is
switched off inside every op: maps that came in bfloat16 are still computed in bfloat16.
"""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def own_precision(op: Callable[P, R]) -> Callable[P, R]:
    """``op``, whose first argument is a tensor, without autocast on that tensor's device."""

    @wraps(op)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        first = args[0]
        assert isinstance(first, torch.Tensor)
        with torch.autocast(first.device.type, enabled=False):
            return op(*args, **kwargs)

    return run
