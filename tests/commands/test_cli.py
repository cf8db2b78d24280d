"""The program around the commands: help, version, errors, interruption, closed pipes."""

import os
import signal
import subprocess
import sys
import types

import pytest

import clit_zoo
from clit_zoo.commands import cli
from clit_zoo.errors import ImageError

PROGRAM = [sys.executable, "-m", "clit_zoo"]


def test_help_is_quick_and_imports_nothing_heavy():
    script = (
        "import sys; from clit_zoo.commands import cli; code = cli.run(['--help']);"
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


def test_version(run):
    assert run("--version").out == f"clit-zoo, version {clit_zoo.__version__}\n"


def test_wrong_usage_is_2(run):
    result = run("upsale")
    assert result.code == 2 and "No such command 'upsale'" in result.err
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


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("could not create a primitive")])
def test_no_memory_is_one_line_and_1(run, failing, error):
    failing(error)
    result = run("x")
    assert (result.code, result.err) == (1, "Error: not enough memory.\n")


def test_bugs_keep_their_traceback(run, failing):
    failing(ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError):
        run("x")


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX pipes and signals")
def test_a_reader_that_leaves_causes_no_noise():
    script = f"{sys.executable} -m clit_zoo list --json | true"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True)
    assert done.stderr == ""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*PROGRAM, "list"], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert done.returncode == 1 and done.stderr == ""


def test_an_error_of_the_system_is_one_line_and_1(run, failing):
    failing(PermissionError(13, "Permission denied", "locked/a.png"))
    result = run("x")
    assert (result.code, result.err) == (1, "Error: locked/a.png cannot be used (Permission denied).\n")
    failing(OSError(5, "Input/output error"))
    assert run("x").err == "Error: Input/output error\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a file that is always full")
def test_a_full_disk_under_standard_output():
    with open("/dev/full", "w") as full:
        done = subprocess.run([*PROGRAM, "list"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr == "Error: No space left on device\n"


@pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")
def test_closed_streams(tmp_path):
    program = f"{sys.executable} -m clit_zoo"
    for closed in (">&-", "<&- >&- 2>&-"):
        done = subprocess.run(["sh", "-c", f"{program} list {closed}"], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
    done = subprocess.run(["sh", "-c", f"{program} upsale 2>&-"], capture_output=True, text=True)
    assert done.returncode == 2


def test_without_a_standard_output_the_work_is_done(failing, monkeypatch):
    failing(None)
    monkeypatch.setitem(
        sys.modules, "failing_command", types.SimpleNamespace(command=cli.click.Command("x", callback=int))
    )
    monkeypatch.setattr(sys, "stdout", None)
    assert cli.run(["x"]) == 0


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX pipes and signals")
def test_signals_are_the_programs_alone(run):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGHUP)
    assert run("list").code == 0
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGHUP)) == before
    # nohup has it ignored, and so it stays
    script = (
        "import signal, sys, types; signal.signal(signal.SIGHUP, signal.SIG_IGN);"
        "from clit_zoo.commands import cli; cli.COMMANDS['x'] = ('x', 'Tells.');"
        "tell = lambda: print(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN,"
        "signal.getsignal(signal.SIGTERM) is cli._stop);"
        "sys.modules['x'] = types.SimpleNamespace(command=cli.click.Command('x', callback=tell));"
        "sys.argv = ['clit-zoo', 'x']; cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "True True\n"


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX pipes and signals")
def test_a_real_interrupt():
    script = (
        "import sys, time, types; from clit_zoo.commands import cli;"
        "cli.COMMANDS['x'] = ('x', 'Waits.');"
        "wait = lambda: (print('ready', flush=True), time.sleep(30));"
        "sys.modules['x'] = types.SimpleNamespace(command=cli.click.Command('x', callback=wait));"
        "sys.argv = ['clit-zoo', 'x']; cli.main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell starts background jobs with it ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130 and err.strip() == "Interrupted."
