"""Which tile each kernel gets: a row of the chip's table, or these heuristics; and the kernels' constants.

The defaults fit the 64 KiB of shared memory of a gfx942 and the 99 KiB of consumer GPUs.
"""

from ...queries import Grid, Queries, Raster
from ...tile_table import Target
from ...triton_support import power_of_two, width_block

MAX_WIDTH = 128
"""Channels of one head that the kernels take."""

MAX_RADIUS = 4
"""Largest window radius: 9 x 9 taps."""

GRID_WINDOW = 4096
"""Taps x channels of one head (both rounded up) up to which ``forward_grid`` keeps a window on chip."""


def constants(channels: int, heads: int, radius: int) -> dict[str, int]:
    """The constexpr arguments that a shape decides."""
    width, side = channels // heads, 2 * radius + 1
    return {
        "HEADS": heads,
        "WIDTH": width,
        "WIDTH_BLOCK": width_block(width),
        "SIDE": side,
        "TAPS": max(16, power_of_two(side * side)),
    }


def bias_entries(side: int) -> int:
    """BIAS of ``forward_grid``: 2 K table entries of a query, each axis' K rounded up."""
    return max(16, 2 * power_of_two(side))


def slots_per_pixel(queries: Queries, h: int, w: int) -> int:
    """About how many queries each feature pixel has; read from shapes, so that no device is waited for."""
    if isinstance(queries, Grid):
        return -(-queries.row.shape[0] // h) * -(-queries.col.shape[0] // w)
    if isinstance(queries, Raster):
        return queries.offset.shape[1]
    return -(-queries.count // (h * w))


def tile(kernel: str, target: Target, shape: dict[str, int], slots: int = 1) -> dict[str, int]:
    """The tile of one kernel of this op.

    Args:
        kernel: its name.
        target: what it is built for.
        shape: the kernel's ``constants``.
        slots: about how many queries each feature pixel has.
    """
    window = shape["TAPS"] * shape["WIDTH_BLOCK"]
    width, taps = shape["WIDTH_BLOCK"], shape["TAPS"]
    fits = min(16, power_of_two(slots))
    wide = 8 if window > 4096 else 4
    most = 32 if target.dtype == "fp32" else 64  # heads x taps that one warp of forward_grid takes
    kept = 8192 if target.dtype == "fp32" else 16384  # heads x taps x channels that fit beside the rest
    group = min(power_of_two(shape["HEADS"]), max(1, 8 * most // taps), max(1, kept // window))
    default = {
        "forward_grid": {"GROUP": group, "SLOTS": 16, "num_warps": min(8, max(2, group * taps // most))},
        "forward_any": {"QUERIES": max(1, 4096 // window), "num_warps": wide},
        "backward_queries": {"QUERIES": max(1, 4096 // window), "num_warps": wide},
        "backward_map": {"PIXELS": max(1, 2048 // (fits * width)), "SLOTS": fits},
        "backward_table": {"ENTRIES": 1 if slots > 1 else 16, "REPEATS": 16 if slots > 1 else 1},
    }[kernel]
    return target.tile(
        f"local_attention/{kernel}", {"num_warps": 4, "num_stages": 1} | default,
        heads=shape["HEADS"], width=shape["WIDTH"], side=shape["SIDE"], slots=fits,
    )  # fmt: skip
