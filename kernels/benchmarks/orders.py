"""Both orders of work around the point where the cost rule switches, and whether it picks the faster one.

The decoder's first layer is summed hoisted (U once per feature pixel) or direct (per query); which is faster
depends on the queries per feature pixel. ``prefer_hoisted`` decides: in ``coordinate_decode/hoisted.py`` for
the PyTorch backend, in ``coordinate_decode/launch.py`` for Triton.
"""

import importlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import stage_cases
import torch
from measure import Case, Check, Row, measure
from torch import Tensor

MODULES = {
    "hoisted": ("clit_kernels.coordinate_decode.hoisted", "clit_kernels.decode_stage.hoisted"),
    "triton": ("clit_kernels.coordinate_decode.launch",),
}
"""Where each backend looks its ``prefer_hoisted`` up."""

PER_PIXEL = {1: (1, 1), 2: (1, 2), 3: (1, 3), 4: (2, 2), 5: (1, 5), 6: (2, 3)}
"""Queries per feature pixel, and how many rows and columns of them."""

ORDERS = ("direct", "hoisted")

CLOSE = 1.1
"""Times this near to each other make either order a good choice."""


@contextmanager
def forced(backend: str, order: str | None) -> Iterator[list[bool]]:
    """Within the block ``backend`` takes this order (None: the rule's); the list takes its words."""
    said: list[bool] = []

    def answer(rule: Any, *args: Any) -> bool:
        said.append(bool(rule(*args)))
        return said[-1] if order is None else order == "hoisted"

    with ExitStack() as stack:
        for name in MODULES[backend]:
            module = importlib.import_module(name)
            stack.enter_context(
                patch.object(module, "prefer_hoisted", partial(answer, module.prefer_hoisted))
            )
        yield said


def order_case(
    backend: str,
    op: str,
    model: str,
    size: tuple[int, int],
    per_pixel: int,
    dtype: torch.dtype,
    seconds: float,
) -> Case:
    """An op with so many queries per feature pixel; its backends are the two orders."""
    rows, cols = PER_PIXEL[per_pixel]
    output = (size[0] * rows, size[1] * cols)
    base = stage_cases.stage_case(op, model, size, output, dtype, ORDERS, {}, seconds=seconds)

    def run(x: Any, order: str) -> Tensor:
        with forced(backend, order):
            return stage_cases.run(x, backend)

    def check(x: Any, order: str) -> Check:
        with forced(backend, order):
            return stage_cases.check(x, backend)

    return Case(
        f"{op} {model} {per_pixel}/pixel",
        ORDERS, base.prepare, run, check=check, exact=base.exact, seconds=seconds,
        operations=base.operations, dtype=dtype,
        facts={**base.facts, "queries_per_pixel": per_pixel, "orders_of": backend},
    )  # fmt: skip


def order_rows(
    backend: str, op: str, model: str, size: tuple[int, int], per_pixel: int, device: torch.device,
    *,
    dtype: torch.dtype = torch.float32, seconds: float = 1.0,
) -> list[Row]:  # fmt: skip
    """Both orders' rows, each with the rule's choice, the faster one, and their times' ratio."""
    case = order_case(backend, op, model, size, per_pixel, dtype, seconds)
    rows = measure(case, device)
    x = case.prepare(device)
    with forced(backend, None) as said:
        stage_cases.run(x, backend)
    chosen = ORDERS[said[0]]
    times = {row["backend"]: row["median_s"] for row in rows if "median_s" in row}
    if len(times) == 2:
        faster = min(times, key=times.__getitem__)
        loss = times[chosen] / times[faster]
        words = f"rule takes {chosen}"
        for row in rows:
            row |= {"rule": chosen, "faster": faster, "loss": loss}
        rows[-1]["promises"] = {f"{words}, {loss:.2f} times the faster's time": loss <= CLOSE}
    return rows
