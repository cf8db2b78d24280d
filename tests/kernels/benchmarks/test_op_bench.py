"""The benchmark: what it counts, that it times nothing wrong, and that every case can be built."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import bench
import cases
import counts
import measure as measuring
import plot
import pytest
import torch
from cases import WAYS, Case, Inputs, Way
from measure import Promise, judge, measure
from report import Report
from torch.utils.flop_counter import FlopCounterMode

from clit_kernels import coordinate_decode
from clit_kernels.self_check import SHAPES

BENCHMARKS = Path(bench.__file__).parent
CPU = torch.device("cpu")
PAPER, LIGHT = SHAPES["paper"], SHAPES["light"]
SMALL = Case("decode_stage", "light", torch.float32, (4, 4), (8, 8))
FORWARD = [SMALL._replace(op=op) for op in cases.OPS]


@pytest.mark.parametrize(("scale", "expected"), [(2, 1.8), (4, 0.6)])
def test_the_hoisted_count_is_the_designs(scale, expected):
    """MFLOP per output pixel of the first layer, of which the published order takes 6.4."""
    queries = scale * scale
    assert round(counts.first_layer(PAPER, 1, queries) / queries / 1e6, 1) == expected
    assert round(counts.first_layer(PAPER, 1, 1) / 1e6, 1) == 6.4, "one query: the direct order"


def test_the_direct_count_is_what_torch_counts_in_the_formula():
    case = SMALL._replace(output=(4, 4))
    x = cases.inputs(case, CPU)
    with FlopCounterMode(display=False) as counter:
        cases.compute(case, x, WAYS["reference"])
    # the formula's own: the cell's two inputs, the bias' projection; its bilinear sample is no product
    formula = 16 * (2 * 2 * LIGHT.hidden[0] + 2 * 9 * LIGHT.heads * 64 - 8 * LIGHT.channels)
    assert counter.get_total_flops() == pytest.approx(case.operations + formula, rel=1e-6)


def test_a_training_step_has_two_products_more_for_each():
    step = Case("decode_stage", "light", torch.float32, (4, 4), None, "raster", batch=3)
    assert step.operations == pytest.approx(9 * SMALL._replace(output=(4, 4)).operations)


@pytest.fixture
def faults(monkeypatch):
    """Backend -> what becomes of its results."""
    found: dict[str, object] = {}
    real = cases.forward

    def forward(op, x, way, tiles=None):
        out = real(op, x, way._replace(backend="torch"), tiles)
        return found.get(way.name, lambda t: t)(out)

    monkeypatch.setattr(cases, "forward", forward)
    return found


def test_a_wrong_backend_is_not_timed(faults):
    faults["torch"] = lambda t: t + 1e-3 * t.abs().max()
    good, wrong = measure(SMALL, [WAYS["reference"], WAYS["torch"]], CPU, seconds=0.0)
    assert "median_s" in good and "median_s" not in wrong
    assert wrong["failed"] and wrong["skipped"].startswith("WRONG: off by")
    faults["torch"] = lambda t: torch.where(torch.arange(3) == 1, math.nan, t)
    assert measure(SMALL, [WAYS["reference"], WAYS["torch"]], CPU, seconds=0.0)[1]["failed"], "NaN"


def test_a_whole_result_is_looked_at_too(faults):
    """Right on a few pixels, wrong on many."""
    faults["torch"] = lambda t: t if t.shape[1] < 600 else t.roll(1, 1)
    rows = measure(SMALL._replace(size=(13, 13), output=(26, 26)), [WAYS["reference"], WAYS["torch"]], CPU)
    assert rows[1]["failed"] and rows[1]["skipped"].startswith("WRONG")


@pytest.mark.parametrize(("error", "passes"), [(0.019, True), (0.021, False)])
def test_lower_precision_may_err_twice_as_much_as_plain_pytorch(error, passes):
    truth = torch.tensor([0.0, 1.0], dtype=torch.float64)
    found = ([truth + error], [truth + 0.01], [truth], torch.bfloat16)
    if passes:
        judge(*found)
    else:
        with pytest.raises(measuring.GateError, match=r"allowed are 2\.0e-02"):
            judge(*found)
    assert judge(*found, strict=False) == pytest.approx(error), "the yardstick is not judged"


def test_one_backends_failure_or_lack_of_memory_leaves_a_row_with_the_reason(faults, monkeypatch):
    def fail(error):
        def raising(t):
            raise error

        return raising

    faults["torch"] = fail(torch.cuda.OutOfMemoryError("tried to allocate 46 GB"))
    faults["compiled torch"] = fail(RuntimeError("out of resource: shared memory, 300 kB needed"))
    monkeypatch.setattr(torch, "compile", lambda function, dynamic: function)  # it takes seven seconds
    rows = measure(SMALL, [WAYS[name] for name in ("reference", "torch", "compiled torch")], CPU, seconds=0.0)
    assert "median_s" in rows[0]
    assert rows[1]["skipped"] == "out of memory: tried to allocate 46 GB" and not rows[1]["failed"]
    assert "300 kB needed" in rows[2]["skipped"] and rows[2]["failed"]
    cases._function.cache_clear()


def test_a_part_counts_for_the_whole_and_promises_are_judged(tmp_path, capsys, monkeypatch):
    promises = (
        Promise("torch", "speed_up", 2, "at least 2x"), Promise("torch", "tflops", 1e9, "at least 1e9")
    )  # fmt: skip
    took = iter([(None, 1.0), (None, 2.0)] * 5)
    real = measuring.clock
    monkeypatch.setattr(measuring, "clock", lambda work, device: (real(work, device)[0], next(took)[1]))
    rows = measure(
        SMALL._replace(output=(8, 8)), [WAYS["reference"], WAYS["torch"]], CPU,
        seconds=0.0, limits={"reference": 16}, promises=promises,
    )  # fmt: skip
    reference, fast = rows
    assert reference["share"] == 0.25 and reference["median_s"] == 4.0
    assert fast["median_s"] == 2.0 and fast["speed_up"] == 2.0
    assert fast["tflops"] == pytest.approx(SMALL.operations / 2e12)
    assert fast["promises"] == {"at least 2x": True, "at least 1e9": False}
    report = Report(tmp_path / "rows.jsonl", CPU, note="busy", commit="abc")
    report.add(rows)
    assert report.broken == [f"{SMALL.name}: at least 1e9"] and report.failed == 0
    kept = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert kept[1]["commit"] == "abc" and kept[1]["note"] == "busy" and kept[1]["speed_up"] == 2.0
    assert {"device", "torch", "triton", "python", "date"} <= set(kept[1])
    printed = capsys.readouterr().out
    assert "from 25.00% of it" in printed and "at least 1e9: NO" in printed


@pytest.mark.parametrize("case", FORWARD, ids=lambda case: case.op)
def test_parts_and_spots_are_the_same_queries(case):
    case = case._replace(size=(5, 4), output=(12, 8))
    x = cases.inputs(case, CPU)
    (whole,) = cases.compute(case, x, WAYS["torch"])
    upper, share = cases.part(x, 0.4)
    assert share == 5 / 12
    (first,) = cases.compute(case, upper, WAYS["reference"])
    torch.testing.assert_close(first, whole[:, : 5 * 8], rtol=1e-4, atol=1e-5)
    some, index = cases.spots(x)
    (truth,) = cases.formula(case, some, torch.float64)
    torch.testing.assert_close(whole[:, index].double(), truth, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(whole.flip(1)[:, index].double(), truth, rtol=1e-4, atol=1e-5)


def test_the_published_order_is_taken_in_chunks(monkeypatch):
    for case in FORWARD:
        x = cases.inputs(case, CPU)
        (whole,) = cases.compute(case, x, WAYS["reference"])
        monkeypatch.setattr(cases, "CHUNK", 7)
        torch.testing.assert_close(cases.compute(case, x, WAYS["reference"])[0], whole)


def test_the_inputs_of_gpu_cases_lie_on_the_device(monkeypatch):
    """Prepared on tensors without memory, which meet no tensor of the CPU without an error."""
    meta = torch.device("meta")
    monkeypatch.setattr(cases, "_generator", lambda seed, device="cpu": None)
    kinds = set()
    for _, work in bench.gpu_jobs(80e9):
        case = getattr(work, "args", [None])[0]
        if isinstance(case, Case) and (case.op, case.kind, case.dtype) not in kinds:
            kinds.add((case.op, case.kind, case.dtype))
            x: Inputs = cases.inputs(case, meta)
            call = x.call
            tensors = [*call[:3], *call.queries, call.cell, *call.weights.tensors()]
            assert all(t.device == meta for t in tensors if t is not None), case.name
    assert len(kinds) == 11, "three ops in three dtypes, two kinds of training step"


def test_gpu_cases_are_what_is_promised():
    jobs = dict(bench.gpu_jobs(80e9))
    for op in cases.OPS:
        assert sum(name.startswith(f"{op} paper bf16 256x256 to") for name in jobs) == 5, "x2, x3.7, x4 ..."
    words = [p.words for work in jobs.values() for p in getattr(work, "keywords", {}).get("promises", ())]
    assert len(words) == 6 and len(set(words)) == 4, "the training step's two hold for both kinds"
    (large,) = jobs["coordinate_decode paper bf16 256x256 to 7680x7680"](CPU)
    assert "46 GB" in large["skipped"], "what does not fit says so"
    published = jobs["decode_stage paper bf16 256x256 to 7680x7680"]
    assert published.keywords["limits"]["reference"] < published.args[0].queries / 20
    measured = [work.args for work in jobs.values() if len(getattr(work, "args", ())) == 2]
    ways = {way.name for _, chosen in measured if isinstance(chosen, list) for way in chosen}
    assert {"compiled reference", "compiled torch"} <= ways


def test_both_orders_are_timed_and_the_rules_choice():
    for per_pixel in (1, 6):
        rows_cols = bench.PER_PIXEL[per_pixel]
        case = Case("coordinate_decode", "light", torch.float32, (6, 6), (6 * rows_cols[0], 6 * rows_cols[1]))
        rows = bench.order_rows(case, "torch", per_pixel, CPU, seconds=0.01)
        assert [row["backend"] for row in rows] == ["auto", "hoisted", "direct"]
        assert not any(row.get("failed") for row in rows)
        times = {row["backend"]: row["median_s"] for row in rows}
        assert rows[0]["loss"] == times["auto"] / min(times.values()) and rows[0]["promises"]


def test_an_order_that_is_asked_for_is_the_one_that_runs(monkeypatch):
    from clit_kernels.coordinate_decode import torch as plain

    case = Case("coordinate_decode", "light", torch.float32, (4, 4), (16, 16))
    x = cases.inputs(case, CPU)
    for order, ran in (("direct", "hidden_direct"), ("hoisted", "hidden_hoisted")):
        calls = []
        real = getattr(plain, ran)
        monkeypatch.setattr(plain, ran, lambda *a, real=real, calls=calls: (calls.append(1), real(*a))[1])
        cases.compute(case, x, Way(order, "torch", order))
        assert calls, f"{order} did not run"
    assert coordinate_decode(x.call.decoding(x.attention), order="direct").isfinite().all()


def test_the_plot_is_a_picture(tmp_path):
    pytest.importorskip("matplotlib")
    rows = plot.latest(plot.read(BENCHMARKS / "results" / "cpu.jsonl"))
    assert any("queries_per_pixel" in row for row in rows) and any(row["backend"] == "torch" for row in rows)
    plot.draw(rows, tmp_path / "cpu.png")
    assert (tmp_path / "cpu.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["cpu.png"]
    again = plot.latest([*rows, dict(rows[0]) | {"median_s": 123.0}])
    assert again[0]["median_s"] == 123.0 and len(again) == len(rows)
    assert {*WAYS, "auto", "direct", "hoisted"} <= set(plot.COLORS)


@pytest.mark.slow
def test_a_tiny_benchmark_runs_in_the_interpreter(tmp_path):
    pytest.importorskip("triton")
    results = tmp_path / "rows.jsonl"
    command = [sys.executable, str(BENCHMARKS / "bench.py"), "--device", "cpu", "--tiny", "--threads", "1"]
    env = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command += ["--only", "bf16 5x2", "--results", str(results)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    assert {row["backend"] for row in rows} == {"reference", "torch", "triton"}
    assert len(rows) == 9 and all("median_s" in row for row in rows)
