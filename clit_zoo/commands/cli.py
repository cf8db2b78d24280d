"""The ``clit-zoo`` program: a table of commands, each imported when it runs, and what becomes of errors."""

import importlib
import io
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from .. import __version__
from ..errors import ClitZooError, is_out_of_memory, said_by_system
from .allocator import keep_freed_memory

# name -> (module with `command`, help line); the line stands here so that `clit-zoo --help` imports none.
COMMANDS = {
    "upscale": ("clit_zoo.commands.upscale", "Enlarge pictures by any factor."),
    "compare": ("clit_zoo.commands.compare", "Show what several models make of one picture, side by side."),
    "list": ("clit_zoo.commands.list", "List the registered models and where their weights are."),
    "info": ("clit_zoo.commands.info", "Show one model's settings, size and weights."),
    "eval": ("clit_zoo.commands.eval", "Measure a model on folders of original pictures."),
    "train": ("clit_zoo.commands.train", "Train a model on a folder of photographs."),
    "bench": ("clit_zoo.commands.bench", "Time models on this machine."),
    "convert": ("clit_zoo.commands.convert", "Turn a checkpoint of a paper's code into a model folder."),
    "push": ("clit_zoo.commands.push", "Publish a model folder on the Hugging Face Hub."),
    "serve": ("clit_zoo.commands.serve", "Zoom into photographs in the browser."),
    "doctor": ("clit_zoo.commands.doctor", "Check versions, devices, decoders, cache and shipped weights."),
}

EXTRAS = {
    "accelerate": "clit-zoo[train]",
    "matplotlib": "clit-zoo[viz]",
    "spandrel": "spandrel",
    "starlette": "clit-zoo[page]",
    "uvicorn": "clit-zoo[page]",
}
"""What brings a module that one command needs."""

INTERRUPTED = 130  # 128 + SIGINT, as shells count


class LazyGroup(click.Group):
    """A group whose commands are imported by name when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


group = LazyGroup(
    "clit-zoo",
    commands=dict.fromkeys(COMMANDS),  # type: ignore[arg-type]  # names, for click's "did you mean"
    help="Enlarge pictures by any factor with arbitrary-scale super-resolution models.",
    epilog="`clit-zoo COMMAND --help` shows a command's options.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
group = click.version_option(__version__, prog_name="clit-zoo")(group)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    # `clit-zoo list >&-`: Python has no stream there, and the next file opened would get its number.
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 (open until the end)
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: click.echo(f"Warning: {message}", err=True)
        try:
            code = group.main(arguments, prog_name="clit-zoo", standalone_mode=False)
            sys.stdout.flush()  # a full disk or a closed pipe shows here rather than at interpreter exit
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
        except OSError as error:  # a file, folder or disk
            return _failed(error)
        except ModuleNotFoundError as error:
            if error.name not in EXTRAS:
                raise
            extra = EXTRAS[error.name]
            click.echo(f"Error: {error.name} is not installed: pip install {extra!r}", err=True)
            return 1
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            click.echo("Error: not enough memory.", err=True)
            return 1
        except SystemExit as stop:  # a signal, or click's own answer to a closed pipe
            return stop.code if isinstance(stop.code, int) else 1


def main() -> NoReturn:
    """Entry point of the console script."""
    keep_freed_memory()
    for stream in (sys.stdout, sys.stderr):
        # A file name that is no UTF-8, or an ASCII terminal, must not end a run: escape what cannot be shown.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    for name in ("SIGTERM", "SIGHUP"):  # let a kill unwind the program: no unfinished file stays behind
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:  # nohup has it ignored
            signal.signal(number, _stop)
    sys.exit(run())


def _stop(number: int, frame: Any) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)  # a second one must not cut the cleaning up short
    raise SystemExit(128 + number)


def _failed(error: OSError) -> int:
    """Say what cannot be used, unless it is a pipe whose reader has left; the exit code."""
    place = None
    try:
        sys.stdout.flush()
    except OSError:  # the unwritten rest fails again, and would at exit
        place = "standard output"
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if not isinstance(error, BrokenPipeError):
        click.echo(f"Error: {said_by_system(error, place)}", err=True)
    return 1
