"""Tuning without a GPU: candidates, the climb with made-up times, and the settings' rows."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

BENCHMARKS = Path(__file__).resolve().parents[2] / "kernels" / "benchmarks"
sys.path.append(str(BENCHMARKS))

import tile_check  # noqa: E402
import tile_search  # noqa: E402
import torch  # noqa: E402
import tune  # noqa: E402
import tune_work  # noqa: E402
from tile_search import Outcome, Score, Task, climb, confirmed, merged, neighbours, sensible  # noqa: E402

from clit_kernels import settings  # noqa: E402

CALL = {"dtype": "bf16", "heads": 8, "width": 32, "side": 7, "hidden": 256, "slots": 16}
TILE = {
    "PIXELS_Y": 4, "PIXELS_X": 8, "GROUP": 1, "SLOTS": 16, "COLUMNS": 32, "num_warps": 8, "num_stages": 2,
}  # fmt: skip
HOISTED = Task("coordinate_decode/hoisted", CALL, TILE)


def made_up(tile):
    """Fastest at COLUMNS 128 and 4 warps, three steps away; every other difference costs."""
    apart = abs(tile["COLUMNS"].bit_length() - 8) + abs(tile["num_warps"].bit_length() - 3)
    others = sum(tile[key] != value for key, value in TILE.items() if key not in ("COLUMNS", "num_warps"))
    return Score(1.0 + 0.1 * apart + 0.5 * others)


def all_fit(tiles):
    return [(tile, "") for tile in tiles]


def never():
    return False


def test_neighbours_differ_by_one_step_and_keep_the_kernels_bounds():
    around = list(neighbours(HOISTED, TILE))
    for tile in around:
        changed = [key for key in TILE if tile[key] != TILE[key]]
        assert len(changed) == 1 and sensible(HOISTED, tile)
    assert {"num_stages": 3}.items() <= around[-1].items()
    assert not any(
        tile["SLOTS"] == 8 for tile in around
    )  # 1 x 8 rows are less than a matrix instruction's 16
    widest = TILE | {"COLUMNS": 256}
    assert not any(tile["COLUMNS"] > 256 for tile in neighbours(HOISTED, widest))
    direct = Task("coordinate_decode/direct", CALL | {"heads": 6}, {})
    tile = {"QUERIES": 16, "COLUMNS": 16, "GROUP": 2, "num_warps": 4, "num_stages": 1}
    groups = {t["GROUP"] for t in neighbours(direct, tile)}
    assert groups == {1, 2}, "GROUP must divide 6 heads"
    assert min(t["QUERIES"] for t in neighbours(direct, tile)) == 16


def test_a_limit_of_registers_is_not_searched():
    tile = TILE | {"maxnreg": 168}
    assert all(t["maxnreg"] == 168 for t in neighbours(HOISTED, tile))


def test_the_climb_finds_the_fastest_and_tries_nothing_twice():
    outcome = climb(HOISTED, all_fit, made_up, never)
    assert outcome.tile == TILE | {"COLUMNS": 128, "num_warps": 4}
    assert outcome.before == pytest.approx(1.3) and outcome.after == pytest.approx(1.0) and outcome.finished
    tiles = [json.dumps(tile, sort_keys=True) for tile, _ in outcome.tried]
    assert len(tiles) == len(set(tiles))


def test_a_tile_that_does_not_fit_is_not_timed():
    timed = []

    def score(tile):
        timed.append(tile)
        return made_up(tile)

    def fitting(tiles):
        return [(tile, "spills 8 bytes" if tile["COLUMNS"] > 32 else "") for tile in tiles]

    outcome = climb(HOISTED, fitting, score, never)
    assert outcome.tile == TILE | {"num_warps": 4}
    assert all(tile["COLUMNS"] <= 32 for tile in timed)
    assert any(score.reason == "spills 8 bytes" for _, score in outcome.tried)


def test_a_wrong_result_is_never_chosen():
    def score(tile):
        return Score(None, "result 0 is off") if tile["COLUMNS"] == 64 else made_up(tile)

    assert climb(HOISTED, all_fit, score, never).tile == TILE | {"num_warps": 4}


def test_noise_does_not_replace_the_tile_in_use():
    outcome = climb(HOISTED, all_fit, lambda tile: Score(1.0 if tile == TILE else 0.985), never)
    assert outcome.tile == TILE


def test_time_that_runs_out_keeps_what_was_found():
    left = iter([False] * 9 + [True] * 1000)
    outcome = climb(HOISTED, all_fit, made_up, lambda: next(left))
    assert not outcome.finished and outcome.after < outcome.before


def test_a_tile_in_use_that_fails_is_left_alone():
    outcome = climb(HOISTED, all_fit, lambda tile: Score(None, "too much shared memory"), never)
    assert outcome.tile == TILE and "too much shared memory" in tune.in_words(outcome, "")


@pytest.mark.parametrize(("later", "expected"), [(0.9, True), (0.99, False), (None, False)])
def test_the_second_comparison_decides(later, expected):
    other = TILE | {"COLUMNS": 64}
    outcome = Outcome(HOISTED, other, [(TILE, Score(1.0)), (other, Score(0.5))])
    assert confirmed(outcome, lambda tile: Score(1.0 if tile == TILE else later)) is expected
    assert not confirmed(Outcome(HOISTED, TILE, [(TILE, Score(1.0))]), made_up)


def test_tuned_rows_replace_their_own_and_come_before_general_ones(tmp_path, monkeypatch):
    general = {"kernel": HOISTED.kernel, "when": {"dtype": "bf16"}, "tile": {"COLUMNS": 16}}
    other = {"kernel": "local_attention/forward_any", "when": {}, "tile": {"QUERIES": 2}}
    before = {"kernel": HOISTED.kernel, "when": CALL, "tile": {"COLUMNS": 64}}
    row = tile_search.setting(HOISTED, TILE | {"COLUMNS": 128})
    rows = merged([general, other, before], [row])
    assert rows == [row, general, other]
    assert merged(rows, []) == rows
    tile_search.write_settings(tmp_path / "sm_90.json", rows)
    assert tile_search.read_settings(tmp_path / "sm_90.json") == rows
    assert [path.name for path in tmp_path.iterdir()] == ["sm_90.json"]
    monkeypatch.setattr(settings, "FOLDER", tmp_path)
    settings.rows.cache_clear()
    try:
        assert settings.tile(HOISTED.kernel, TILE, "sm_90", **CALL)["COLUMNS"] == 128
        assert settings.tile(HOISTED.kernel, TILE, "sm_90", **(CALL | {"slots": 4}))["COLUMNS"] == 16
    finally:
        settings.rows.cache_clear()


@pytest.fixture
def no_rule(monkeypatch):
    monkeypatch.setattr(tune_work, "keeps_the_rule", lambda *_: "")
    monkeypatch.setattr(tune, "fitting", lambda *_: all_fit)


WORK = tune_work.Work("edsr-lit", torch.bfloat16, "grid", (8, 8), (32, 32))


def tuned(path, score, ends=float("inf"), log=None):
    return tune.tune(
        HOISTED, WORK, list, torch.device("cpu"), path, None, ends, log,
        make_scorer=lambda *_: score,
    )  # fmt: skip


def test_a_faster_tile_is_written_with_what_was_tried(tmp_path, no_rule, capsys):
    path, log = tmp_path / "sm_90.json", tmp_path / "log.jsonl"
    kept = {"kernel": "local_attention/forward_grid", "when": {"dtype": "fp16"}, "tile": {"num_warps": 4}}
    tile_search.write_settings(path, [kept])
    tuned(path, made_up, log=log)
    best = TILE | {"COLUMNS": 128, "num_warps": 4}
    assert tile_search.read_settings(path) == [tile_search.setting(HOISTED, best), kept]
    assert "1300.000 -> 1000.000 ms" in capsys.readouterr().out
    row = json.loads(log.read_text())
    assert row["tile"] == best and row["tried"][0]["tile"] == TILE


def test_nothing_is_written_where_nothing_is_faster_or_the_result_is_off(tmp_path, no_rule, monkeypatch):
    path = tmp_path / "sm_90.json"
    outcome = tuned(path, lambda tile: Score(1.0))
    assert outcome.tile == TILE and not path.exists()
    monkeypatch.setattr(tune_work, "keeps_the_rule", lambda *_: "off by 1.0e-02 of the range")
    assert tuned(path, made_up).tile == TILE and not path.exists()


def test_every_kernel_of_every_shape_has_candidates():
    found = list(tune.candidates(tune.MODELS, [torch.bfloat16], "sm_90"))
    for width in (32, 16):
        kernels = {task.kernel for _, task, _ in found if task.call.get("width", width) == width}
        assert kernels == {f"{op}/{name}" for op, names in tune._kernels().items() for name in names}
    slots = {task.call["slots"] for _, task, _ in found if task.kernel == HOISTED.kernel}
    assert slots == {4, 16, 32}, "x2, x3 and x4, x6"
    for _, task, tiles in found:
        assert tiles and all(sensible(task, tile) for tile in tiles)
        assert sensible(task, task.tile), f"the bounds exclude the tile in use of {task}"


def test_the_compiler_is_asked_for_the_kernel_that_the_call_gets():
    call = {"dtype": "bf16", "heads": 4, "width": 16, "side": 3, "hidden": 128, "slots": 4}
    tile = {"QUERIES": 32, "COLUMNS": 32, "GROUP": 1, "num_warps": 4, "num_stages": 1}
    task = Task("coordinate_decode/direct", call, tile)
    assert tile_check.why_not(task, tile, "sm_90") == ""
    assert "does not compile" in tile_check.why_not(task, tile | {"COLUMNS": 24}, "sm_90")
    for _, task, _ in tune.candidates(tune.MODELS, [torch.bfloat16], "sm_90"):
        specs = tile_check._table().registered(task.kernel.split("/")[0], "sm_90")
        assert any(tile_check._means(spec, task) for spec in specs), f"{task} is not registered"


class FakeKernel:
    """Launches of it are counted."""

    launched = 0

    def __getitem__(self, grid):
        def launch(*args, **options):
            self.launched += 1

        return launch


class FakeEvent:
    """Ten milliseconds from one to the next."""

    def __init__(self, enable_timing):
        assert enable_timing

    def record(self):
        pass

    def elapsed_time(self, other):
        return 10.0


def test_only_the_kernel_that_is_tuned_is_timed(monkeypatch):
    kernels = importlib.import_module("clit_kernels.coordinate_decode.kernel_mlp")
    fake = FakeKernel()
    monkeypatch.setattr(kernels, "mlp", fake)
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    for name in ("_sleep", "synchronize"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: None)

    def run():
        for _ in range(3):
            kernels.mlp[(1,)](1, ROWS=2)
        return [torch.ones(2)]

    results, seconds = tune_work.kernel_seconds("coordinate_decode/mlp", run, torch.device("cpu"))
    assert seconds == pytest.approx(0.03) and torch.equal(results[0], torch.ones(2))
    assert fake.launched == 3 * (1 + tune_work.RUNS) and kernels.mlp is fake
    with pytest.raises(ValueError, match="no kernel"), tune_work.watched("coordinate_decode/none", run):
        pass


def test_results_that_differ_have_no_time():
    task = Task("coordinate_decode/mlp", {}, {"ROWS": 16})

    def run():
        rows = settings.tile(task.kernel, {"ROWS": 0}, "cpu")["ROWS"]
        if rows == 64:
            raise RuntimeError("out of resource: shared memory")
        return [torch.tensor([0.0, 1.0, float("nan") if rows == 48 else 0.5 + (rows == 32) * 0.1])]

    def clock(kernel, run, device):
        return run(), 0.5

    score = tune_work.scorer(task, run, torch.device("cpu"), torch.bfloat16, clock)
    assert score({"ROWS": 16}) == Score(0.5)
    assert "of the range" in score({"ROWS": 32}).reason and score({"ROWS": 32}).seconds is None
    assert score({"ROWS": 48}).seconds is None
    assert score({"ROWS": 64}).reason == "RuntimeError: out of resource: shared memory"


def test_without_a_gpu_it_says_why(tmp_path):
    env = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(BENCHMARKS / "tune.py"), "--settings", str(tmp_path)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 2 and "torch sees no GPU here" in done.stderr and "--dry-run" in done.stderr
    assert not list(tmp_path.iterdir())
