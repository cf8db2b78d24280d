"""The `clit-zoo` program: a table of commands, each imported when it runs, and what becomes of errors."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import io
import logging
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from .. import __version__
from ..errors import ClitZooError

# name -> (module with `command`, help line); the line stands here so that `clit-zoo --help` imports none.
COMMANDS = {
    "upscale": ("clit_zoo.commands.upscale", "Enlarge pictures by any factor."),
    "list": ("clit_zoo.commands.list", "List the registered models and where their weights are."),
    "info": ("clit_zoo.commands.info", "Show one model's settings, size and weights."),
    "eval": ("clit_zoo.commands.eval", "Measure a model on folders of original pictures."),
    "convert": (
        "clit_zoo.commands.convert",
        "Turn a checkpoint of the CLIT authors' code into a model folder.",
    ),
    "doctor": ("clit_zoo.commands.doctor", "Check versions, devices, backends, cache and shipped weights."),
}

INTERRUPTED = 130  # 128 + SIGINT, as shells count


class LazyGroup(click.Group):
    """A group whose commands are imported by name when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _ = COMMANDS[cmd_name]
        command: click.Command = importlib.import_module(module).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean {close[0]}?" if close else f" The commands are {', '.join(COMMANDS)}."
            ctx.fail(f"There is no command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.command(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="`clit-zoo COMMAND --help` shows a command's options.",
)
@click.version_option(__version__, prog_name="clit-zoo")
def group() -> None:
    """Enlarge pictures by any factor with arbitrary-scale super-resolution models."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        return _run(arguments)


def _show_warning(message: Warning | str, *rest: Any, **options: Any) -> None:
    """A line of words, without the place in the code."""
    click.echo(f"Warning: {message}", err=True)


def _run(arguments: Sequence[str] | None) -> int:
    try:
        code = group.main(arguments, prog_name="clit-zoo", standalone_mode=False)
        _flush()  # a closed pipe shows here rather than at interpreter exit
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except ClitZooError as error:
        click.echo(f"Error: {error}", err=True)
        return 1
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        return _reader_gone()
    except OSError as error:  # a disk or folder no command has words for
        logging.getLogger("clit_zoo").debug("failed", exc_info=True)
        return _failed(error)
    except SystemExit as stop:  # a signal, or click's own answer to a closed pipe
        return stop.code if isinstance(stop.code, int) else 1


def main() -> NoReturn:
    """Entry point of the console script."""
    _open_closed_streams()
    _stop_on_signals()
    for stream in (sys.stdout, sys.stderr):
        # A file name that is no UTF-8, or an ASCII terminal, must not end a run: escape what cannot be shown.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    code = run()
    try:
        _flush()
    except BrokenPipeError:
        code = _reader_gone()
    except OSError as error:
        code = _failed(error)
    sys.exit(code)


def _open_closed_streams() -> None:
    """`clit-zoo list >&-`: Python has no stream there, and the next file opened would get its number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 (open until the end)


def _stop_on_signals() -> None:
    """Let a kill or a closed terminal unwind the program, so that no unfinished file stays behind."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:  # nohup has it ignored
            signal.signal(number, _stop)


def _stop(number: int, frame: Any) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)  # a second one must not cut the cleaning up short
    raise SystemExit(128 + number)


def _flush() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()


def _failed(error: OSError) -> int:
    """Say what cannot be used, standard output among the possibilities; the exit code."""
    place = error.filename
    # A failing stream names no file, and a second attempt may succeed: only the place in the code tells.
    printing = (click.echo.__code__, _flush.__code__)
    if any(frame.f_code in printing for frame, _ in traceback.walk_tb(error.__traceback__)):
        place = "standard output"
        _discard_output()
    reason = error.strerror or str(error) or type(error).__name__
    with contextlib.suppress(OSError):  # the terminal may be what has gone
        named = (
            f"{os.fsdecode(place)} cannot be used ({reason})." if isinstance(place, str | bytes) else reason
        )
        click.echo(f"Error: {named}", err=True)
    return 1


def _reader_gone() -> int:
    """`clit-zoo list | head -1`: the reader has left."""
    _discard_output()
    return 1  # not all was done, as far as anyone can tell


def _discard_output() -> None:
    """Keeps Python quiet about the unwritten rest at exit."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
