"""The kernels of this op at the shapes of the registered models, for compile_table.py."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from ..triton_support import DTYPES, KernelSpec
from . import kernel, kernel_backward, kernel_mlp, tiles

SHAPES = (
    (256, 8, 3, (256, 256, 256, 256, 16)),
    (64, 4, 1, (128, 64, 64, 64, 16)),
)
"""(C, heads, radius, widths of the MLP) of the paper's models and of the light one."""

SLOTS = (4, 9, 16, 36)
"""Queries of each feature pixel at x2, x3, x4 and x6."""

POINTERS = {
    "constant_ptr": "*fp32",
    "bias_ptr": "*fp32",
    "row_start_ptr": "*i32",
    "col_start_ptr": "*i32",
    "row_ptr": "*i64",
    "col_ptr": "*i64",
    "grad_v_ptr": "*fp32",
}
"""Pointers that are not to numbers of the maps' dtype."""

STRIDES = ("stride_b", "stride_y", "stride_x")
MODES = {"grid": kernel.GRID.value, "points": kernel.POINTS.value, "raster": kernel.RASTER.value}


def specs(arch: str) -> Iterator[KernelSpec]:
    """Every kernel x shape x dtype, and the kinds of queries where the code differs."""
    for channels, heads, radius, widths in SHAPES:
        shape = tiles.constants(channels, heads, radius, widths[0])
        for dtype in DTYPES.values():
            label = f"{dtype} C={channels} H={heads} K={shape['SIDE']}"
            for slots in SLOTS:
                tile = tiles.tile("hoisted", arch, dtype, shape, slots)
                constants = shape | {"PRODUCTS": tiles.PRODUCTS}
                yield _spec("hoisted", kernel.hoisted, dtype, f"{label} slots={slots}", constants, tile)
            yield from _any_queries(arch, dtype, label, shape)
            yield from _later_layers(arch, dtype, label, widths)


def _any_queries(arch: str, dtype: str, label: str, shape: dict[str, int]) -> Iterator[KernelSpec]:
    for name, function in (
        ("direct", kernel.direct),
        ("grad_first", kernel_backward.grad_first),
        ("grad_queries", kernel_backward.grad_queries),
    ):
        tile = tiles.tile(name, arch, dtype, shape)
        for kind, mode in MODES.items():
            constants = shape | {"MODE": mode, "ADD_VALUES": kind != "raster"}
            yield _spec(name, function, dtype, f"{label} {kind}", constants, tile)
    tile = tiles.tile("grad_raster", arch, dtype, shape)
    yield _spec("grad_raster", kernel_backward.grad_raster, dtype, f"{label} raster", shape, tile)


def _later_layers(arch: str, dtype: str, label: str, widths: tuple[int, ...]) -> Iterator[KernelSpec]:
    chains: set[tuple[int, ...]] = set(pairwise(widths))
    chains |= {widths[-3:]} if widths[0] > 128 else {widths}
    for chain in sorted(chains):
        constants: dict[str, object] = {
            "WIDTHS": chain,
            "OUT": 3 if chain[-1] == 16 else chain[-1],
            "LAST": chain[-1] == 16,
            "HAS_PREVIOUS": True,
            "HAS_BASE": True,
        }
        name = "-".join(map(str, chain))
        yield _spec(
            "mlp", kernel_mlp.mlp, dtype, f"{label} {name}", constants, tiles.mlp_tile(arch, dtype, chain)
        )


def _spec(
    name: str, function: Any, dtype: str, label: str, constants: dict[str, Any], tile: dict[str, int]
) -> KernelSpec:
    names = function.arg_names
    known = {k: v for k, v in (constants | tile | {"PRECISION": "ieee"}).items() if k in names}
    types = {
        n: POINTERS.get(n, f"*{dtype}") if n.endswith("_ptr") else "i32" for n in names if n not in known
    }
    if name == "grad_first":
        types["out_ptr"] = "*fp32"
    if "gain" in types:
        types["gain"] = "fp32"
    divisible = tuple(n for n in types if n in STRIDES)
    return KernelSpec(
        f"coordinate_decode/{name}", function, types, known, tile, label, dtype != "fp32", divisible
    )
