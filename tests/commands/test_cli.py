"""The program around the commands: help, version, errors, interruption, closed pipes."""

import os
import signal
import subprocess
import sys
import types

import pytest

import clit_zoo
from clit_zoo import cli
from clit_zoo.errors import ImageError

PROGRAM = [sys.executable, "-m", "clit_zoo.cli"]


def test_help_is_quick_and_imports_nothing_heavy():
    script = (
        "import sys; from clit_zoo import cli; code = cli.run(['--help']);"
        "heavy = {'torch', 'numpy', 'PIL', 'timm', 'triton', 'tqdm', 'huggingface_hub', 'tifffile'};"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr); sys.exit(code)"
    )
    seconds = []
    for _ in range(3):
        before = os.times()
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        after = os.times()
        # Processor time, which a busy machine does not stretch as it does wall time.
        spent = after.children_user + after.children_system - before.children_user - before.children_system
        seconds.append(spent)
        assert done.returncode == 0 and done.stderr.strip() == "[]"
    assert min(seconds) < 0.5
    for name, (_, line) in cli.COMMANDS.items():
        assert f"  {name} " in done.stdout and line in done.stdout


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_each_command_has_help_without_torch(name):
    script = f"from clit_zoo import cli; cli.run([{name!r}, '--help']); assert 'torch' not in cli.sys.modules"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Usage: clit-zoo {name}")


def test_version(run):
    assert run("--version").out == f"clit-zoo, version {clit_zoo.__version__}\n"


def test_wrong_usage_is_2(run):
    result = run("upsale")
    assert result.code == 2 and "Did you mean upscale?" in result.err
    result = run("zzz")
    assert result.code == 2 and "The commands are upscale, list" in result.err
    assert run("list", "--nope").code == 2
    assert run("upscale").code == 2


def raising(error):
    def command():
        raise error

    return types.SimpleNamespace(command=cli.click.Command("x", callback=command))


@pytest.fixture
def failing(monkeypatch):
    def prepare(error):
        monkeypatch.setitem(cli.COMMANDS, "x", ("failing_command", "Fails."))
        monkeypatch.setitem(sys.modules, "failing_command", raising(error))

    return prepare


def test_errors_are_one_line_and_1(run, failing):
    failing(ImageError("a.png is empty; copy it again."))
    result = run("x")
    assert (result.code, result.out, result.err) == (1, "", "Error: a.png is empty; copy it again.\n")


def test_interruption_is_130(run, failing):
    failing(KeyboardInterrupt())
    result = run("x")
    assert result.code == 130 and result.err.strip() == "Interrupted."


def test_bugs_keep_their_traceback(run, failing):
    failing(ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError):
        run("x")


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX pipes and signals")
def test_a_reader_that_leaves_causes_no_noise():
    script = f"{sys.executable} -m clit_zoo.cli list --json | true"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True)
    assert done.stderr == ""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*PROGRAM, "list"], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert done.returncode == 1 and done.stderr == ""


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX pipes and signals")
def test_a_real_interrupt():
    script = (
        "import sys, time, types; from clit_zoo import cli;"
        "cli.COMMANDS['x'] = ('x', 'Waits.');"
        "wait = lambda: (print('ready', flush=True), time.sleep(30));"
        "sys.modules['x'] = types.SimpleNamespace(command=cli.click.Command('x', callback=wait));"
        "sys.argv = ['clit-zoo', 'x']; cli.main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130 and err.strip() == "Interrupted."
