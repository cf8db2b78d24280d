"""Tuning without a GPU: candidates, the climb with made-up times, and the table's rows."""

import argparse
import json
import math
import sys
import time

import pytest
import torch

pytest.importorskip("triton")

import tune
from cases import Case, compute, inputs
from tune import Score, Task, climb, merged, neighbours, sensible, why_not_kept

from clit_kernels import tile_table, triton_support

CPU = torch.device("cpu")
CALL = {"dtype": "bf16", "heads": 8, "width": 32, "side": 7, "hidden": 256, "slots": 16}
TILE = {
    "PIXELS_Y": 4, "PIXELS_X": 8, "GROUP": 1, "SLOTS": 16, "COLUMNS": 32, "num_warps": 8, "num_stages": 2,
}  # fmt: skip
HOISTED = Task("coordinate_decode/hoisted", CALL, TILE)
BEST = TILE | {"COLUMNS": 128, "num_warps": 4}
CASE = Case("decode_stage", "paper", torch.bfloat16, (8, 8), (32, 32))


def made_up(tile):
    """Fastest at COLUMNS 128 and 4 warps, three steps away; every other difference costs."""
    apart = abs(tile["COLUMNS"].bit_length() - 8) + abs(tile["num_warps"].bit_length() - 3)
    others = sum(tile[key] != value for key, value in TILE.items() if key not in ("COLUMNS", "num_warps"))
    return Score(1.0 + 0.1 * apart + 0.5 * others)


def never():
    return False


def test_neighbours_differ_by_one_step_and_keep_the_kernels_bounds():
    around = list(neighbours(HOISTED, TILE))
    for tile in around:
        changed = [key for key in TILE if tile[key] != TILE[key]]
        assert len(changed) == 1 and sensible(HOISTED, tile)
    assert {"num_stages": 3}.items() <= around[-1].items()
    # 1 x 8 rows are less than a matrix instruction's 16
    assert not any(tile["SLOTS"] == 8 for tile in around)
    assert not any(tile["COLUMNS"] > 256 for tile in neighbours(HOISTED, TILE | {"COLUMNS": 256}))
    direct = Task("coordinate_decode/direct", CALL | {"heads": 6}, {})
    tile = {"QUERIES": 16, "COLUMNS": 16, "GROUP": 2, "num_warps": 4, "num_stages": 1}
    assert {t["GROUP"] for t in neighbours(direct, tile)} == {1, 2}, "GROUP must divide 6 heads"
    assert min(t["QUERIES"] for t in neighbours(direct, tile)) == 16
    limited = TILE | {"maxnreg": 168}
    assert all(t["maxnreg"] == 168 for t in neighbours(HOISTED, limited)), "a limit is not searched"


def test_the_climb_finds_the_fastest_and_tries_nothing_twice():
    outcome = climb(HOISTED, made_up, never)
    assert outcome.tile == BEST and outcome.finished
    assert outcome.seconds(TILE) == pytest.approx(1.3) and outcome.seconds(BEST) == pytest.approx(1.0)
    tiles = [json.dumps(tile, sort_keys=True) for tile, _ in outcome.tried]
    assert len(tiles) == len(set(tiles))


def test_a_tile_that_fails_or_is_wrong_is_never_chosen():
    def score(tile):
        return Score(None, "result 0 is off") if tile["COLUMNS"] == 64 else made_up(tile)

    assert climb(HOISTED, score, never).tile == TILE | {"num_warps": 4}
    assert climb(HOISTED, lambda tile: Score(None, "too much shared memory"), never).tile == TILE


def test_noise_does_not_replace_the_tile_in_use():
    assert climb(HOISTED, lambda tile: Score(1.0 if tile == TILE else 0.985), never).tile == TILE


def test_time_that_runs_out_keeps_what_was_found():
    left = iter([False] * 9 + [True] * 1000)
    outcome = climb(HOISTED, made_up, lambda: next(left))
    assert not outcome.finished and outcome.seconds(outcome.tile) < outcome.seconds(TILE)


@pytest.mark.parametrize(("later", "reason"), [(0.9, ""), (0.99, "no tile is faster"), (None, "it fails")])
def test_the_second_comparison_decides(later, reason):
    other = TILE | {"COLUMNS": 64}
    outcome = tune.Outcome(HOISTED, other, [(TILE, Score(1.0)), (other, Score(0.5))])
    found = why_not_kept(outcome, lambda tile: Score(1.0 if tile == TILE else later))
    assert found.startswith(reason) and bool(found) == bool(reason)
    assert why_not_kept(tune.Outcome(HOISTED, TILE, []), made_up) == "no tile is faster"


def test_tuned_rows_replace_their_own_and_come_before_general_ones(tmp_path, monkeypatch):
    general = {"kernel": HOISTED.kernel, "when": {"dtype": "bf16"}, "tile": {"COLUMNS": 16}}
    other = {"kernel": "local_attention/forward_any", "when": {}, "tile": {"QUERIES": 2}}
    before = {"kernel": HOISTED.kernel, "when": CALL, "tile": {"COLUMNS": 64}}
    row = {"kernel": HOISTED.kernel, "when": CALL, "tile": {"COLUMNS": 128}}
    rows = merged([general, other, before], row)
    assert rows == [row, general, other]
    tune.write(tmp_path / "sm_90.json", rows)
    assert [path.name for path in tmp_path.iterdir()] == ["sm_90.json"]
    monkeypatch.setattr(tile_table, "FOLDER", tmp_path)
    tile_table.rows.cache_clear()
    try:
        hopper = tile_table.Target("sm_90", "bf16")
        call = {key: value for key, value in CALL.items() if key != "dtype"}
        assert hopper.tile(HOISTED.kernel, TILE, **call)["COLUMNS"] == 128
        assert hopper.tile(HOISTED.kernel, TILE, **(call | {"slots": 4}))["COLUMNS"] == 16
    finally:
        tile_table.rows.cache_clear()


def tuned(folder, score, monkeypatch, **wrong):
    """Tune for a made-up chip on which every tile compiles and is exact, unless ``wrong`` says otherwise."""
    for name in ("why_not_compiled", "why_not_exact"):
        monkeypatch.setattr(tune, name, lambda *_, name=name: wrong.get(name, ""))
    given = argparse.Namespace(tables=folder, log=folder / "log.jsonl")
    tune.tune(CASE, HOISTED, score, CPU, given, time.monotonic() + 1000)
    table = folder / "cpu.json"
    return json.loads(table.read_text()) if table.is_file() else []


def test_a_faster_tile_is_written_with_what_was_tried(tmp_path, monkeypatch, capsys):
    kept = {"kernel": "local_attention/forward_grid", "when": {"dtype": "fp16"}, "tile": {"num_warps": 4}}
    tune.write(tmp_path / "cpu.json", [kept])
    rows = tuned(tmp_path, made_up, monkeypatch)
    assert rows == [{"kernel": HOISTED.kernel, "when": CALL, "tile": BEST}, kept]
    assert "1300.000 -> 1000.000 ms" in capsys.readouterr().out
    row = json.loads((tmp_path / "log.jsonl").read_text())
    assert row["tile"] == BEST and row["tried"][0]["tile"] == TILE


@pytest.mark.parametrize("wrong", ["why_not_compiled", "why_not_exact"])
def test_nothing_is_written_where_the_tile_spills_or_is_off(wrong, tmp_path, monkeypatch, capsys):
    assert tuned(tmp_path, made_up, monkeypatch, **{wrong: "spills 8 bytes"}) == []
    assert "spills 8 bytes" in capsys.readouterr().out


def test_nothing_is_written_where_nothing_is_faster(tmp_path, monkeypatch):
    assert tuned(tmp_path, lambda tile: Score(1.0), monkeypatch) == []


def cases_of(kind):
    """One call of that kind as it is tuned, and one on a few pixels that looks the same tiles up."""
    for case in tune.works(("light",), [torch.float32]):  # the interpreter is handed nothing else
        scale = case.output[0] // case.size[0] if case.output else 0
        if (case.kind, scale) == kind:
            small = case._replace(size=(16, 16), output=case.output and (16 * scale, 16 * scale), batch=1)
            return case, small
    raise AssertionError(kind)


class Nothing:
    """A kernel whose launches do nothing."""

    def __getitem__(self, grid):
        return lambda *args, **options: None


@pytest.mark.parametrize("kind", [("grid", 4), ("grid", 6), ("grid", 1), ("raster", 0), ("points", 0)])
def test_the_tasks_are_the_tiles_that_a_call_looks_up(kind, monkeypatch):
    from clit_kernels.coordinate_decode.triton import backward, kernels
    from clit_kernels.local_attention.triton import backward as attention_backward
    from clit_kernels.local_attention.triton import kernels as attention_kernels

    monkeypatch.setattr(triton_support, "INTERPRETED", True)
    for module in (kernels, backward, attention_kernels, attention_backward):
        for name, value in vars(module).copy().items():
            if hasattr(value, "arg_names"):
                monkeypatch.setattr(module, name, Nothing())
    looked_up = []
    real = tile_table.Target.tile

    def tile(self, kernel, default, **call):
        looked_up.append((kernel, {"dtype": self.dtype, **call}))
        return real(self, kernel, default, **call)

    case, small = cases_of(kind)
    with monkeypatch.context() as patch:
        patch.setattr(tile_table.Target, "tile", tile)
        compute(small, inputs(small, CPU), tune.WAYS["triton"])
    wanted = [(task.kernel, dict(task.call)) for task in tune.tasks(case, "cpu")]
    assert [pair for pair in wanted if pair not in looked_up] == []
    others = [pair for pair in looked_up if pair not in wanted]
    if any(kernel.endswith("/direct") for kernel, _ in wanted):
        others = [pair for pair in others if pair[0] != "coordinate_decode/hoisted"]  # asked, not taken
    assert others == []


def test_every_kernel_of_every_shape_has_candidates_and_is_registered():
    for shape in ("paper", "light"):
        found = [t for case in tune.works((shape,), [torch.bfloat16]) for t in tune.tasks(case, "sm_90")]
        registered = list(tune.compile_table.registered(None, "sm_90"))
        assert {task.kernel for task in found} == {spec.name for spec in registered}
        for task in found:
            assert list(neighbours(task, task.tile))
            assert sensible(task, task.tile), f"the bounds exclude the tile in use of {task}"
            assert any(spec.name == task.kernel and tune.meant(spec, task) for spec in registered), task


def test_the_compiler_is_asked_for_the_kernel_that_the_call_gets():
    call = {"dtype": "bf16", "heads": 4, "width": 16, "side": 3, "hidden": 128, "slots": 4}
    tile = {"QUERIES": 32, "COLUMNS": 32, "GROUP": 1, "num_warps": 4, "num_stages": 1}
    task = Task("coordinate_decode/direct", call, tile)
    assert tune.why_not_compiled(task, tile, "sm_90") == ""
    assert "does not compile" in tune.why_not_compiled(task, tile | {"COLUMNS": 24}, "sm_90")


def test_results_that_differ_have_no_time(monkeypatch):
    task = Task("coordinate_decode/mlp", {}, {"ROWS": 16})

    def run(tiles):
        rows = tiles[task.kernel]["ROWS"]
        if rows == 64:
            raise RuntimeError("out of resource: shared memory")
        return [torch.tensor([0.0, 1.0, math.nan if rows == 48 else 0.5 + (rows == 32) * 0.1])]

    monkeypatch.setattr(tune, "clock", lambda work, device: (work(), 0.5))
    score = tune.scorer(CASE, task, run, CPU)
    assert score({"ROWS": 16}) == Score(0.5)
    assert "of the range" in score({"ROWS": 32}).reason and score({"ROWS": 32}).seconds is None
    assert score({"ROWS": 48}).seconds is None
    assert score({"ROWS": 64}).reason == "RuntimeError: out of resource: shared memory"


def test_without_a_gpu_it_says_why(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["tune.py", "--tables", str(tmp_path)])
    assert tune.main() == 2
    told = capsys.readouterr().err
    assert "torch sees no GPU here" in told and "--dry-run" in told
    assert not list(tmp_path.iterdir())
