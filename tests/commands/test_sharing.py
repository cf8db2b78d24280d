"""`clit-zoo upscale` shared out: among runs by --shard, and among devices by processes of one run."""

import json
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from clit_zoo.commands.upscale import workers
from clit_zoo.commands.upscale.plan import Job
from clit_zoo.errors import ConfigError, ImageError

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX processes")


def planned(run, *arguments):
    """What a run would do with each input."""
    pictures = json.loads(run("upscale", *arguments, "--dry-run", "--json").out)["pictures"]
    return {row["input"]: (row["output"], row["status"], row["reason"]) for row in pictures}


@pytest.mark.parametrize("shards", [3, 13])
def test_shards_make_the_whole(run, tiny_model, save, shards):
    for i in range(7):
        save(f"in/{'deep/er/' * (i % 2)}{i}.png")
    save("in/a.png")
    save("in/A.jpg")
    save("in/b.png")
    save("in/b.jpg")  # clashes with b.png
    Path("in/c.png").write_bytes(b"no picture")
    line = ("in", "-r", "-o", "out", "--format", "webp", "-m", tiny_model)
    whole = planned(run, *line)
    assert len(whole) == 12 and sum("already that of" in str(reason) for *_, reason in whole.values()) == 1
    parts = [planned(run, *line, "--shard", f"{shard}/{shards}") for shard in range(shards)]
    assert sum(len(part) for part in parts) == len(whole)
    assert {name: row for part in parts for name, row in part.items()} == whole
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 3  # at most one for the turns and the two pairs of one stem


def test_no_shard_replaces_an_input_of_another(run, model, save):
    save("a.png")
    save("b.png")
    save("a_2.png")
    for shard in "0/3", "1/3", "2/3":
        result = run(
            "upscale", "a.png", "b.png", "a_2.png", "--suffix", "_2", "--overwrite", "--shard", shard
        )
        assert (result.code == 1) == ("would replace an input" in result.err) == (shard == "0/3")


def test_a_shard_without_pictures_is_done(run, model, save):
    save("a.png")
    result = run("upscale", "a.png", "--shard", "3/4")
    assert result.code == 0 and result.out.startswith("nothing done") and not model.loaded


@pytest.mark.parametrize("shard", ["4/4", "1/0", "-1/2", "1", "1/2/3", "R/N", ""])
def test_what_is_no_shard(run, model, save, shard):
    save("a.png")
    result = run("upscale", "a.png", "--shard", shard)
    assert result.code == 2 and "of four they are 0/4 to 3/4" in result.err


def test_devices(run, model, save, monkeypatch):
    save("a.png")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert run("upscale", "a.png", "--device", "all").code == 0 and model.loaded[0][1]["device"] == "auto"
    result = run("upscale", "a.png", "-o", "out/", "--device", "cpu,abacus")
    assert result.code == 1 and "'abacus' is unknown" in result.err and len(model.loaded) == 1
    # one picture needs one device, and no other process
    assert run("upscale", "a.png", "-o", "out/", "--device", "cpu,cpu").code == 0
    assert model.loaded[1][1]["device"] == "cpu"
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert run("upscale", "a.png", "-o", "more/", "--device", "all").code == 0
    assert model.loaded[2][1]["device"] == "cuda:0"


class Enlarging:
    """Stands in for what enlarges on a device; a picture's name says what becomes of it."""

    def __init__(self, device):
        if device == "none":
            raise ConfigError("no such device")
        if device == "closed":
            raise PermissionError(13, "Permission denied", "model.safetensors")
        self.device = device

    def __call__(self, job, progress):
        progress(0.5)
        if job.source.stem == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if job.source.stem == "bad":
            raise ImageError("bad picture")
        job.notices = [f"{self.device} {os.getpid()} {os.environ['OMP_NUM_THREADS']}"]
        progress(1)


@pytest.fixture
def shared(monkeypatch):
    """``share_out`` of pictures by name; as it ends, no process is left."""
    forks = multiprocessing.get_context("forkserver")  # as spawn, but quick
    forks.set_forkserver_preload(["clit_zoo.commands.upscale"])
    monkeypatch.setattr(workers, "_NEW", forks)

    def call(names, devices, finished=lambda job: None):
        jobs, told, ended = [Job(Path(name)) for name in names], [], []

        def end(job):
            ended.append(job)
            finished(job)

        try:
            workers.share_out(jobs, devices, Enlarging, lambda *step: told.append(step), end, threads=3)
        finally:
            assert not multiprocessing.active_children()
        assert sorted(map(id, ended)) == sorted(map(id, jobs))  # each once
        return jobs, told

    return call


@posix
def test_a_process_for_each_device(shared):
    jobs, told = shared([*(f"{i}.png" for i in range(20)), "bad.png"], ["x", "y"])
    assert [job.status for job in jobs] == ["done"] * 20 + ["failed"] and "bad picture" in jobs[-1].reason
    places = [job.notices[0].split() for job in jobs[:20]]
    assert len({(device, process) for device, process, _ in places}) <= 2 and {p[2] for p in places} == {"3"}
    assert str(os.getpid()) not in {process for _, process, _ in places}
    assert all(told.count((job, 0.5)) == 1 for job in jobs) and told.count((jobs[0], 1.0)) == 1


@posix
def test_a_killed_process_loses_one_picture(shared):
    jobs, _ = shared(["kill.png", *(f"{i}.png" for i in range(5))], ["x", "y"])
    assert [job.status for job in jobs] == ["failed"] + ["done"] * 5
    assert "ended by signal 9; run again with --skip-existing" in jobs[0].reason


@posix
def test_pictures_that_nobody_is_left_for_have_failed(shared):
    jobs, _ = shared(["kill.png", "kill.png", "a.png"], ["x", "y"])
    assert [job.status for job in jobs] == ["failed"] * 3
    assert "none of the processes is left" in jobs[2].reason


@posix
def test_a_device_that_cannot_be_had_ends_the_run(shared):
    with pytest.raises(ConfigError, match="no such device"):
        shared(["a.png"] * 5, ["x", "none"])
    with pytest.raises(PermissionError, match="Permission denied"):  # weights that cannot be read
        shared(["a.png"], ["closed"])


@posix
def test_an_interruption_ends_the_processes(shared):
    def interrupt(job):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shared(["a.png"] * 5, ["x", "y"], interrupt)


@posix
def test_two_devices_give_what_one_gives(run, save, tiny_model, shared):
    for i in range(4):
        save(f"in/{i % 2}/{i}.png", 20 + i, 10)
    Path("in/bad.png").write_bytes(b"no picture")
    for out, devices in ("one", "cpu"), ("two", "cpu,cpu"):
        result = run("upscale", "in", "-r", "-o", out, "-m", tiny_model, "--device", devices)
        assert result.code == 1 and "4 enlarged, 1 failed" in result.out and result.err.count("Error") == 1
    one, two = (
        {path.relative_to(out): path.read_bytes() for path in Path(out).rglob("*.*")}
        for out in ("one", "two")
    )
    assert one == two and len(one) == 4
