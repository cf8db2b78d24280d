"""`clit-zoo bench`: what is checked, what is timed, and what is said of it."""

import importlib
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner

import clit_zoo
from clit_zoo.bench import machine, memory, products
from clit_zoo.bench.cases import PEERS, Case, Enlargement, Peer, Step
from clit_zoo.bench.measure import EXACT, WrongResultError, check, measure
from clit_zoo.bench.products import share
from clit_zoo.commands import cli
from clit_zoo.commands.bench import command
from clit_zoo.errors import ConfigError, WeightsNotFoundError
from clit_zoo.zoo.config import ModelConfig

coordinate_decode = importlib.import_module("clit_kernels.coordinate_decode.torch")


@pytest.fixture
def folder(tmp_path):
    """A model with random weights."""
    torch.manual_seed(0)
    decoder = {"name": "clit", "dim": 8, "heads": 2, "radius": 1, "stages": 2, "hidden_dims": [8, 8]}
    config = ModelConfig("tiny-clit", {"name": "edsr", "channels": 8, "blocks": 1}, decoder)
    return str(clit_zoo.SuperResolver(config).save_pretrained(tmp_path / "tiny"))


@pytest.fixture
def no_process(monkeypatch):
    """The memory's own process takes seconds; one test starts it."""
    monkeypatch.setattr("clit_zoo.bench.measure.peak_bytes", lambda case: 1_500_000)


def cases(folder, dtype="float32", backend="auto"):
    return [
        Enlargement(folder, backend, "cpu", dtype, (12, 9), 5.3),
        Step(folder, backend, "cpu", dtype, 3, 10),
    ]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_right_results_pass(folder, dtype):
    for case in cases(folder, dtype):
        error = check(case)
        assert 0 < error < (EXACT if dtype == "float32" else 0.1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_wrong_results_are_not_timed(folder, dtype, monkeypatch, no_process):
    wrong, right = cases(folder, dtype)[0], cases(folder, dtype)[0]
    decode = wrong.model.decoder.decode
    monkeypatch.setattr(wrong.model.decoder, "decode", lambda *a, **k: decode(*a, **k) * 1.1)
    monkeypatch.setattr("clit_zoo.bench.measure.copy.deepcopy", lambda model: right.load(right.precision))
    with pytest.raises(WrongResultError, match=r"off by .* of the range"):
        check(wrong)
    rows = measure([wrong, right], 0)
    assert "off by" in rows[0]["failed"] and "whole" not in rows[0]
    assert rows[1]["runs"] == 1


def test_nan_is_wrong(folder, monkeypatch):
    case = cases(folder)[0]
    next(case.model.parameters()).data[0] = torch.nan
    with pytest.raises(WrongResultError):
        check(case)


def test_out_of_memory_costs_one_row_and_a_bug_all(folder, monkeypatch, no_process):
    case, error = cases(folder)[0], RuntimeError("DefaultCPUAllocator: can't allocate memory\nstack")

    def fail():
        raise error

    monkeypatch.setattr(case, "decode", fail)
    (row,) = measure([case], 0)
    assert row["failed"] == "DefaultCPUAllocator: can't allocate memory"
    error = RuntimeError("a bug")
    with pytest.raises(RuntimeError, match="a bug"):
        measure([case], 0)


class Waiting(Case):
    """Moves a clock on: by 2 and 1 seconds, the first time by 5 more."""

    parts = ("first", "second")

    def __init__(self, folder, now, log, word):
        super().__init__(folder, "auto", "cpu", "float32")
        self.now, self.log, self.word = now, log, word

    def first(self):
        self.now[0] += 2 if self.word in self.log else 7
        self.log.append(self.word)

    def second(self):
        self.now[0] += 1

    def outcome(self, model):
        return torch.arange(2.0)


@pytest.mark.parametrize(("seconds", "runs"), [(0, 1), (9.5, 3)])
def test_cases_take_turns_and_parts_add_up(folder, no_process, monkeypatch, seconds, runs):
    now, log = [0.0], []
    monkeypatch.setattr("clit_zoo.bench.measure.time", SimpleNamespace(perf_counter=lambda: now[0]))
    for row in measure([Waiting(folder, now, log, word) for word in "ab"], seconds):
        assert row["runs"] == runs
        assert row["first"] == {"median": 2, "p20": 2, "p80": 2}
        assert row["whole"]["median"] == 3
    assert log == ["a", "b"] * (runs + 1)  # and a first run of each that does not count


def test_a_first_run_that_is_long_counts(folder, no_process, monkeypatch):
    now, log = [0.0], []
    monkeypatch.setattr("clit_zoo.bench.measure.time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr("clit_zoo.bench.measure.LONG", 7.5)
    (row,) = measure([Waiting(folder, now, log, "a")], 9.5)
    assert row["runs"] == 1 and row["whole"]["median"] == 8


def test_memory_of_a_larger_output_is_larger(folder):
    small, large = (Enlargement(folder, "auto", "cpu", "float32", (64, 64), scale) for scale in (1.5, 12))
    taken = [memory.peak_bytes(case) for case in (small, large)]
    if None in taken:
        pytest.skip("this system does not say")
    output = 3 * 4 * 768**2
    assert output < taken[1] < 20 * output and taken[0] < taken[1] / 2


def test_a_model_without_weights_gets_random_ones(folder, monkeypatch):
    def unpublished(name, **options):
        raise WeightsNotFoundError("none yet")

    monkeypatch.setattr("clit_zoo.bench.cases.from_pretrained", unpublished)
    first, second = (Enlargement("edsr-light-lit", "auto", "cpu", "bfloat16", (4, 4), 2) for _ in range(2))
    assert first.model.dtype == torch.bfloat16 and not first.model.training
    pairs = zip(first.model.parameters(), second.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_the_command(folder, tmp_path, no_process):
    pytest.importorskip("matplotlib")
    words = [
        "-m",
        folder,
        "--input",
        "9x12",
        "-s",
        "2,5",
        "--device",
        "cpu",
        "--threads",
        "1",
        "--seconds",
        "0",
    ]
    words += ["--train", "--batch", "2", "--patch", "8", "--plot", str(tmp_path / "bars.png")]
    result = CliRunner().invoke(command, words)
    assert result.exit_code == 0, result.output
    head, titles, *lines = result.output.splitlines()
    assert f"torch {torch.__version__}" in head and "threads 1" in head and "cores" in head
    assert titles.split()[:4] == ["seconds", "encode", "decode", "whole"]
    assert ["9×12 ×2" in lines[0], "9×12 ×5" in lines[1], "step, 2 × 8²" in lines[2]] == [True] * 3
    assert "2 MB" in lines[0]
    assert (tmp_path / "bars.png").read_bytes()[:4] == b"\x89PNG"


def test_json_has_the_rows(folder, no_process):
    words = ["-m", folder, "--backend", "reference", "--backend", "auto", "--input", "6x4", "--seconds", "0"]
    result = CliRunner().invoke(command, [*words, "--device", "cpu", "--json"])
    content = json.loads(result.output)
    assert content["machine"]["torch"] == torch.__version__
    assert [(row["backend"], row["size"], row["scale"]) for row in content["rows"]] == [
        ("reference", [4, 6], 4.0),
        ("auto", [4, 6], 4.0),
    ]
    for row in content["rows"]:
        assert row["whole"]["median"] > 0 and row["error"] < EXACT and row["peak_bytes"]
        assert row["megapixels_per_second"] == pytest.approx(16 * 24 / 1e6 / row["whole"]["median"])


def test_products_alone_take_less_than_the_whole(folder):
    case = Enlargement(folder, "auto", "cpu", "float32", (40, 40), 4)
    threads = torch.get_num_threads()
    found = share(case)
    assert 0 < found["products"] < found["whole"] and torch.get_num_threads() == threads


def test_fused_activations_are_no_products(folder):
    """In bfloat16 GELU is fused with a product; alone it is made without."""
    weight = torch.randn(8, 8, dtype=torch.bfloat16)
    with torch.inference_mode(), products._Noted() as noted:
        torch.nn.functional.gelu(torch.mm(weight, weight))
        if coordinate_decode._has_onednn():
            torch.ops.mkldnn._linear_pointwise(weight, weight, None, "gelu", [], "none")
    assert all("gelu" not in leaf for _, _, leaves in noted.calls for leaf in leaves)
    assert [products._alone(*one)().shape for one in noted.calls] == [(8, 8)] * len(noted.calls)


@pytest.mark.parametrize("name", PEERS)
def test_peers_beside(name, no_process):
    pytest.importorskip("spandrel")
    (row,) = measure([Peer(name, "torch", "cpu", "float32", (12, 9), 4)], 0, products=True)
    assert row["whole"]["median"] > 0 and row["one_thread"]["products"] > 0


def test_what_cannot_be_timed(folder, monkeypatch, capsys):
    result = CliRunner().invoke(command, ["-m", folder, "--backend", "triton", "--device", "cpu"])
    assert isinstance(result.exception, ConfigError) and "triton" in str(result.exception)
    monkeypatch.setattr("clit_zoo.commands.bench.measure", lambda cases, *_, **__: [failed(cases[0])])
    result = CliRunner().invoke(command, ["-m", folder, "--device", "cpu"])
    assert result.exit_code == 1 and "not timed: it was wrong" in result.output
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert cli.run(["bench", "-m", folder, "--plot", "a.png"]) == 1
    assert "matplotlib is not installed: pip install 'clit-zoo[viz]'" in capsys.readouterr().err


def failed(case):
    return case.facts() | {"failed": "it was wrong"}


def test_the_commit_is_told_in_a_checkout_only(tmp_path, monkeypatch):
    def git(*words):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a", *words], cwd=tmp_path, check=True)

    package = tmp_path / "clit_zoo"
    package.mkdir()
    (package / "a.py").write_text("1")
    monkeypatch.setattr(machine, "PACKAGE", package)
    assert machine.describe(torch.device("cpu"))["commit"] is None
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "a")
    commit = machine.describe(torch.device("cpu"))["commit"]
    assert len(commit) >= 7 and "+" not in commit
    (package / "a.py").write_text("2")
    assert machine.describe(torch.device("cpu"))["commit"] == commit + "+"
