"""`clit-zoo upscale` among names too long, folders that may not be read, links, and signals."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clit_zoo.commands.upscale import plan as jobs

DEFAULT = "edsr-light-lit"
as_user = pytest.mark.skipif(
    os.name != "posix" or os.geteuid() == 0, reason="permission bits bind neither root nor Windows"
)


@pytest.fixture
def locked(save):
    """A folder with a picture that nobody may look into."""
    save("locked/a.png")
    os.chmod("locked", 0)
    yield Path("locked")
    os.chmod("locked", 0o700)


@as_user
def test_a_locked_picture_does_not_stop_the_others(run, model, save, locked):
    save("a.png")
    save("noread.png")
    os.chmod("noread.png", 0)
    result = run("upscale", "a.png", "noread.png", "locked/a.png", "-o", "out")
    assert result.code == 1 and "1 enlarged, 2 failed" in result.out
    assert result.err.count("Permission denied") == 2


@as_user
def test_a_locked_folder_is_named(run, model, save, locked):
    save("a.png")
    result = run("upscale", "a.png", "-o", "locked/x.png")
    assert result.code == 1 and "Permission denied" in result.err and not model.loaded
    result = run("upscale", "a.png", "locked", "-o", "out")
    assert (
        result.code == 1
        and "1 enlarged, 1 failed" in result.out
        and "folder locked cannot be read" in result.err
    )
    for arguments in (["info", "locked"], ["upscale", "a.png", "--dry-run", "-m", "locked"]):
        result = run(*arguments)
        assert result.code == 1 and "check its permissions" in result.err
    result = run("eval", "locked/foo", "-m", "bicubic", "-s", "2")
    assert result.code == 1 and "check its permissions" in result.err


@as_user
def test_outputs_may_go_where_nobody_may_look(run, model, save):
    save("a.png")
    os.mkdir("drop", 0o300)
    assert run("upscale", "a.png", "-o", "drop/").code == 0
    os.chmod("drop", 0o700)


def deny(monkeypatch, name, refused):
    """Let an `os` function refuse one path, as it does to who is not root."""
    real = getattr(os, name)

    def call(path, *arguments, **options):
        if isinstance(path, str | os.PathLike) and os.fspath(path) == refused:
            raise PermissionError(13, "Permission denied", refused)
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, name, call)


def test_what_may_not_be_read_is_no_wrong_usage(run, model, save, monkeypatch):
    save("a.png")
    save("in/b.png")
    os.mkdir("drop")
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    assert run("upscale", "a.png", "-o", "drop").code == 0
    assert run("eval", "in", "-m", "bicubic", "-s", "1", "--out", "a.png").code == 1
    assert run("convert", "a.png", "-o", "drop").code == 1


def test_a_folder_that_cannot_be_searched_is_a_failure(run, model, save, monkeypatch):
    save("in/a.png")
    save("in/sub/b.png")
    deny(monkeypatch, "scandir", "in/sub")
    result = run("upscale", "in", "-r", "-o", "out")
    assert result.code == 1 and "1 enlarged, 1 failed" in result.out
    assert "the folder in/sub cannot be read (Permission denied)" in result.err
    deny(monkeypatch, "scandir", "in")
    result = run("upscale", "in", "-o", "out")
    assert result.code == 1 and "folder in cannot be read" in result.err and "no pictures" not in result.err


def test_photographs_that_cannot_be_read_are_named(run, model, save):
    save("in/p.png")
    names = ("x.nef", "sub/y.CR2", "._x.nef"), ("1.dng", "2.arw", "3.raf", "4.orf")
    for path in (Path(folder, name) for folder, group in zip(("in", "only"), names) for name in group):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"whatever it is")
    result = run("upscale", "in", "-r", "-o", "out")
    assert result.code == 0 and "1 enlarged, 2 skipped" in result.out and not result.err
    reason = "its format cannot be read here: save it as JPEG, PNG or TIFF first"
    for name in ("in/x.nef", "in/sub/y.CR2"):
        assert f"{name}: skipped, {reason}" in result.out
    result = run("upscale", "only", "-o", "out")
    assert result.code == 1 and "1 failed" in result.out and "skipped" not in result.out
    assert f"no pictures that can be read, only 1.dng, 2.arw, 3.raf and 1 more: {reason}" in result.err
    result = run("upscale", "in/x.nef", "-o", "out")
    assert result.code == 1 and f"in/x.nef: {reason}" in result.err


def test_a_web_address_is_not_read(run, model, save):
    save("a.png")
    result = run("upscale", "https://example.com/a.png", "a.png", "-o", "out")
    assert result.code == 1 and "1 enlarged, 1 failed" in result.out
    assert result.err == (
        "Error: https:/example.com/a.png is a web address, which is not read; download the picture first.\n"
    )
    save("http:/b.png")  # a folder may have such a name
    assert run("upscale", "http:/b.png", "-o", "out").code == 0


def test_an_output_out_of_reach_fails_alone(run, model, save, monkeypatch):
    save("a.png")
    save("b.png")
    deny(monkeypatch, "lstat", "out/b+.png")
    result = run("upscale", "a.png", "b.png", "-o", "out", "--suffix", "+")
    assert result.code == 1 and "1 enlarged, 1 failed" in result.out
    assert "b.png: its output out/b+.png cannot be made (Permission denied)" in result.err


def test_an_error_of_the_system_in_the_plan_fails_one_picture(run, model, save, monkeypatch):
    save("a.png")
    save("b.png")

    def same_file(target, source):
        if source.name == "b.png":
            raise OSError(5, "Input/output error", "b.png")
        return False

    monkeypatch.setattr(jobs, "_same_file", same_file)
    result = run("upscale", "a.png", "b.png", "-o", "out")
    assert result.code == 1 and "1 enlarged, 1 failed" in result.out
    assert "b.png cannot be used (Input/output error)" in result.err


@pytest.mark.skipif(os.name != "posix", reason="lengths are counted otherwise elsewhere")
@pytest.mark.parametrize("folder", ["", "new/folder"])
def test_an_output_name_that_is_too_long_fails_before_any_work(run, model, save, folder):
    long = "n" * 241 + ".png"
    save(long)
    save("a.png")
    where = ["-o", folder] if folder else []
    result = run("upscale", long, "a.png", *where)
    assert result.code == 1 and "1 enlarged, 1 failed" in result.out
    assert "too long" in result.err and "--suffix" in result.err
    assert run("upscale", long, "--suffix", "+").code == 0
    for out in ("z" * 300 + ".png", "z" * 300, "z" * 300 + "/deep"):
        model.sizes.clear()
        result = run("upscale", "a.png", "-o", out)
        assert result.code == 1 and "too long" in result.err and not model.sizes


def test_an_input_name_that_is_too_long_does_not_stop_the_others(run, model, save):
    save("a.png")
    result = run("upscale", "z" * 300 + ".png", "a.png", "-o", "out")
    assert result.code == 1 and "1 enlarged, 1 failed" in result.out


def test_a_link_to_nowhere_is_something_that_exists(run, model, save):
    save("a.png")
    os.symlink("nowhere.png", "link.png")
    result = run("upscale", "a.png", "-o", "link.png")
    assert result.code == 1 and "--overwrite replaces it" in result.err and os.readlink("link.png")
    result = run("upscale", "a.png", "-o", "link.png", "--skip-existing")
    assert result.code == 0 and "1 skipped" in result.out
    assert run("upscale", "a.png", "-o", "link.png", "--overwrite").code == 0
    assert not os.path.islink("link.png") and not os.path.exists("nowhere.png")


def test_a_folder_that_is_no_model_is_named(run, save):
    save("a.png")
    os.mkdir("results")
    result = run("upscale", "a.png", "-m", "results", "--dry-run")
    assert result.code == 1 and "The folder results has no config.json" in result.err


def test_a_precision_is_given_once(run, model, save):
    save("a.png")
    result = run("upscale", "a.png", "--fp32", "--fp16")
    assert result.code == 2 and "Give one of --fp32 and --fp16." in result.err


KILLED = """
import os, signal, sys
import clit_zoo
from clit_zoo.commands import cli
from dataclasses import replace
from pathlib import Path

class Model:
    check_backend = staticmethod(lambda: None)
    def upscale(self, picture, *, size, **rest):
        return replace(picture, samples=picture.samples.new_zeros((1, 3, *size)))

def written(path, data):
    with open(path, "wb") as file:
        file.write(data[:20])
    os.kill(os.getpid(), signal.SIGTERM)
    raise AssertionError("still alive")

Path.write_bytes = written
clit_zoo.from_pretrained = lambda *rest, **options: Model()
cli.main()
"""


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_a_kill_leaves_no_unfinished_file_and_a_summary(save):
    save("a.png")
    save("b.png")
    arguments = [sys.executable, "-c", KILLED, "upscale", "a.png", "b.png", "-o", "out"]
    done = subprocess.run(
        arguments,
        capture_output=True,
        text=True,
        timeout=100,
        # nohup and background jobs have it ignored
        preexec_fn=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL),
    )
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert os.listdir("out") == [] and "2 not done in" in done.stdout and "Traceback" not in done.stderr
