"""Looking tiles up: what is asked for, the rows of the chip's table, the kernel's own."""

import json
import re

import pytest

from clit_kernels import tile_table
from clit_kernels.tile_table import Target


def test_the_first_row_that_agrees_gives_the_tile(tmp_path, monkeypatch):
    rows = [
        {"kernel": "op/a", "when": {"dtype": "bf16", "side": 7}, "tile": {"SLOTS": 32, "num_warps": 8}},
        {"kernel": "op/a", "when": {"dtype": "bf16"}, "tile": {"SLOTS": 64}},
        {"kernel": "op/b", "when": {}, "tile": {"SLOTS": 1}},
    ]
    (tmp_path / "sm_90.json").write_text(json.dumps(rows))
    monkeypatch.setattr(tile_table, "FOLDER", tmp_path)
    tile_table.rows.cache_clear()
    default = {"SLOTS": 16, "num_warps": 4, "num_stages": 1}
    try:
        hopper = Target("sm_90", "bf16")
        assert hopper.tile("op/a", default, side=7) == default | rows[0]["tile"]
        assert hopper.tile("op/a", default, side=3) == default | rows[1]["tile"]
        assert Target("sm_90", "fp32").tile("op/a", default, side=7) == default
        assert Target("sm_80", "bf16").tile("op/a", default, side=7) == default
        asked = hopper._replace(asked={"op/a": {"SLOTS": 2}})
        assert asked.tile("op/a", default, side=7) == default | {"SLOTS": 2}
        assert asked.tile("op/b", default) == default | {"SLOTS": 1}
    finally:
        tile_table.rows.cache_clear()


@pytest.mark.parametrize("path", sorted(tile_table.FOLDER.glob("*.json")), ids=lambda p: p.name)
def test_shipped_tables_are_complete_rows(path):
    assert re.fullmatch(r"sm_\d+|gfx\w+", path.stem)
    for row in json.loads(path.read_text()):
        assert set(row) == {"kernel", "when", "tile"} and row["kernel"].count("/") == 1
        assert row["tile"] and all(isinstance(n, int) and n > 0 for n in row["tile"].values())
