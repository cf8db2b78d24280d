"""A run that is stopped, killed or cut short while saving goes on as if nothing had happened."""

import os
import signal
from pathlib import Path

import pytest
import torch
from tiny_training import PATCH, tiny_model

from clit_zoo.errors import ClitZooError, ConfigError
from clit_zoo.training import checkpoint
from clit_zoo.training.checkpoint import load_checkpoint, save_checkpoint
from clit_zoo.training.log import read_log
from clit_zoo.training.recipe import Recipe
from clit_zoo.training.run import Run

STEPS = 24
RECIPE = {
    "steps": STEPS,
    "batch": 2,
    "patch": PATCH,
    "optimizer": "muon",  # with Adam for the small parameters: both are tried
    "schedule": "cosine",
    "warmup": 3,
    "clip": 1.0,
}


def start(photographs, folder: Path, **changes) -> Run:
    recipe = Recipe(**{**RECIPE, **changes})
    return Run(
        tiny_model(2), recipe, photographs, folder,
        save_every=7, log_every=3, tensorboard=False, progress=False,
    )  # fmt: skip


def save(photographs, folder: Path) -> Run:
    """A run that has saved its start."""
    run = start(photographs, folder)
    run.begin()
    run.save()
    return run


def losses(folder: Path) -> list[tuple[int, float, float]]:
    return [(row["step"], row["loss"], row["lr"]) for row in read_log(folder) if "loss" in row]


def same_state(a: Run, b: Run) -> None:
    for name, value in a.model.state_dict().items():
        assert torch.equal(value, b.model.state_dict()[name]), name
    for name, value in a.state.average.shadow.items():
        assert torch.equal(value, b.state.average.shadow[name]), name
    first, second = a.state.optimizer.state_dict(), b.state.optimizer.state_dict()
    for which in first:
        for index, values in first[which]["state"].items():
            for key, value in values.items():
                assert torch.equal(value, second[which]["state"][index][key]), (which, index, key)


def test_stopped_by_time_or_signal_it_goes_on(photographs, tmp_path, monkeypatch):
    whole = start(photographs, tmp_path / "whole")
    whole.train()
    run = start(photographs, tmp_path / "stopped")
    assert run.train(minutes=0) is False and run.state.step == 1 and run.stopped_by is None
    run = start(photographs, tmp_path / "stopped")
    update = run._update

    def signalled(parts):
        if run.state.step == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return update(parts)

    monkeypatch.setattr(run, "_update", signalled)
    assert run.train() is False and run.state.step == 6 and run.stopped_by == signal.SIGTERM
    run = start(photographs, tmp_path / "stopped")
    assert run.train() is True
    same_state(whole, run)
    assert losses(tmp_path / "stopped") == losses(tmp_path / "whole")


def test_a_checkpoint_is_whole_or_the_one_before(photographs, tmp_path, monkeypatch):
    run = start(photographs, tmp_path)
    run.begin().step = 5
    run.save()
    before = (tmp_path / "checkpoint.pt").read_bytes()

    def half(state, file):
        file.write(before[: len(before) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.torch, "save", half)
    run.state.step = 6
    with pytest.raises(OSError, match=r"No space left.*checkpoint\.pt"):
        run.save()
    monkeypatch.undo()
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert sorted(f.name for f in tmp_path.iterdir()) == ["checkpoint.pt"]

    def refused(source, target):
        raise OSError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refused)  # the whole new file is put in place, or nothing
    with pytest.raises(PermissionError):
        run.save()
    monkeypatch.undo()
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    # a kill in the middle leaves the part beside it, which nobody reads
    (tmp_path / ".checkpoint.pt.part").write_bytes(before[: len(before) // 2])
    assert start(photographs, tmp_path).begin().step == 5


@pytest.mark.parametrize("content", ["cut", "empty", "other", "another version", "flipped"])
def test_a_damaged_checkpoint_is_refused(photographs, tmp_path, content):
    path = tmp_path / "checkpoint.pt"
    save(photographs, tmp_path)
    if content == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif content == "empty":
        path.write_bytes(b"")
    elif content == "flipped":
        whole = bytearray(path.read_bytes())
        weight = next(iter(torch.load(path)["model"].values()))
        whole[whole.index(weight.numpy().tobytes())] ^= 1  # torch alone would not notice
        path.write_bytes(whole)
    else:
        torch.save({"step": 3} if content == "other" else {"format": "clit_zoo run/1", "step": 3}, path)
    with pytest.raises(ClitZooError, match=r"checkpoint\.pt (is damaged|was not written by this version)"):
        start(photographs, tmp_path).begin()


def test_a_checkpoint_unpickles_nothing_but_data(tmp_path):
    torch.save({"format": checkpoint.FORMAT, "x": os.system}, tmp_path / "c.pt")
    with pytest.raises(ClitZooError, match="damaged"):
        load_checkpoint(tmp_path / "c.pt")
    save_checkpoint(tmp_path / "c.pt", {"x": torch.ones(2), "n": [1.5]})
    assert load_checkpoint(tmp_path / "c.pt")["n"] == [1.5]


def test_another_model_or_optimizer_in_the_folder(photographs, tmp_path):
    save(photographs, tmp_path)
    with pytest.raises(ConfigError, match="run with another model"):
        Run(tiny_model(3), Recipe(**RECIPE), photographs, tmp_path).begin()
    with pytest.raises(ConfigError, match=r"another optimizer \(muon\)"):
        start(photographs, tmp_path, optimizer="adam").begin()
    with pytest.raises(ConfigError, match=r"freeze_encoder False → True"):
        start(photographs, tmp_path, freeze_encoder=True).begin()
    run = start(photographs, tmp_path, lr=5e-5, steps=80)
    run.begin()
    assert run.changed == ["steps 24 → 80", "lr 0.0001 → 5e-05"]


def test_a_run_that_is_made_does_nothing(photographs, tmp_path):
    """Neither to the disk, where a damaged checkpoint lies, nor to the model."""
    (tmp_path / "checkpoint.pt").write_bytes(b"no checkpoint")
    model = tiny_model().eval()
    Run(model, Recipe(steps=1, patch=PATCH, freeze_encoder=True), photographs, tmp_path / "run")
    Run(model, Recipe(steps=1, patch=PATCH), photographs, tmp_path)
    assert [f.name for f in tmp_path.iterdir()] == ["checkpoint.pt"]
    assert not model.training and all(p.requires_grad for p in model.parameters())


def test_a_loss_that_is_no_number_stops_the_run_before_it_is_saved(photographs, tmp_path):
    run = save(photographs, tmp_path)
    with torch.no_grad():
        run.model.decoder.conv_ch.bias.fill_(float("nan"))
    with pytest.raises(ClitZooError, match=r"not a number any more by step 3.*--clip"):
        run.train()
    state = start(photographs, tmp_path).begin()
    assert state.step == 0 and bool(torch.isfinite(state.model.decoder.conv_ch.bias).all())


def test_weights_that_overflow_at_a_save_leave_the_checkpoint(photographs, tmp_path, monkeypatch):
    run = start(photographs, tmp_path)
    update = run._update

    def overflowing(parts):
        loss = update(parts)
        if run.state.step == 13:  # the step before the second save
            with torch.no_grad():
                run.model.decoder.conv_ch.bias.fill_(float("inf"))
        return loss

    monkeypatch.setattr(run, "_update", overflowing)
    with pytest.raises(ClitZooError, match=r"not a number any more by step 14.*--clip"):
        run.train()
    again = start(photographs, tmp_path)
    assert again.begin().step == 7 and again.train()


def test_fewer_steps_than_done_is_done(photographs, tmp_path):
    run = start(photographs, tmp_path, steps=8)
    while run.begin().step < 6:
        run.train(minutes=0)
    shorter = start(photographs, tmp_path, steps=4)
    assert shorter.train() is True and shorter.state.step == 6
    assert "6 of 6 steps" in (shorter.finish() / "README.md").read_text()


def test_what_killed_jobs_left_is_removed(tmp_path):
    path = tmp_path / "c.pt"
    old, young = tmp_path / ".c.pt.1.part", tmp_path / ".c.pt.2.part"
    for part in (old, young):
        part.write_bytes(b"half")
    os.utime(old, (0, 0))
    save_checkpoint(path, {"n": 2})
    assert load_checkpoint(path)["n"] == 2
    assert young.exists() and not old.exists()  # killed long ago, and perhaps still writing


def test_a_checkpoint_without_a_folder_is_refused_by_name(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere/c\.pt"):
        save_checkpoint(tmp_path / "nowhere" / "c.pt", {"n": 2})


def test_muon_goes_on_in_another_memory_format(photographs, tmp_path):
    run = start(photographs, tmp_path, channels_last=True)
    while run.begin().step < 2:
        run.train(minutes=0)
    plain = start(photographs, tmp_path)
    assert plain.begin().step == 2 and plain.changed == ["channels_last True → False"]
    momenta = [r.state.optimizer.state_dict()["muon"]["state"] for r in (run, plain)]
    assert momenta[0]
    for index, values in momenta[0].items():
        assert torch.equal(values["momentum_buffer"], momenta[1][index]["momentum_buffer"])


def test_what_is_frozen_is_in_evaluation_mode(photographs, pictures, tmp_path):
    """SwinIR drops layers at random while training, also where nobody learns from it."""
    run = start(photographs, tmp_path, freeze_encoder=True)
    modes = []
    run.model.encoder.register_forward_hook(lambda module, *_: modes.append(module.training))
    run.begin()
    with run._averaged():
        pass
    run.train(minutes=0)
    assert modes and not any(modes) and run.model.decoder.training


def test_processes_at_different_steps_stop(photographs, tmp_path, monkeypatch):
    run = start(photographs, tmp_path)
    monkeypatch.setattr(run.processes, "same", lambda number: False)
    with pytest.raises(ClitZooError, match="different checkpoints: give all the same --out"):
        run.train()
