"""What commands that compute share: the model, ready on its device, and the options of its precision."""

import functools
from collections.abc import Callable
from typing import Any

import click

import clit_zoo

from ..choice import between
from ..model import SuperResolver
from . import threads


def load(
    model: str, device: str, dtype: str | None, backend: str, strength: float | None = None
) -> SuperResolver:
    """The model, to compute on the cores that are free.

    ``strength`` asks for the model ``between`` two instead of the one named.

    Raises:
        ClitZooError: it cannot be had, or ``backend`` cannot serve it there.
    """
    threads.use_free_cores()
    options: dict[str, Any] = {"device": device, "dtype": dtype or "auto", "backend": backend}
    if strength is None:
        resolver = clit_zoo.from_pretrained(model, **options)
    else:
        resolver = between(strength, **options)
    resolver.check_backend()
    return resolver


class Parsed(click.ParamType):
    """What ``parse`` makes of an option's text; its ValueError becomes click's."""

    def __init__(self, name: str, what: str, parse: Callable[[str], Any]):
        self.name, self.what, self.parse = name, what, parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self.parse(value) if isinstance(value, str) else value
        except ValueError:
            self.fail(f"{value!r} is no {self.what}.", param, ctx)


def one_of(**given: Any) -> None:
    """Refuse options that exclude each other; an option not given is None or False."""
    names = [f"--{name.replace('_', '-')}" for name, value in given.items() if value not in (None, False)]
    if len(names) > 1:
        raise click.UsageError(f"Give one of {' and '.join(names)}.")


def precision_options(fp32_help: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """--fp32, --fp16 and --bf16, of which the command gets the one given as ``dtype``, or None.

    Three flags of one parameter would be shorter, but of several given the last would win unsaid.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @click.option("--fp32", is_flag=True, help=fp32_help)
        @click.option("--fp16", is_flag=True, help="Compute in float16.")
        @click.option("--bf16", is_flag=True, help="Compute in bfloat16.")
        @functools.wraps(function)
        def command(*args: Any, fp32: bool, fp16: bool, bf16: bool, **options: Any) -> Any:
            one_of(fp32=fp32, fp16=fp16, bf16=bf16)
            dtype = "float32" if fp32 else "float16" if fp16 else "bfloat16" if bf16 else None
            return function(*args, dtype=dtype, **options)

        return command

    return decorate
