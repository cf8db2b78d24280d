"""The kernels of this op at the shapes of the registered models, for compile_table.py."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

from ..places import GRID, POINTS, RASTER
from ..triton_support import DTYPES, KernelSpec
from . import kernel, kernel_backward, kernel_mlp, tiles

SHAPES = (
    (256, 8, 3, (256, 256, 256, 256, 16)),
    (64, 4, 1, (128, 64, 64, 64, 16)),
)
"""(C, heads, radius, widths of the MLP) of the paper's models and of the light one."""

SLOTS = (4, 8, 16, 32)
"""Queries of a feature pixel that a program takes at once, all that ``tiles.tile`` may answer with: x2 has 4,
x3 and x4 have 16, larger factors 32 or several times 32."""

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
MODES = {"grid": GRID.value, "points": POINTS.value, "raster": RASTER.value}


def specs(arch: str) -> Iterator[KernelSpec]:
    """Every kernel x shape x dtype, and the kinds of queries where the code differs.

    float32 on NVIDIA's chips comes twice: exact, and as tf32 (there a grid's queries stand for all kinds,
    which differ in a few index loads).
    """
    for channels, heads, radius, widths in SHAPES:
        shape = tiles.constants(channels, heads, radius, widths[0])
        for dtype in DTYPES.values():
            label = f"{dtype} C={channels} H={heads} K={shape['SIDE']}"
            for precision in ("ieee", "tf32") if dtype == "fp32" and arch.startswith("sm_") else ("ieee",):
                call = _Call(arch, dtype, precision, label + " tf32" * (precision == "tf32"))
                for slots in SLOTS:
                    tile = tiles.tile("hoisted", arch, dtype, shape, slots)
                    constants = shape | {"PRODUCTS": tiles.PRODUCTS}
                    yield _spec("hoisted", kernel.hoisted, call, f"slots={slots}", constants, tile)
                yield from _any_queries(call, shape)
                yield from _later_layers(call, widths)


class _Call(NamedTuple):
    arch: str
    dtype: str
    precision: str
    label: str


def _any_queries(call: _Call, shape: dict[str, int]) -> Iterator[KernelSpec]:
    for name, function in (
        ("direct", kernel.direct),
        ("grad_first", kernel_backward.grad_first),
        ("grad_queries", kernel_backward.grad_queries),
    ):
        tile = tiles.tile(name, call.arch, call.dtype, shape)
        for kind, mode in MODES.items():
            if call.precision == "tf32" and kind != "grid":
                continue
            constants = shape | {"MODE": mode, "ADD_VALUES": kind != "raster"}
            yield _spec(name, function, call, kind, constants, tile)
    tile = tiles.tile("grad_raster", call.arch, call.dtype, shape)
    yield _spec("grad_raster", kernel_backward.grad_raster, call, "raster", shape, tile)


def _later_layers(call: _Call, widths: tuple[int, ...]) -> Iterator[KernelSpec]:
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
        tile = tiles.mlp_tile(call.arch, call.dtype, chain)
        name = "-".join(map(str, chain))
        yield _spec("mlp", kernel_mlp.mlp, call, name, constants, tile)
        # under autocast the skip and the picture stay float32
        if constants["LAST"] and call.dtype != "fp32":
            spec = _spec("mlp", kernel_mlp.mlp, call, f"{name} onto fp32", constants, tile)
            yield spec._replace(types={**spec.types, "base_ptr": "*fp32", "out_ptr": "*fp32"})


def _spec(
    name: str, function: Any, call: _Call, setting: str, constants: dict[str, Any], tile: dict[str, int]
) -> KernelSpec:
    names = function.arg_names
    known = {k: v for k, v in (constants | tile | {"PRECISION": call.precision}).items() if k in names}
    types = {
        n: POINTERS.get(n, f"*{call.dtype}") if n.endswith("_ptr") else "i32" for n in names if n not in known
    }
    if name == "grad_first":
        types["out_ptr"] = "*fp32"
    if "gain" in types:
        types["gain"] = "fp32"
    return KernelSpec(
        f"coordinate_decode/{name}",
        function,
        types,
        known,
        tile,
        f"{call.label} {setting}",
        call.dtype != "fp32" or call.precision == "tf32",
        tuple(n for n in types if n in STRIDES),
    )
