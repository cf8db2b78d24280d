"""The kernels of this op at the shapes of the registered models, for compile_table.py."""

from collections.abc import Iterator

from ...query_pointers import GRID, POINTS, RASTER
from ...tile_table import Target
from ...triton_support import DTYPES, KernelSpec, spec
from . import backward, kernels, tiles

SHAPES = ((256, 8, 3), (64, 4, 1))
"""(C, heads, radius) of the paper's models and of the light one."""

MODES = {"grid": (GRID.value, 16), "points": (POINTS.value, 1), "raster": (RASTER.value, 1)}
"""The kinds of queries, and how many a feature pixel has: 16 at x4."""

FLOATS = dict.fromkeys(
    ("table_y_ptr", "table_x_ptr", "offset_ptr", "row_offset_ptr", "col_offset_ptr", "mean_ptr"), "*fp32"
)
INDICES = dict.fromkeys(("where_ptr", "col_ptr"), "*i64")
STARTS = ("row_start_ptr", "col_start_ptr", "start_ptr", "order_ptr")


def specs(arch: str) -> Iterator[KernelSpec]:
    """Every kernel x shape x dtype, and the kinds of queries where the code differs."""
    for channels, heads, radius in SHAPES:
        shape = tiles.constants(channels, heads, radius)
        for dtype in DTYPES.values():
            label = f"{dtype} C={channels} H={heads} K={shape['SIDE']}"
            yield from _forward(Target(arch, dtype), label, shape)
            yield from _backward(Target(arch, dtype), label, shape)


def _spec(
    name: str, target: Target, label: str, shape: dict[str, int], slots: int, tensor_cores: bool = False,
    out: str | None = None, starts: str = "*i32", **constants: object,
) -> KernelSpec:  # fmt: skip
    pointers = FLOATS | INDICES | dict.fromkeys(STARTS, starts) | ({"out_ptr": out} if out else {})
    function = getattr(backward if name.startswith("backward") else kernels, name)
    tile = tiles.tile(name, target, shape, slots)
    return spec(
        f"local_attention/{name}", function, target.dtype, shape | constants, tile, label, pointers,
        tensor_cores,
    )  # fmt: skip


def _forward(target: Target, label: str, shape: dict[str, int]) -> Iterator[KernelSpec]:
    """float32 on NVIDIA's chips comes twice where there are products: exact, and as tf32."""
    bias = tiles.bias_entries(shape["SIDE"])
    wide = target.dtype == "fp32"
    for precision in ("ieee", "tf32") if wide and target.arch.startswith("sm_") else ("ieee",):
        named = label + " tf32" * (precision == "tf32")
        products = not wide or precision == "tf32"
        yield _spec("forward_grid", target, named, shape, 16, products, PRECISION=precision, BIAS=bias)
    for kind, (mode, _) in MODES.items():
        yield _spec("forward_any", target, f"{label} {kind}", shape, 1, MODE=mode)


def _backward(target: Target, label: str, shape: dict[str, int]) -> Iterator[KernelSpec]:
    for kind, (mode, slots) in MODES.items():
        named, listed = f"{label} {kind}", kind == "points"
        yield _spec("backward_queries", target, named, shape, slots, MODE=mode)
        for of_keys in (True, False):
            yield _spec(
                "backward_map", target, f"{named} {'k' if of_keys else 'q'}", shape, slots,
                starts="*i64" if listed else "*i32",
                MODE=mode, MARGIN=shape["SIDE"] // 2 if listed else 0, OF_KEYS=of_keys,
            )  # fmt: skip
    for kind, repeats in (("grid", 1000), ("points", 1)):
        yield _spec("backward_table", target, f"{label} {kind}", shape, repeats, out="*fp32", AXIS=0)
