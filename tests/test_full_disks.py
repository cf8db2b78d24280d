"""A disk that is full: the old file or the new one, whole, and one of our errors; nothing beside it."""

import os
import subprocess
from pathlib import Path

import pytest
import torch
from hypothesis import strategies as st

import clit_zoo
from clit_zoo import imaging
from clit_zoo.commands import cli
from clit_zoo.errors import said_by_system
from clit_zoo.training.checkpoint import load_checkpoint, save_checkpoint
from clit_zoo.zoo.config import ModelConfig

resource = pytest.importorskip("resource")

PICTURE = imaging.decode(torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(0)))
CHECKPOINT = {"weights": torch.arange(2000.0), "step": 3}
WRITERS = {
    **{name: lambda path: imaging.write(PICTURE, path) for name in ("a.png", "a.jpg", "a.webp", "a.tif")},
    "a.pt": lambda path: save_checkpoint(path, CHECKPOINT),
    "tiny": lambda path: clit_zoo.SuperResolver(TINY).save_pretrained(path, overwrite=True),
}
TINY = ModelConfig(
    "tiny",
    {"name": "edsr", "channels": 8, "blocks": 1},
    {"name": "clit", "dim": 8, "heads": 2, "radius": 1, "stages": 1, "hidden_dims": [8, 8]},
)


def loads(path: Path) -> bool:
    """Whether what has been written can be read."""
    if path.suffix == ".pt":
        return torch.equal(load_checkpoint(path)["weights"], CHECKPOINT["weights"])
    if path.is_dir():
        return clit_zoo.from_pretrained(path, device="cpu").config == TINY
    return imaging.read(path).width == 40


def content(path: Path) -> dict[str, bytes]:
    files = path.iterdir() if path.is_dir() else [path] * path.exists()
    return {file.name: file.read_bytes() for file in files}


def attempt(path: Path) -> str:
    """Write where there is little room."""
    before = content(path)
    there = set(os.listdir(path.parent))
    try:
        WRITERS[path.name](path)
    except OSError as error:
        sentence = said_by_system(error)
        assert str(path) in sentence and "\n" not in sentence, sentence
        # of a folder's three files some may be new: each is whole, see below
        assert path.is_dir() or content(path) == before
        told = "refused"
    else:
        told = "written"
    assert set(os.listdir(path.parent)) - {path.name} == there - {path.name}
    assert not [name for name in content(path) if name.startswith(".")]
    return told


def test_short_writes(campaign, tmp_path):
    """A disk takes what fits and says so by a short count, as does the limit on a file's size."""
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)

    def one(case):
        name, room, old = case
        path = tmp_path / name
        if old:
            WRITERS[name](path)
        elif path.is_dir():
            for file in path.iterdir():
                file.unlink()
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, usual[1]))
        try:
            told = attempt(path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, usual)
        if told == "written" or old:
            assert loads(path)
        else:
            assert not content(path)
        WRITERS[name](path)
        return told

    rooms = st.integers(0, 30_000) | st.sampled_from((0, 1, 4096, 8192))
    campaign(one, st.tuples(st.sampled_from(sorted(WRITERS)), rooms, st.booleans()), quick=60, long=500)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True)
    except OSError:
        pytest.skip("there is no mount here")
    if done.returncode:
        pytest.skip("file systems may not be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_small_disk(campaign, small_disk):
    def one(case):
        name, pages = case
        path, fill = small_disk / name, small_disk / "fill"
        fill.unlink(missing_ok=True)
        for other in WRITERS:
            for file in content(small_disk / other):
                (small_disk / other / file if (small_disk / other).is_dir() else small_disk / other).unlink()
        WRITERS[name](path)
        with fill.open("wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)) == 4096:
                    pass
            except OSError:
                pass
            file.truncate(max(0, file.tell() // 4096 - pages) * 4096)
        told = attempt(path)
        assert loads(path)
        return told

    campaign(one, st.tuples(st.sampled_from(sorted(WRITERS)), st.integers(0, 14)), quick=30, long=300)


def test_the_command_on_a_small_disk(small_disk, tmp_path, capfd, monkeypatch):
    """Exit code 1, and what was there stays."""
    monkeypatch.chdir(tmp_path)
    imaging.write(PICTURE, "in.png")
    imaging.write(PICTURE, small_disk / "keep.jpg")
    before = (small_disk / "keep.jpg").read_bytes()
    (small_disk / "fill").write_bytes(bytes(48 * 1024))
    words = "upscale in.png -o disk/keep.jpg -s 4 --overwrite -m edsr-light-lit --device cpu"
    assert cli.run(words.split()) == 1
    assert "No space left" in capfd.readouterr().err
    assert (small_disk / "keep.jpg").read_bytes() == before
    assert sorted(os.listdir(small_disk)) == ["fill", "keep.jpg"]
