"""Which tile each kernel gets: a row of the chip's table, or these heuristics; and the kernels' constants.

The heuristics keep accumulators within half of the register file and shared memory within the chip's limit;
nothing else about them was measured. ``python kernels/benchmarks/tune.py`` replaces them by measured ones.
"""

from torch import Tensor

from ...tile_table import Target, shared_memory
from ...triton_support import power_of_two, width_block

MAX_WIDTH = 64
"""Channels of one head that the kernels take: with 128, ``direct`` and the backward kernels need more shared
memory than any chip has."""

MAX_HIDDEN = 256
"""Neurons of one hidden layer that the kernels take: a program holds a whole row of them."""

MAX_OUT = 64
"""Output channels that the kernels take."""

PRODUCTS = 16
"""(head, tap) products that ``hoisted`` contracts at a time: the depth of one matrix instruction."""

LARGE_SHARED = ("sm_80", "sm_90", "sm_100")
"""Chips with 163 KiB of shared memory or more per block; tiles for others assume 64 KiB."""

WARPGROUP = ("sm_90", "sm_100")
"""Chips with matrix instructions that read shared memory: accumulators may take most registers."""


def constants(channels: int, heads: int, radius: int, hidden: int) -> dict[str, int]:
    """The constexpr arguments that a shape decides; ``hidden`` is the first layer's width as widened."""
    width = channels // heads
    return {
        "HEADS": heads,
        "WIDTH": width,
        "WIDTH_BLOCK": width_block(width),
        "SIDE": 2 * radius + 1,
        "HIDDEN": hidden,
    }


def shape_of(weights: Tensor, v: Tensor, hidden: int) -> dict[str, int]:
    """The ``constants`` for attention weights (B, Q, H, K*K) and values (B, C, h, w)."""
    heads, area = weights.shape[2:]
    return constants(v.shape[1], heads, (int(area**0.5) - 1) // 2, hidden)


def tile(kernel: str, target: Target, shape: dict[str, int], slots: int = 1) -> dict[str, int]:
    """The tile of one kernel of this op.

    Args:
        kernel: its name.
        target: what it is built for.
        shape: the kernel's ``constants``.
        slots: about how many queries each feature pixel has.
    """
    fits = max(4, min(32, power_of_two(slots)))
    if kernel == "hoisted":
        default = _hoisted(target, shape, fits)
        if not hoisted_fits(default, target, shape):
            default |= {"PIXELS_X": 4, "num_stages": 1}
    else:
        default = _by_query(kernel, target, shape)
    return target.tile(
        f"coordinate_decode/{kernel}", default, heads=shape["HEADS"], width=shape["WIDTH"],
        side=shape["SIDE"], hidden=shape["HIDDEN"], slots=fits,
    )  # fmt: skip


def hoisted_fits(tile: dict[str, int], target: Target, shape: dict[str, int]) -> bool:
    """Whether ``hoisted`` with this tile finds the shared memory it needs on this chip.

    Exact for one query to a row of a matrix instruction, up to 16 KiB short where several pixels share one.
    """
    rows = tile["PIXELS_Y"] * tile["PIXELS_X"] + tile["COLUMNS"]  # of v's windows and of W_1
    need = PRODUCTS * rows * shape["WIDTH_BLOCK"] * (4 if target.dtype == "fp32" else 2)
    if target.dtype != "fp32" and tile["num_stages"] > 1:
        need += 48 << 10  # measured: Triton adds this for the second stage
    if target.arch.startswith("gfx"):
        need //= 2  # there W_1's block passes through registers
    return need <= shared_memory(target.arch) << 10


def mlp_tile(target: Target, widths: tuple[int, ...]) -> dict[str, int]:
    """The tile of ``kernels.mlp`` for these layers."""
    wide = target.dtype == "fp32"
    default = {
        "ROWS": 32 if wide else 64,
        "STEP": min(widths[0], 16 if wide else 32),
        "num_warps": 8 if wide or max(widths[1:]) > 128 else 4,
        "num_stages": 2,
    }
    if target.arch in WARPGROUP and not wide and len(widths) == 2 and widths[1] > 64:
        default = {"ROWS": 128, "STEP": 64, "num_warps": 8, "num_stages": 3}
    return target.tile("coordinate_decode/mlp", default, hidden=widths[0], last=widths[-1])


def _hoisted(target: Target, shape: dict[str, int], slots: int) -> dict[str, int]:
    """W_1 is read once per pixel tile and the weights once per column tile: about square tiles read least.

    Feature pixels share a matrix instruction's 16 rows; in float32 there is none to fill. There ptxas aims at
    3 blocks per SM by default (80 registers) and spills up to 16 bytes; with maxnreg=255 it uses 120 and does
    not.
    """
    arch, wide = target.arch, target.dtype == "fp32"
    large = arch in LARGE_SHARED and not wide
    registers = {"maxnreg": 255} if wide and arch.startswith("sm_") else {}
    return registers | {
        "PIXELS_Y": 4,
        "PIXELS_X": 8 if large and slots <= 16 else 4,
        "GROUP": 1 if wide else max(1, 16 // slots),
        "SLOTS": slots,
        "COLUMNS": min(16 if wide else 32, shape["HIDDEN"]),
        "num_warps": 8,
        "num_stages": 2 if large else 1,
    }


def _by_query(kernel: str, target: Target, shape: dict[str, int]) -> dict[str, int]:
    arch, wide = target.arch, target.dtype == "fp32"
    large, warpgroup = arch in LARGE_SHARED and not wide, arch in WARPGROUP and not wide
    columns, stages = 64 if wide else 128, 2 if arch in LARGE_SHARED else 1
    depth = 32 if wide else 64  # channels, of one head or several, that meet W_1 at once
    if kernel == "direct":
        sizes = {"QUERIES": 32 if wide else 64}
        if large:
            sizes, columns, stages = {"QUERIES": 128}, 256 if warpgroup else 128, 3
    elif kernel == "grad_first":
        sizes = {"QUERIES": 16 if wide else 32}
        if large:
            sizes, depth, stages = {"QUERIES": 64}, 128, 3
    elif kernel == "grad_queries":
        sizes = {"QUERIES": 16 if wide else 128 if warpgroup else 64}
    else:
        sizes = {"PIXELS": 16 if wide else 64}
    if kernel in ("direct", "grad_first"):
        sizes["COLUMNS"] = min(shape["HIDDEN"], columns)
    group = 1
    while group * shape["WIDTH_BLOCK"] < depth and shape["HEADS"] % (2 * group) == 0:
        group *= 2
    # with 4 warps ptxas spills 1.6 kB of grad_queries in 16 bits for sm_86 and sm_89
    warps = 8 if arch in LARGE_SHARED or (kernel == "grad_queries" and not wide and "sm_" in arch) else 4
    return sizes | {"GROUP": group, "num_warps": warps, "num_stages": stages}
