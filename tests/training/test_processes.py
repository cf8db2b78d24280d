"""Parts of a batch, on one process or several, make the step that the whole batch makes."""

import subprocess
import sys

import pytest
import torch
from tiny_training import PATCH, tiny_model

import clit_zoo
from clit_zoo.training.log import read_log
from clit_zoo.training.loop import Run
from clit_zoo.training.recipe import Recipe

from pathlib import Path  # isort: skip


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
def test_two_processes_are_one_with_the_doubled_batch(script, arguments, tmp_path):
    """Through torchrun and accelerate, on CPUs; a batch counts the patches of all processes."""
    pytest.importorskip("accelerate")
    words = [*arguments, "--stages", "2"]
    script.main(words)
    one = clit_zoo.from_pretrained(tmp_path / "run" / "model", device="cpu").state_dict()
    losses = [row["loss"] for row in read_log(tmp_path / "run") if "loss" in row]
    (tmp_path / "run").rename(tmp_path / "one")

    torchrun = Path(sys.executable).parent / "torchrun"
    command = [str(torchrun), "--standalone", "--nproc-per-node", "2", script.__file__, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = read_log(tmp_path / "run")
    assert rows[0]["processes"] == 2
    assert [row["loss"] for row in rows if "loss" in row] == pytest.approx(losses, abs=2e-6)
    two = clit_zoo.from_pretrained(tmp_path / "run" / "model", device="cpu").state_dict()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=1e-5)
