"""Killed at any moment, ``upscale`` leaves whole pictures, and ``train`` goes on to the same model."""

import multiprocessing
import os
import random
import shutil
import signal
import sys
import time

import pytest
import torch

from clit_zoo.commands import cli
from clit_zoo.training.log import read_log

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")

IMPORTED = ("clit_zoo.commands.upscale", "clit_zoo.commands.train", "accelerate", "torch._dynamo")
UPSCALE = "upscale in -o out -m tiny -s 4 --device cpu --skip-existing --suffix +"
TRAIN = (
    "train --model tiny --data photographs --out run --patch 12 --batch 2 --steps 24 --save-every 3 "
    "--log-every 2 --device cpu --workers 1 --no-tensorboard"
)
SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP")


def program(words, folder):
    """``clit-zoo`` in a process of its own, its words in a file."""
    os.chdir(folder)
    for name in SIGNALS[1:]:
        usual = signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL
        signal.signal(getattr(signal, name), usual)
    told = os.open("told.txt", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(told, 1)
    os.dup2(told, 2)
    torch.set_num_threads(1)
    sys.argv = ["clit-zoo", *words]
    cli.main()


class Program:
    """Runs of one command line, forked from a process that has imported everything."""

    def __init__(self, line, folder):
        self.words, self.folder = line.split(), folder
        self.forks = multiprocessing.get_context("forkserver")
        self.forks.set_forkserver_preload([*IMPORTED, __name__])
        code, told = self.run()  # starts the server
        assert code == 0, told

    def run(self, kill=None, share=0.0, words=None):
        """Its exit code and its output; killed by a signal after a share of the time that the last whole run
        took, if it lasts."""
        process = self.forks.Process(
            target=program, args=(words or self.words, str(self.folder)), daemon=False
        )
        began = time.monotonic()
        process.start()
        if kill is not None:
            process.join(share * self.seconds)
            if process.exitcode is None:
                os.kill(process.pid, getattr(signal, kill))
        process.join(120)
        assert process.exitcode is not None, "it hangs"
        told = self.folder / "told.txt"
        text = told.read_text() if told.exists() else ""
        told.unlink(missing_ok=True)
        assert "group.main(" not in text, text  # a traceback; Python's own of a start cut short is not ours
        if process.exitcode == 0:
            self.seconds = time.monotonic() - began
        return process.exitcode, text


def moments(campaign, **counts):
    """Signals and when to send them, as a share of a run."""
    dice = random.Random(0) if not campaign.long else random.SystemRandom()
    for turn in range(campaign.count(**counts)):
        yield SIGNALS[turn % len(SIGNALS)], dice.uniform(0, 0.9)


def test_upscale(campaign, save, tiny_model, tmp_path):
    for i in range(6):
        save(f"in/{i}.{('png', 'jpg', 'tif')[i % 3]}", 50 + i, 40)
    whole = Program(UPSCALE, tmp_path)
    out = tmp_path / "out"

    def outputs():
        return {path.name: path.read_bytes() for path in out.iterdir()} if out.exists() else {}

    def emptied():
        for path in out.iterdir() if out.exists() else ():
            path.unlink()

    expected = outputs()
    assert len(expected) == 6
    emptied()
    assert whole.run()[0] == 0 and outputs() == expected
    for kill, share in moments(campaign, quick=4, long=100):
        emptied()
        code, text = whole.run(kill, share)
        found = outputs()
        parts = {name for name in found if name.startswith(".")}
        assert all(found[name] == expected[name] for name in found.keys() - parts), text
        if kill != "SIGKILL":
            assert not parts and (code in (0, 128 + getattr(signal, kill)) or not found), text
        assert whole.run()[0] == 0
        assert {name: data for name, data in outputs().items() if name not in parts} == expected
        campaign.seen["run through before" if code == 0 else f"killed by {kill}"] += 1


def test_a_killed_shard(campaign, save, tiny_model, tmp_path):
    """Run again, it leaves every picture once and whole, whatever the other shards do in the meantime."""
    for i in range(6):
        save(f"in/{'deep/' * (i % 2)}{i}.png", 50 + i, 40)
    whole = Program(UPSCALE + " -r", tmp_path)
    expected = found(tmp_path / "out")
    assert len(expected) == 6
    for _, share in moments(campaign, quick=2, long=20):
        shutil.rmtree(tmp_path / "out")
        shards = [[*whole.words, "--shard", f"{shard}/2"] for shard in range(2)]
        assert whole.run(words=shards[1])[0] == 0
        code, _ = whole.run("SIGKILL", share, shards[0])
        campaign.seen["run through before" if code == 0 else "killed by SIGKILL"] += 1
        assert expected.items() >= found(tmp_path / "out").items()
        assert whole.run(words=shards[0])[0] == 0 and found(tmp_path / "out") == expected


def found(folder):
    """Every finished file below a folder."""
    files = (path for path in folder.rglob("*.*") if not path.name.startswith("."))
    return {path.relative_to(folder): path.read_bytes() for path in files}


def test_train(campaign, save, tiny_model, tmp_path):
    for i in range(3):
        save(f"photographs/{i}.png", 60, 50)
    whole = Program(TRAIN, tmp_path)
    run = tmp_path / "run"

    def result():
        rows = [(row["step"], row["loss"], row["lr"]) for row in read_log(run) if "loss" in row]
        return (run / "model" / "model.safetensors").read_bytes(), rows

    expected = result()
    run.rename(tmp_path / "0")
    assert whole.run()[0] == 0 and result() == expected
    run.rename(tmp_path / "1")
    unfinished = False
    for turn, (kill, share) in enumerate(moments(campaign, quick=4, long=100)):
        code, text = whole.run(kill, share)
        campaign.seen["run through before" if code == 0 else f"killed by {kill}"] += 1
        unfinished = code != 0
        if turn % 4 == 3 or not unfinished:  # up to four kills a run
            assert not unfinished or whole.run()[0] == 0
            assert result() == expected, text
            run.rename(tmp_path / f"{turn + 2}")
            unfinished = False
    if unfinished:
        assert whole.run()[0] == 0 and result() == expected
