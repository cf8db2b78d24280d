"""Files appear whole or not at all, whoever else writes them."""

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from clit_zoo.atomic import STALE, remove_stale, replacing

WRITER = """
import sys
from pathlib import Path
from clit_zoo.atomic import replacing
for turn in range(20):
    with replacing(sys.argv[1]) as part, open(part, "w") as file:
        for _ in range(50):
            file.write(sys.argv[2] * 100)
            file.flush()
"""


@pytest.fixture
def umask():
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_part_is_new_empty_and_beside(tmp_path):
    parts = []
    for turn in ("one", "two"):
        with replacing(tmp_path / "a.bin") as part:
            assert part.parent == tmp_path and part.name.startswith(".a.bin.") and part.read_bytes() == b""
            part.write_text(turn)
            parts.append(part)
            assert (tmp_path / "a.bin").exists() == (turn == "two")
        assert (tmp_path / "a.bin").read_text() == turn
    assert parts[0] != parts[1] and os.listdir(tmp_path) == ["a.bin"]


@pytest.mark.parametrize(
    "error", [OSError(28, "full"), ValueError("bad"), KeyboardInterrupt(), SystemExit(143)]
)
@pytest.mark.parametrize("there", [True, False])
def test_whatever_goes_wrong_the_old_file_stays_alone(tmp_path, error, there):
    if there:
        (tmp_path / "a.bin").write_text("old")
    with pytest.raises(type(error)), replacing(tmp_path / "a.bin") as part:
        part.write_text("ne")
        raise error
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"] * there


@pytest.mark.parametrize("call", ["open", "fstat", "chmod", "fsync", "replace"])
def test_a_refusal_of_the_system_leaves_nothing(tmp_path, monkeypatch, call):
    def refused(*_, **__):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "a.bin").write_text("old")
    (tmp_path / "a.bin").chmod(0o640)
    with monkeypatch.context() as patch:
        patch.setattr(os, call, refused)
        with pytest.raises(PermissionError), replacing(tmp_path / "a.bin") as part, part.open("w") as file:
            file.write("new")
    assert os.listdir(tmp_path) == ["a.bin"] and (tmp_path / "a.bin").read_text() == "old"


def test_the_content_is_on_the_disk_before_it_is_seen(tmp_path, monkeypatch):
    done = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (done.append(os.fstat(handle).st_size), sync(handle)))
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append(b), replace(a, b)))
    with replacing(tmp_path / "a.bin") as part:
        part.write_text("12345")
    assert done == [5, tmp_path / "a.bin"]


@pytest.mark.parametrize(
    ("mask", "expected"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664), (0o277, 0o400)]
)
def test_permissions_are_the_umasks(tmp_path, umask, mask, expected):
    umask(mask)
    for name, closed in (("a", False), ("b", True)):
        with replacing(tmp_path / name) as part:
            assert mode(part) == expected | 0o600
            part.write_text("x")
            if closed:  # as safetensors does
                part.chmod(0o600)
        assert mode(tmp_path / name) == expected


def test_permissions_of_a_replaced_file_stay(tmp_path, umask):
    path = tmp_path / "a"
    for kept in (0o600, 0o666, 0o444):
        path.touch()
        path.chmod(kept)
        with replacing(path) as part:
            assert mode(part) == kept | 0o600
            part.write_text("x")
        assert mode(path) == kept and path.read_text() == "x"
        path.unlink()
    path.symlink_to(tmp_path / "elsewhere")  # the link's own permissions say nothing
    with replacing(path) as part:
        part.write_text("x")
    assert mode(path) == 0o644 and not path.is_symlink() and not (tmp_path / "elsewhere").exists()


def test_impossible_paths(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for path, error in (
        (tmp_path / "nowhere" / "a", FileNotFoundError),
        (tmp_path / "file" / "a", NotADirectoryError),
        (tmp_path / "folder", IsADirectoryError),
        (tmp_path / "a\0b", ValueError),
        (tmp_path / "a\ud800", ValueError),
    ):
        with pytest.raises(error), replacing(path) as part:
            part.write_text("x")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"] and os.listdir(tmp_path / "folder") == []


@pytest.mark.parametrize("name", ["a" * 250, "ü" * 125, "[x]*"])
def test_long_and_odd_names(tmp_path, name):
    with replacing(tmp_path / name) as part:
        part.write_text("x")
    assert os.listdir(tmp_path) == [name]


def test_threads_do_not_write_into_each_other(tmp_path):
    def write(letter: str) -> None:
        for _ in range(20):
            with replacing(tmp_path / "a") as part:
                both.wait()
                part.write_text(letter * 1000)
                both.wait()  # both parts exist
            seen.add((tmp_path / "a").read_text())

    seen: set[str] = set()
    both = threading.Barrier(2, timeout=20)
    threads = [threading.Thread(target=write, args=(letter,)) for letter in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen <= {"a" * 1000, "b" * 1000} and os.listdir(tmp_path) == ["a"]


def test_processes_do_not_write_into_each_other(tmp_path):
    path = tmp_path / "a"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, path, letter]) for letter in "ab"]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        if path.exists():
            seen.add(path.read_text())
    assert all(writer.wait() == 0 for writer in writers)
    assert seen <= {"a" * 5000, "b" * 5000} and os.listdir(tmp_path) == ["a"]


def test_old_parts_are_removed(tmp_path):
    for kept, sweep in (({".a.pt.1f.part", ".b.pt.0f.part"}, "a.pt"), ({".a.pt.1f.part"}, "")):
        ours = {".a.pt.0f.part": 1, ".b.pt.0f.part": 1, ".a.pt.1f.part": 0}
        others = {"a.pt": 1, ".a.pt.part": 1, ".film.mkv.part": 1, "b.0f.part": 1}
        for name, old in (ours | others).items():
            (tmp_path / name).touch()
            past = (tmp_path / name).stat().st_mtime - (STALE + 10) * old
            os.utime(tmp_path / name, (past, past))
        remove_stale(tmp_path, sweep)
        assert set(os.listdir(tmp_path)) == kept | others.keys()
    with replacing(tmp_path / "c") as part:  # the real name is one of those
        os.utime(part, (0, 0))
        remove_stale(tmp_path)
        assert not part.exists()
        part.touch()
    remove_stale(tmp_path / "nowhere", "a.pt")
