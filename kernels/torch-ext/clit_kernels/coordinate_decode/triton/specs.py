"""The kernels of this op at the shapes of the registered models, for compile_table.py."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

from ...query_pointers import GRID, POINTS, RASTER
from ...tile_table import Target
from ...triton_support import DTYPES, KernelSpec, spec
from . import backward, kernels, tiles

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

MODES = {"grid": GRID.value, "points": POINTS.value, "raster": RASTER.value}


class _Setting(NamedTuple):
    """A dtype on a chip, with the precision of its products and the setting in words."""

    target: Target
    precision: str
    label: str


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
                setting = _Setting(Target(arch, dtype), precision, label + " tf32" * (precision == "tf32"))
                for slots in SLOTS:
                    tile = tiles.tile("hoisted", setting.target, shape, slots)
                    constants = shape | {"PRODUCTS": tiles.PRODUCTS}
                    yield _spec("hoisted", kernels.hoisted, setting, f"slots={slots}", constants, tile)
                yield from _any_queries(setting, shape)
                yield from _later_layers(setting, widths)


def _any_queries(setting: _Setting, shape: dict[str, int]) -> Iterator[KernelSpec]:
    for name, function in (
        ("direct", kernels.direct),
        ("grad_first", backward.grad_first),
        ("grad_queries", backward.grad_queries),
    ):
        tile = tiles.tile(name, setting.target, shape)
        for kind, mode in MODES.items():
            if setting.precision == "tf32" and kind != "grid":
                continue
            constants = shape | {"MODE": mode, "ADD_VALUES": kind != "raster"}
            yield _spec(name, function, setting, kind, constants, tile)
    tile = tiles.tile("grad_raster", setting.target, shape)
    yield _spec("grad_raster", backward.grad_raster, setting, "raster", shape, tile)


def _later_layers(setting: _Setting, widths: tuple[int, ...]) -> Iterator[KernelSpec]:
    chains: set[tuple[int, ...]] = set(pairwise(widths))
    chains |= {widths[-3:]} if widths[0] > 128 else {widths}
    for chain in sorted(chains):
        last = chain[-1] == 16
        constants = {
            "WIDTHS": chain,
            "OUT": 3 if last else chain[-1],
            "LAST": last,
            "HAS_PREVIOUS": True,
            "HAS_BASE": True,
        }
        tile = tiles.mlp_tile(setting.target, chain)
        name = "-".join(map(str, chain))
        yield _spec("mlp", kernels.mlp, setting, name, constants, tile)
        if last and setting.target.dtype != "fp32":  # under autocast the skip and the picture stay float32
            wide = {"base_ptr": "*fp32", "out_ptr": "*fp32"}
            yield _spec("mlp", kernels.mlp, setting, f"{name} onto fp32", constants, tile, wide)


def _spec(
    name: str, function: Any, setting: _Setting, words: str, constants: dict[str, Any], tile: dict[str, int],
    pointers: dict[str, str] | None = None,
) -> KernelSpec:  # fmt: skip
    others = POINTERS | ({"out_ptr": "*fp32"} if name == "grad_first" else pointers or {})
    products = setting.target.dtype != "fp32" or setting.precision == "tf32"
    return spec(
        f"coordinate_decode/{name}", function, setting.target.dtype,
        constants | {"PRECISION": setting.precision}, tile, f"{setting.label} {words}", others, products,
    )  # fmt: skip
