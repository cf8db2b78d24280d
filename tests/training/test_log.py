"""What a run reports."""

import os

import numpy as np
import pytest

from clit_zoo.training import log as log_module
from clit_zoo.training.log import Log, read_log
from clit_zoo.training.prefetch import prefetched


def test_rows_after_the_checkpoint_are_dropped(tmp_path):
    log = Log(tmp_path, 0, tensorboard=False)
    for step in (0, 5, 10, 15):
        log.row(step, loss=step / 10)
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"step": 20, "lo')  # cut short by a kill
    assert [row["step"] for row in read_log(tmp_path)] == [0, 5, 10, 15]
    log = Log(tmp_path, 10, tensorboard=False)
    log.row(12, loss=0.5)
    assert read_log(tmp_path)[1:] == [
        {"step": 5, "loss": 0.5},
        {"step": 10, "loss": 1.0},
        {"step": 12, "loss": 0.5},
    ]


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    log = Log(tmp_path, 0)
    assert log.missing is None
    log.row(1, loss=0.25, val={"Set5×2": 30.0}, event="start")
    log.picture(1, "sample", np.zeros((4, 5, 3), np.uint8))
    log.close()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"loss", "val/Set5×2"}
    assert events.Scalars("loss")[0].value == 0.25 and events.Tags()["images"] == ["sample"]


def test_without_tensorboard(tmp_path, monkeypatch):
    monkeypatch.setattr(log_module, "find_spec", lambda name: None)
    log = Log(tmp_path, 0)
    assert log.missing is not None and "pip install 'clit-zoo[train]'" in log.missing
    log.row(1, loss=0.25)
    assert read_log(tmp_path) == [{"step": 1, "loss": 0.25}]


def test_batches_come_in_order_and_errors_come_through():
    def draw(step: int) -> int:
        if step == 7:
            raise ValueError("step 7")
        return step * step

    drawn = []
    with pytest.raises(ValueError, match="step 7"), prefetched(draw, range(2, 9), threads=3) as batches:
        for batch, waited in batches:
            drawn.append(batch)
            assert waited > 0
    assert drawn == [4, 9, 16, 25, 36]
    with prefetched(draw, range(3)) as batches:
        assert [batch for batch, _ in batches] == [0, 1, 4]


def test_a_full_disk_stops_the_log_only(tmp_path, monkeypatch, capsys):
    log = Log(tmp_path, 0, tensorboard=False)
    log.row(1, loss=0.5)

    class Full:
        """A disk with room for seven letters of each line."""

        def __init__(self, path, mode, **_):
            self.file = open(path, mode)  # noqa: SIM115

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, line):
            self.file.write(line[:7])
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(log_module, "open", Full, raising=False)
    log.row(2, loss=0.4)
    log.row(3, loss=0.3)
    monkeypatch.undo()
    log.row(4, loss=0.2)
    warned = capsys.readouterr().err
    assert warned.count("Warning") == 1 and "No space left" in warned and "log.jsonl" in warned
    assert [row["step"] for row in read_log(tmp_path)] == [1, 4]


def test_rows_that_cannot_be_dropped_stay_as_they_are(tmp_path, monkeypatch, capsys):
    log = Log(tmp_path, 0, tensorboard=False)
    for step in (1, 2):
        log.row(step, loss=0.5)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    Log(tmp_path, 1, tensorboard=False)
    assert "No space left" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["log.jsonl"] and [row["step"] for row in read_log(tmp_path)] == [1, 2]


def test_tensorboards_errors_end_tensorboard_only(tmp_path, capsys):
    class Refusing:
        def add_scalar(self, *_):
            raise OSError(28, "No space left on device")

    log = Log(tmp_path, 0, tensorboard=False)
    log._writer = Refusing()
    log.row(1, loss=0.5)
    log.row(2, loss=0.5)
    log.picture(2, "sample", np.zeros((4, 5, 3), np.uint8))
    log.close()
    assert capsys.readouterr().err.count("Warning") == 1
    assert [row["step"] for row in read_log(tmp_path)] == [1, 2]
