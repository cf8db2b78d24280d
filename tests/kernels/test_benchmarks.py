"""The benchmark: what it counts, that it times nothing wrong, and that every case can be built."""

import json
import math
import os
import subprocess
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("triton")

BENCHMARKS = Path(__file__).resolve().parents[2] / "kernels" / "benchmarks"
sys.path.append(str(BENCHMARKS))

import cases  # noqa: E402
import counts  # noqa: E402
import gpu_session  # noqa: E402
import measure as measuring  # noqa: E402
import orders  # noqa: E402
import plot  # noqa: E402
import stage_cases  # noqa: E402
import torch  # noqa: E402
from measure import Case, Check, Promise, measure  # noqa: E402
from report import Report  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from clit_zoo.zoo import registry  # noqa: E402

CPU = torch.device("cpu")
PAPER = counts.Shape(256, 8, 3, (256, 256, 256, 256, 3))


@pytest.mark.parametrize(("scale", "expected"), [(2, 1.8), (4, 0.6)])
def test_the_hoisted_count_is_the_designs(scale, expected):
    """MFLOP per output pixel of the first layer, of which the published order takes 6.4."""
    queries = scale * scale
    assert round(counts.first_layer(PAPER, 1, queries) / queries / 1e6, 1) == expected
    assert round(counts.first_layer(PAPER, 1, 1) / 1e6, 1) == 6.4, "one query: the direct order"


def test_the_direct_count_is_what_torch_counts_in_the_formula():
    x = stage_cases.prepare(CPU, "decode_stage", "edsr-light-lit", (4, 4), (4, 4), small=False)
    with FlopCounterMode(display=False) as counter:
        stage_cases.run(x, "reference")
    shape = counts.Shape.of(registry.get("edsr-light-lit").config)
    # the formula's own: the cell's two inputs, the bias' projection; its bilinear sample is no product
    formula = 16 * (2 * 2 * shape.widths[0] + 2 * shape.area * shape.heads * 64 - 8 * shape.channels)
    assert counter.get_total_flops() == pytest.approx(counts.stage(shape, 16, 16) + formula, rel=1e-6)


def test_a_models_count_has_encoder_convolutions_and_all_stages():
    once = counts.model("edsr-lit", (540, 960), (2160, 3840))
    assert 10e12 < once < 12e12, "about 10 TFLOP, as the floor was reckoned, and 1.4 for the encoder"
    assert counts.model("edsr-clit", (540, 960), (2160, 3840)) == once, "one stage up to x4"
    assert counts.model("edsr-clit", (8, 8), (96, 96)) > counts.model("edsr-lit", (8, 8), (96, 96))
    assert counts.model("edsr-lit", (8, 8), (8, 8), batch=2) * 3 == counts.training_step(
        "edsr-lit", (8, 8), 2
    )
    assert counts.encoder("rdn-lit", (8, 8)) > 10 * counts.encoder("edsr-lit", (8, 8))


def case(run, **more):
    settings = {"name": "c", "backends": ("reference", "triton"), "prepare": lambda device: 0, "seconds": 0.0}
    return Case(**(settings | {"run": run} | more))


def test_a_wrong_backend_is_not_timed():
    calls = []

    def run(inputs, backend):
        calls.append(backend)
        return torch.tensor([0.0, 1.0]) + (1e-4 if backend == "triton" else 0.0)

    good, wrong = measure(case(run), CPU)
    assert "median_s" in good and "median_s" not in wrong
    assert wrong["failed"] and wrong["skipped"].startswith("WRONG: off by 1.0e-04")
    assert calls.count("triton") == 1, "only for the check"
    nan = measure(case(lambda inputs, backend: torch.tensor([0.0, 1.0, math.nan])), CPU)
    assert nan[1]["failed"], "NaN must not pass"


@pytest.mark.parametrize(("error", "passes"), [(0.019, True), (0.021, False)])
def test_lower_precision_may_err_twice_as_much_as_plain_pytorch(error, passes):
    truth = torch.tensor([0.0, 1.0], dtype=torch.float64)
    found = Check([truth + error], [truth + 0.01], [truth])
    if passes:
        measuring.judge(None, found)
    else:
        with pytest.raises(measuring.GateError, match=r"allowed are 2\.0e-02"):
            measuring.judge(None, found)


def test_one_backends_failure_or_lack_of_memory_leaves_a_row_with_the_reason():
    def run(inputs, backend):
        if backend == "triton":
            raise RuntimeError("out of resource: shared memory, 300 kB needed")
        if backend == "hoisted":
            raise torch.cuda.OutOfMemoryError("tried to allocate 46 GB")
        return torch.tensor([0.0, 1.0])

    rows = measure(case(run, backends=("reference", "hoisted", "triton"), skipped={}), CPU)
    assert "median_s" in rows[0]
    assert rows[1]["skipped"] == "out of memory: tried to allocate 46 GB" and not rows[1]["failed"]
    assert "300 kB needed" in rows[2]["skipped"] and rows[2]["failed"]
    skipped = measure(case(run, skipped={"reference": "too slow", "triton": "too new"}), CPU)
    assert [row["skipped"] for row in skipped] == ["too slow", "too new"]


def test_a_part_counts_for_the_whole_and_promises_are_judged(tmp_path, capsys):
    promises = (
        Promise("triton", "speed_up", 2, "at least 2x"),
        Promise("triton", "median_s", 0.0, "at most 0 s", at_least=False),
    )
    truth = torch.tensor([0.0, 1.0])
    check = lambda inputs, backend: Check([truth], [truth], [truth])  # noqa: E731
    clocks = {"reference": 1.0, "triton": 2.0}
    measured = case(
        lambda inputs, backend: truth, check=check, shares={"reference": 0.3}, promises=promises,
        part=lambda inputs, share: (inputs, 0.25), operations=8e12,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "_run", lambda c, b, device: (truth, clocks[b.backend]))
        reference, triton = measure(measured, CPU)
    assert reference["share"] == 0.25 and reference["median_s"] == 4.0
    assert triton["speed_up"] == 2.0 and triton["tflops"] == pytest.approx(4.0)
    assert triton["promises"] == {"at least 2x": True, "at most 0 s": False}
    report = Report(tmp_path / "rows.jsonl", CPU, note="busy", commit="abc")
    report.add([reference, triton])
    assert report.broken == ["c: at most 0 s"] and report.failed == 0
    kept = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert kept[1]["commit"] == "abc" and kept[1]["note"] == "busy" and kept[1]["speed_up"] == 2.0
    printed = capsys.readouterr().out
    assert "from 25.00% of it" in printed and "at most 0 s: NO" in printed


@pytest.mark.parametrize("op", cases.OPS)
def test_parts_and_spots_are_the_same_queries(op):
    x = stage_cases.prepare(CPU, op, "edsr-light-lit", (5, 4), (12, 8))
    whole = stage_cases.run(x, "hoisted")
    upper, share = stage_cases.part(x, 0.4)
    assert share == 5 / 12
    torch.testing.assert_close(stage_cases.run(upper, "reference"), whole[:, : 5 * 8], rtol=1e-4, atol=1e-5)
    assert measuring.judge(1e-4, stage_cases.spot(x, whole)) < 1e-4
    with pytest.raises(measuring.GateError):
        measuring.judge(1e-4, stage_cases.spot(x, whole.flip(1)))


def tensors(value):
    """All tensors in nested inputs."""
    if torch.is_tensor(value):
        yield value
    elif isinstance(value, torch.nn.Module):
        yield from value.parameters()
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from tensors(getattr(value, field.name))
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from tensors(part)


def test_the_inputs_of_gpu_cases_lie_on_the_device():
    """Prepared on tensors without memory, which meet no tensor of the CPU without an error."""
    meta, kinds = torch.device("meta"), set()
    for name, work in cases.gpu_jobs(80e9):
        case = work.args[0]
        if not isinstance(case, Case) or case.prepare is stage_cases.nothing:
            continue
        kind = (case.facts.get("op"), case.facts.get("queries"), case.facts["model"] in ("rdn-clit",))
        if kind in kinds:
            continue
        kinds.add(kind)
        found = list(tensors(case.prepare(meta)))
        assert found and all(t.device == meta for t in found), name
    assert len(kinds) == 7, "three ops, two kinds of training step, two encoders"


def test_gpu_cases_are_what_is_promised():
    jobs = dict(cases.gpu_jobs(80e9))
    named = {name: work.args[0] for name, work in jobs.items() if isinstance(work.args[0], Case)}
    for model in cases.MODELS:
        for size in ("256x256", "960x540"):
            assert sum(name.startswith(f"{model} {size} to") for name in named) >= 5, "x2, x3.7, x4, x12, x30"
    words = [p.words for case in named.values() for p in case.promises]
    assert len(words) == len(set(words)) + 2 == 9, "the training step's two promises hold for both kinds"
    large = named["coordinate_decode bf16 256x256 to 7680x7680"]
    assert "46 GB" in large.skipped["triton"], "what does not fit says so"
    published = named["edsr-clit 960x540 to 28800x16200"]
    assert published.shares["reference"] < 0.01 and published.shares["hoisted"] < 0.01
    compiled = named["decode_stage bf16 256x256 to 1024x1024 compiled"]
    assert {"compiled reference", "compiled hoisted"} <= set(compiled.backends)


@pytest.mark.parametrize(("per_pixel", "model"), [(1, "edsr-light-lit"), (6, "edsr-light-lit")])
def test_both_orders_are_timed_and_the_rule_is_judged(per_pixel, model):
    rows = orders.order_rows("hoisted", "coordinate_decode", model, (6, 6), per_pixel, CPU, seconds=0.0)
    assert [row["backend"] for row in rows] == ["direct", "hoisted"]
    assert not any(row.get("failed") for row in rows)
    assert rows[0]["rule"] == ("direct" if per_pixel == 1 else "hoisted")
    times = {row["backend"]: row["median_s"] for row in rows}
    assert rows[0]["loss"] == times[rows[0]["rule"]] / min(times.values())


def test_an_order_that_is_forced_is_the_one_that_runs():
    x = stage_cases.prepare(CPU, "coordinate_decode", "edsr-light-lit", (4, 4), (16, 16), small=False)
    module = sys.modules["clit_kernels.coordinate_decode.hoisted"]
    rule = module.prefer_hoisted
    for order, ran in (("direct", "hidden_direct"), ("hoisted", "hidden_hoisted")):
        with pytest.MonkeyPatch.context() as patch, orders.forced("hoisted", order):
            calls = []
            real = getattr(module, ran)
            patch.setattr(module, ran, lambda *a, real=real, calls=calls: (calls.append(1), real(*a))[1])
            stage_cases.run(x, "hoisted")
            assert calls, f"{order} did not run"
    assert module.prefer_hoisted is rule


def test_the_plot_is_a_picture(tmp_path):
    pytest.importorskip("matplotlib")
    rows = plot.latest(plot.read(BENCHMARKS / "results" / "cpu.jsonl"))
    for n in (1, 2):
        for backend in ("direct", "hoisted"):
            row = dict(rows[0]) | {"case": f"o {n}", "backend": backend, "queries_per_pixel": n}
            rows.append(row | {"model": "edsr-lit", "op": "decode_stage", "rule": "direct"})
    plot.draw(rows, tmp_path / "cpu.png")
    assert (tmp_path / "cpu.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["cpu.png"]
    again = plot.latest([*rows, dict(rows[0]) | {"median_s": 123.0}])
    assert again[0]["median_s"] == 123.0 and len(again) == len(rows)


def test_every_backend_of_the_benchmark_has_a_colour():
    backends = {b for _, work in cases.gpu_jobs(80e9) for b in getattr(work.args[0], "backends", ())}
    assert backends | {"direct"} == set(plot.COLORS)


def session(*arguments, out):
    command = [sys.executable, str(BENCHMARKS / "gpu_session.py"), "--out", str(out), *arguments]
    env = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, env=env, capture_output=True, text=True)


def test_without_a_gpu_the_session_skips_its_parts_and_says_why(tmp_path):
    done = session(out=tmp_path)
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "session.json").read_text())
    assert [part["state"] for part in written["parts"]] == ["skipped"] * 4
    assert all("no GPU here" in part["words"] for part in written["parts"])
    assert (tmp_path / "session.log").read_text() in done.stdout


def test_a_part_that_takes_too_long_is_cut_off_and_keeps_its_words(tmp_path):
    with open(tmp_path / "log", "w") as log:
        code = "import time; print('so far'); time.sleep(60)"
        late = gpu_session.run_part("tune", [sys.executable, "-c", code], 2.0, log)
        wrong = gpu_session.run_part("tests", [sys.executable, "-c", "raise SystemExit(3)"], 30.0, log)
    assert (late.state, late.words) == ("cut off", "so far") and late.seconds < 30
    assert wrong.state == "failed"
    assert "so far" in (tmp_path / "log").read_text()


def test_the_parts_commands_are_ones_their_scripts_take(tmp_path, monkeypatch):
    here = {"missing": [], "gpu": "NVIDIA H100", "xdist": True, "cores": 16, "chip": "sm_90"}
    monkeypatch.setattr(sys, "argv", ["gpu_session.py", "--out", str(tmp_path), "--commit", "abc"])
    given = gpu_session.arguments()
    for name in ("bench", "tune", "again"):
        line = gpu_session.command(name, given, here, tmp_path, 120.0)
        module = {"tune": "tune", "bench": "bench", "again": "bench"}[name]
        monkeypatch.setattr(sys, "argv", line[1:])
        parsed = __import__(module).arguments()
        assert 0.5 < parsed.minutes < 2.0
    tests = gpu_session.command("tests", given, here, tmp_path, 120.0)
    assert tests[-2:] == ["-n", "12"]


def test_a_session_writes_where_it_is_told_and_knows_its_chip(monkeypatch):
    monkeypatch.setenv("OUT", "elsewhere")
    monkeypatch.setattr(sys, "argv", ["gpu_session.py"])
    assert gpu_session.arguments().out == Path("gpu_session")
    found = SimpleNamespace(name="NVIDIA H100", total_memory=80 << 30, multi_processor_count=132)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: found)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    if torch.version.hip is None:
        assert gpu_session.environment()["chip"] == "sm_90"


@pytest.mark.slow
def test_a_tiny_benchmark_runs_in_the_interpreter(tmp_path):
    results = tmp_path / "rows.jsonl"
    command = [sys.executable, str(BENCHMARKS / "bench.py"), "--device", "cpu", "--tiny", "--threads", "1"]
    env = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command += ["--only", "bf16 5x2", "--results", str(results)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    assert {row["backend"] for row in rows} == {"reference", "hoisted", "triton"}
    assert len(rows) == 9 and all("median_s" in row for row in rows)
