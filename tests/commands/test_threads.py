"""The thread count follows the cores that are free."""

import os

import pytest
import torch

from clit_zoo.commands import threads


def test_a_busy_core_is_not_counted(tmp_path, monkeypatch):
    ticks = os.sysconf("SC_CLK_TCK") * threads.SAMPLE_SECONDS
    idle = iter([1000, 1000 + int(2 * ticks)])
    monkeypatch.setattr(threads, "_idle", lambda: next(idle))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert threads.free_cores() == 2


def test_one_thread_is_left_where_nothing_is_idle(monkeypatch):
    monkeypatch.setattr(threads, "_idle", lambda: 1000)
    assert threads.free_cores() == 1


def test_without_the_system_file_all_cores_count(tmp_path, monkeypatch):
    assert threads._idle(tmp_path / "none") is None
    monkeypatch.setattr(threads, "_idle", lambda: None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(3)), raising=False)
    assert threads.free_cores() == 3


@pytest.mark.parametrize(
    ("text", "cores"), [("150000 100000\n", 2), ("50000 100000\n", 1), ("max 100000\n", 1 << 16)]
)
def test_a_containers_quota_is_kept(tmp_path, text, cores):
    file = tmp_path / "cpu.max"
    file.write_text(text)
    assert threads._quota(file) == cores


def test_a_users_setting_is_left_alone(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    assert threads.use_free_cores() == before


def test_the_real_machine_gives_a_count():
    assert 1 <= threads.free_cores() <= 1024
