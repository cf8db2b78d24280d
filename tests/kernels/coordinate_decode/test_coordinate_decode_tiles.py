"""The tile that the hoisted kernel of coordinate_decode has by itself."""

import pytest

from clit_kernels.coordinate_decode.triton import tiles
from clit_kernels.tile_table import Target


@pytest.mark.parametrize(
    ("arch", "dtype", "width", "fit"),
    [
        *(
            (arch, dtype, 32, True)
            for arch in ("sm_80", "sm_89", "sm_90", "gfx942")
            for dtype in ("fp32", "bf16")
        ),
        ("sm_90", "bf16", 64, True),
        ("sm_80", "bf16", 64, True),  # with a smaller tile
        ("sm_89", "fp32", 64, False),
        ("sm_120", "fp32", 64, False),
        ("sm_75", "fp32", 32, True),
        ("gfx942", "fp32", 64, True),
        (
            "sm_90",
            "bf16",
            128,
            True,
        ),  # 128 channels fit with a smaller tile in this kernel, not in the others
        ("sm_90", "fp32", 128, False),
    ],
)
def test_tiles_that_fit_the_chip(arch, dtype, width, fit):
    """As compiled; where none fits, the direct order is taken."""
    shape = tiles.constants(8 * width, 8, 3, 256)
    target = Target(arch, dtype)
    tile = tiles.tile("hoisted", target, shape, 16)
    assert tiles.hoisted_fits(tile, target, shape) == fit
