"""The tiles that local_attention's kernels have by themselves."""

from clit_kernels.local_attention.triton.tiles import constants, tile
from clit_kernels.tile_table import Target


def test_default_tiles_are_powers_of_two_for_every_shape():
    kernels = ("forward_grid", "forward_any", "backward_queries", "backward_map", "backward_table")
    for channels, heads, radius in ((256, 8, 3), (64, 4, 1), (180, 6, 3), (5, 1, 0), (512, 4, 4)):
        shape = constants(channels, heads, radius)
        assert shape["TAPS"] >= (2 * radius + 1) ** 2 and shape["WIDTH_BLOCK"] >= channels // heads
        for name in kernels:
            for slots in (1, 2, 9, 300):
                for dtype in ("fp32", "bf16"):
                    chosen = tile(name, Target("sm_90", dtype), shape, slots)
                    assert all(n > 0 and n & (n - 1) == 0 for n in chosen.values()), (name, chosen)
