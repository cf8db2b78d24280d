"""A leg is small, whole or refused, and continues the run but for rounding."""

import json
import os
from pathlib import Path

import pytest
import torch
from tiny_training import PATCH, tiny_model

from clit_zoo.errors import ClitZooError
from clit_zoo.model import SuperResolver
from clit_zoo.training import legs
from clit_zoo.training.legs import INDEX, read_leg, write_leg
from clit_zoo.training.log import read_log
from clit_zoo.training.loop import Run
from clit_zoo.training.recipe import Recipe
from clit_zoo.zoo.config import ModelConfig

STEPS = 12
OVERHEAD = 1 << 20  # set aside for the index and the log


def start(photographs, folder: Path, model: SuperResolver | None = None, **changes) -> Run:
    settings = {"steps": STEPS, "batch": 2, "patch": PATCH, "lr": 1e-3, "optimizer": "muon", **changes}
    return Run(
        model or tiny_model(), Recipe(**settings), photographs, folder,
        log_every=3, tensorboard=False, progress=False,
    )  # fmt: skip


def stop_at(run: Run, step: int) -> None:
    while run.step < step:
        run.train(minutes=0)


@pytest.fixture
def half(photographs, tmp_path) -> Run:
    """A run stopped in the middle."""
    run = start(photographs, tmp_path / "half")
    stop_at(run, STEPS // 2)
    return run


def room_for(run: Run, *prefixes: str) -> int:
    """Bytes for a leg with the tensors whose names start so."""
    tensors, _ = legs._packed(run, 10**9)
    chosen = {name: t for name, t in tensors.items() if name.startswith(prefixes)}
    return OVERHEAD + legs._size(chosen)


def distance(a: dict, b: dict) -> float:
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def test_the_next_machine_goes_on_but_for_rounding(photographs, tmp_path, half):
    leg = tmp_path / "leg"
    kept = write_leg(half, leg, file_bytes=20_000)
    assert kept == ["weights in float16", "average in float16", "optimizer's state in bfloat16"]
    sizes = [f.stat().st_size for f in leg.iterdir()]
    assert len(sizes) > 2 and sum(sizes) < 250_000
    assert max(f.stat().st_size for f in leg.glob("*.bin")) <= 20_000

    run = start(photographs, tmp_path / "next")
    before = {k: v.clone() for k, v in run.model.state_dict().items()}
    assert read_leg(run, leg) is True
    assert run.step == STEPS // 2 and run.seconds == half.seconds and run.ramp_from is None
    moved = distance(half.model.state_dict(), before)
    assert distance(half.model.state_dict(), run.model.state_dict()) < 3e-4 < moved / 3
    assert distance(half.average.shadow, run.average.shadow) < 3e-4
    assert read_log(run.folder) == read_log(half.folder)

    assert half.train() and run.train()
    assert distance(half.model.state_dict(), run.model.state_dict()) < moved / 2
    ends = [[row["loss"] for row in read_log(r.folder) if "loss" in row][-1] for r in (half, run)]
    assert ends[0] == pytest.approx(ends[1], rel=0.03)


def wide_model() -> SuperResolver:
    """One whose numbers take more room than its tensors' names."""
    decoder = {"name": "clit", "dim": 32, "heads": 2, "radius": 0, "hidden_dims": [64, 64]}
    return SuperResolver(ModelConfig("wide", {"name": "edsr", "channels": 32, "blocks": 1}, decoder))


def test_what_does_not_fit_is_left_out_in_order(photographs, tmp_path):
    half = start(photographs, tmp_path / "half", wide_model())
    stop_at(half, 2)
    words = ["weights in float16", "average in float16", "optimizer's state in bfloat16"]
    for room, expected in (
        (room_for(half, "weight", "average", "optimizer"), words),
        (room_for(half, "weight", "average", "optimizer") - 1, words[:2]),
        (room_for(half, "weight", "average") - 1, [words[0], "average as 8-bit difference"]),
        (room_for(half, "weight"), words[:1]),
    ):
        leg = tmp_path / f"leg{room}"
        assert write_leg(half, leg, room) == expected
        assert sum(f.stat().st_size for f in leg.iterdir()) <= room
        run = start(photographs, tmp_path / f"run{room}", wide_model())
        assert read_leg(run, leg) and run.step == 2
        assert run.ramp_from == (None if "optimizer" in expected[-1] else 2)
        average = half.average.shadow if len(expected) > 1 else half.model.state_dict()
        assert distance(run.average.shadow, average) < 3e-4
    assert run.train(minutes=0) is False and run.optimizer.adam.param_groups[0]["lr"] == 1e-3 / 50
    assert run.train() is True
    rates = [row["lr"] for row in read_log(run.folder) if "lr" in row]
    assert rates[0] == pytest.approx(1e-3 / 50)  # step 3, the first of the ramp
    with pytest.raises(ClitZooError, match="freeze a part"):
        write_leg(half, tmp_path / "none", room_for(half, "weight") - 1)
    assert not (tmp_path / "none").exists()


def test_an_eight_bit_average_is_close(photographs, tmp_path):
    half = start(photographs, tmp_path / "half", wide_model())
    half.step = 1
    with torch.no_grad():
        for value in half.average.shadow.values():
            value.add_(torch.randn(value.shape, generator=torch.manual_seed(0)) * 1e-2)
    write_leg(half, tmp_path / "leg", room_for(half, "weight", "average") - 1)
    run = start(photographs, tmp_path / "run", wide_model())
    read_leg(run, tmp_path / "leg")
    for name, value in half.average.shadow.items():
        weight = half.model.state_dict()[name]
        change = float((value - weight).abs().max())
        rounding = float((weight.half().float() - weight).abs().max())
        error = float((value - run.average.shadow[name]).abs().max())
        assert error <= (change + rounding) / 127 * 0.51 + 1e-7, name


def test_frozen_parts_are_left_out(photographs, tmp_path):
    run = start(photographs, tmp_path / "frozen", freeze_encoder=True)
    stop_at(run, 2)
    write_leg(run, tmp_path / "leg")
    again = start(photographs, tmp_path / "again", freeze_encoder=True)
    assert read_leg(again, tmp_path / "leg") and again.step == 2
    with pytest.raises(ClitZooError, match=r"same --model, --stages and --freeze-"):
        read_leg(start(photographs, tmp_path / "whole"), tmp_path / "leg")


def test_a_leg_is_whole_or_refused(photographs, tmp_path, half):
    leg = tmp_path / "leg"
    write_leg(half, leg, file_bytes=20_000)
    run = start(photographs, tmp_path / "run")
    part = sorted(leg.glob("*.bin"))[1]
    content = part.read_bytes()
    part.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ClitZooError, match="is damaged"):
        read_leg(run, leg)
    part.unlink()
    with pytest.raises(ClitZooError, match="no whole leg"):
        read_leg(run, leg)
    with pytest.raises(ClitZooError, match="no whole leg"):
        read_leg(run, tmp_path)
    part.write_bytes(content)
    # the files of a later leg that was cut short do not disturb the one before
    (leg / "state-000000000000-0.bin").write_bytes(b"half")
    assert read_leg(run, leg) and run.step == STEPS // 2
    run.train()
    assert read_leg(run, leg) is False and run.step == STEPS  # the run is further than the leg
    write_leg(run, leg)
    assert json.loads((leg / INDEX).read_text())["step"] == STEPS
    assert len(list(leg.glob("*.bin"))) == 1


def test_a_leg_of_another_base_model_is_refused(photographs, tmp_path):
    run = start(photographs, tmp_path / "frozen", freeze_encoder=True)
    stop_at(run, 1)
    leg = tmp_path / "leg"
    write_leg(run, leg)
    other = start(photographs, tmp_path / "other", tiny_model(seed=1), freeze_encoder=True)
    with pytest.raises(ClitZooError, match="other frozen weights"):
        read_leg(other, leg)
    index = json.loads((leg / INDEX).read_text())
    del index["frozen"], index["order"]  # as earlier versions wrote it
    (leg / INDEX).write_text(json.dumps(index))
    assert read_leg(start(photographs, tmp_path / "again", freeze_encoder=True), leg)


def test_a_leg_brings_no_best_figures_without_the_best_model(photographs, tmp_path, half):
    half.best = {"score": 99.0, "step": 3}
    write_leg(half, tmp_path / "leg")
    run = start(photographs, tmp_path / "next")
    assert read_leg(run, tmp_path / "leg") and run.best == {}


def test_only_the_main_process_copies_the_log(photographs, tmp_path, half, monkeypatch):
    write_leg(half, tmp_path / "leg")
    run = start(photographs, tmp_path / "second")
    run.processes.main = False
    assert read_leg(run, tmp_path / "leg") and not (run.folder / "log.jsonl").exists()

    def refused(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(ClitZooError, match=r"log cannot be copied .*No space left"):
        read_leg(start(photographs, tmp_path / "third"), tmp_path / "leg")
    assert os.listdir(tmp_path / "third") == []


def test_a_leg_that_does_not_fit_leaves_the_one_before(tmp_path, half, monkeypatch):
    leg = tmp_path / "leg"
    write_leg(half, leg)
    before = {path.name: path.read_bytes() for path in leg.iterdir()}

    def full(handle):
        raise OSError(28, "No space left on device")

    half.step += 1
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ClitZooError, match="No space left"):
        write_leg(half, leg)
    assert {path.name: path.read_bytes() for path in leg.iterdir()} == before
