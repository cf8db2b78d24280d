"""The kernels of this op at the shapes of the registered models, for compile_table.py."""

from collections.abc import Iterator

from .. import places
from ..triton_support import DTYPES, KernelSpec
from . import kernel, kernel_backward, tiles

SHAPES = ((256, 8, 3), (64, 4, 1))
"""(C, heads, radius) of the paper's models and of the light one."""

SLOTS = 16
"""Queries of each feature pixel at x4."""

MAPS = ("q_ptr", "k_ptr")
STRIDES = tuple(f"{m}_stride_{axis}" for m in "qk" for axis in "byx")
PLACES = {"where_ptr": "*i64", "offset_ptr": "*fp32", "col_ptr": "*i64", "col_offset_ptr": "*fp32"}
TABLES = {"table_y_ptr": "*fp32", "table_x_ptr": "*fp32"}


def specs(arch: str) -> Iterator[KernelSpec]:
    """Every kernel x shape x dtype, and the kinds of queries where the code differs."""
    for channels, heads, radius in SHAPES:
        shape = tiles.constants(channels, heads, radius)
        for dtype in DTYPES.values():
            label = f"{dtype} C={channels} H={heads} K={shape['SIDE']}"
            yield from _forward(arch, dtype, label, shape)
            yield from _backward(arch, dtype, label, shape)


def _spec(
    name: str, arch: str, dtype: str, label: str, shape: dict[str, int], types: dict[str, str],
    constants: dict[str, object], slots: int, tensor_cores: bool = False,
) -> KernelSpec:  # fmt: skip
    tile = tiles.tile(name, arch, dtype, shape, slots)
    function = getattr(kernel_backward if name.startswith("backward") else kernel, name)
    names = function.arg_names
    blocks = {k: v for k, v in tile.items() if k in names}
    known = {k: v for k, v in shape.items() if k in names}
    divisible = tuple(n for n in names if n in STRIDES)
    return KernelSpec(
        f"local_attention/{name}",
        function,
        types,
        known | blocks | constants,
        tile,
        label,
        tensor_cores,
        divisible,
    )


def _forward(arch: str, dtype: str, label: str, shape: dict[str, int]) -> Iterator[KernelSpec]:
    maps = dict.fromkeys(MAPS, f"*{dtype}") | dict.fromkeys(STRIDES, "i32")
    sizes = dict.fromkeys(("h", "w", "cols"), "i32")
    out = {"out_ptr": f"*{dtype}", "scale": "fp32"}
    starts = {"row_start_ptr": "*i32", "col_start_ptr": "*i32", "rows": "i32"}
    offsets = {"row_offset_ptr": "*fp32", "col_offset_ptr": "*fp32"}
    grid = maps | sizes | TABLES | starts | offsets | out
    bias = tiles.bias_entries(shape["SIDE"])
    for precision in ("ieee", "tf32") if dtype == "fp32" and arch.startswith("sm_") else ("ieee",):
        yield _spec(
            "forward_grid", arch, dtype, label + " tf32" * (precision == "tf32"), shape, grid,
            {"PRECISION": precision, "BIAS": bias}, SLOTS, dtype != "fp32" or precision == "tf32",
        )  # fmt: skip
    for mode in ("GRID", "POINTS", "RASTER"):
        yield _spec(
            "forward_any", arch, dtype, f"{label} {mode.lower()}", shape,
            maps | sizes | TABLES | PLACES | out | {"count": "i32"}, {"MODE": getattr(places, mode).value}, 1,
        )  # fmt: skip


def _backward(arch: str, dtype: str, label: str, shape: dict[str, int]) -> Iterator[KernelSpec]:
    maps = dict.fromkeys(MAPS, f"*{dtype}") | dict.fromkeys(STRIDES, "i32")
    sizes = dict.fromkeys(("count", "h", "w", "cols"), "i32")
    grads = {"weights_ptr": f"*{dtype}", "grad_ptr": f"*{dtype}", "mean_ptr": "*fp32"}
    vectors = {"query_ptr": f"*{dtype}", "grad_query_ptr": f"*{dtype}", "scale": "fp32"}
    for mode, slots in (("GRID", SLOTS), ("POINTS", 1), ("RASTER", 1)):
        named = f"{label} {mode.lower()}"
        constants: dict[str, object] = {"MODE": getattr(places, mode).value}
        yield _spec(
            "backward_queries",
            arch,
            dtype,
            named,
            shape,
            maps | sizes | PLACES | grads | vectors,
            constants,
            slots,
        )
        starts = dict.fromkeys(
            ("start_ptr", "col_start_ptr", "order_ptr"), "*i64" if mode == "POINTS" else "*i32"
        )
        gathered = {"vector_ptr": f"*{dtype}", "out_ptr": f"*{dtype}", "slots": "i32"}
        offsets = {"offset_ptr": "*fp32", "col_offset_ptr": "*fp32"}
        for of_keys in (True, False):
            constants |= {"MARGIN": shape["SIDE"] // 2 if mode == "POINTS" else 0, "OF_KEYS": of_keys}
            yield _spec(
                "backward_map", arch, dtype, f"{named} {'k' if of_keys else 'q'}", shape,
                sizes | grads | starts | gathered | offsets, constants, slots,
            )  # fmt: skip
    walk = dict.fromkeys(
        ("entries", "repeats", "inner", "entry_stride", "inner_stride", "outer_stride"), "i32"
    )
    for kind, repeats in (("grid", 1000), ("points", 1)):
        yield _spec(
            "backward_table", arch, dtype, f"{label} {kind}", shape, grads | walk | {"out_ptr": "*fp32"},
            {"AXIS": 0}, repeats,
        )  # fmt: skip
