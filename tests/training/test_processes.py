"""Parts of a batch, on one process or several, make the step that the whole batch makes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_training import PATCH, tiny_model

import clit_zoo
from clit_zoo.errors import ClitZooError
from clit_zoo.training.log import read_log
from clit_zoo.training.processes import Processes
from clit_zoo.training.recipe import Recipe
from clit_zoo.training.run import Run


def torchrun(*words: str) -> subprocess.CompletedProcess[str]:
    program = [str(Path(sys.executable).parent / "torchrun"), "--standalone", "--nproc-per-node", "2"]
    command = [*program, "-m", "clit_zoo", "train", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


def test_accumulated_parts_make_the_same_step(photographs, tmp_path):
    ends = []
    for parts in (1, 2):
        recipe = Recipe(steps=4, batch=4, patch=PATCH, accumulate=parts)
        folder = tmp_path / str(parts)
        run = Run(tiny_model(2), recipe, photographs, folder, tensorboard=False, progress=False)
        start = {k: v.clone() for k, v in run.model.state_dict().items()}
        run.train()
        ends.append(run.model.state_dict())
    moved = max(float((ends[0][k] - start[k]).abs().max()) for k in start)
    for name, value in ends[0].items():
        torch.testing.assert_close(ends[1][name], value, rtol=0, atol=0.01 * moved)


@pytest.mark.slow
def test_two_processes_are_one_with_the_doubled_batch(train, arguments, tmp_path):
    """Through torchrun and accelerate, on CPUs; a batch counts the patches of all processes."""
    pytest.importorskip("accelerate")
    words = [*arguments, "--stages", "2"]
    train(*words)
    one = clit_zoo.from_pretrained(tmp_path / "run" / "model", device="cpu").state_dict()
    losses = [row["loss"] for row in read_log(tmp_path / "run") if "loss" in row]
    (tmp_path / "run").rename(tmp_path / "one")

    done = torchrun(*words)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = read_log(tmp_path / "run")
    assert rows[0]["processes"] == 2
    assert [row["loss"] for row in rows if "loss" in row] == pytest.approx(losses, abs=2e-6)
    two = clit_zoo.from_pretrained(tmp_path / "run" / "model", device="cpu").state_dict()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=1e-5)
    assert "torchrun --nproc-per-node 2 -m clit_zoo train " in (tmp_path / "run/model/README.md").read_text()


@pytest.mark.slow
def test_an_error_in_one_process_ends_both(arguments, pictures, tmp_path):
    """The first process alone writes models, and the second one waits for it meanwhile."""
    pytest.importorskip("accelerate")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "best").write_text("no folder")
    done = torchrun(*arguments, "--val", str(pictures), "--val-every", "2")
    said = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert done.returncode == 1 and len(said) == 1, done.stderr[-2000:]
    assert str(tmp_path / "run" / "best") in said[0]


class Group:
    """Stands in for accelerate's state."""

    parted = 0

    def destroy_process_group(self):
        self.parted += 1


@pytest.mark.parametrize("error", [ClitZooError("no room"), ValueError("no room")])
def test_one_of_several_processes_says_its_error_and_leaves_at_once(error, monkeypatch, capsys):
    codes = []
    monkeypatch.setattr(os, "_exit", codes.append)
    processes = Processes("cpu")
    processes._state = group = Group()
    with processes:
        pass
    assert group.parted == 1 and not codes
    with pytest.raises(type(error)), processes:  # as the process does not end here
        raise error
    printed = capsys.readouterr().err
    assert codes == [1] and group.parted == 1
    assert "Error: no room\n" in printed and ("Traceback" in printed) == isinstance(error, ValueError)
    processes._state = None
    with pytest.raises(type(error)), processes:  # one alone leaves it to its caller
        raise error
    assert codes == [1]
