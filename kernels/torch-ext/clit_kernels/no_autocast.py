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


def no_autocast(op: Callable[P, R]) -> Callable[P, R]:
    """``op``, whose first argument is a call that begins with a tensor, without autocast on its device."""

    @wraps(op)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        call = args[0]
        assert isinstance(call, tuple)
        with torch.autocast(call[0].device.type, enabled=False):
            return op(*args, **kwargs)

    return run
