"""The model card of a trained model: what it was trained on, for how long, and what it scores."""

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from ..evaluation import Results, render
from ..zoo.config import ModelConfig
from ..zoo.folder import model_card
from .recipe import Recipe

HUB_OPTIONS = ("--model", "--datasets", "--data-name")
"""Options whose values may be identifiers of the Hub, "organisation/name", which look like paths."""


@dataclass(frozen=True)
class Training:
    """What there is to say of a run.

    Attributes:
        start: what it started from, in words.
        data: the pictures, in words.
        steps: done so far; seconds: spent training; device: in words; processes: how many.
        command: how it was started.
        license: the weights' licence, an identifier of the Hub; datasets: identifiers of the Hub.
        history: what was changed on the way, in words.
    """

    start: str
    data: str
    steps: int
    seconds: float
    device: str
    processes: int = 1
    command: Sequence[str] = ()
    license: str | None = None
    datasets: tuple[str, ...] = ()
    history: tuple[str, ...] = ()


def training_card(
    config: ModelConfig, recipe: Recipe, training: Training, results: Results | None = None
) -> str:
    """README.md of the model."""
    patches = training.steps * recipe.batch
    planned = max(recipe.steps, training.steps)  # a run may have been made shorter than it is
    average = " The weights are the average over the last steps." if recipe.ema else ""
    processes = f", {training.processes} processes" if training.processes > 1 else ""
    paragraphs = [
        "## Training",
        f"From {training.start}, on {training.data}.",
        f"{training.steps:,} of {planned:,} steps of {recipe.batch} patches of {recipe.patch}×"
        f"{recipe.patch} ({patches:,} patches) in {_duration(training.seconds)} on {training.device}"
        f"{processes}. The paper trains its one-stage models for 1,000,000 steps of 32 patches, and 500,000 "
        f"more for each stage of a cascade.{average}",
    ]
    if training.history:
        paragraphs.append(f"Changed on the way: {'; '.join(training.history)}.")
    if training.command:
        paragraphs.append("```\n" + " ".join(map(shlex.quote, _public(training.command))) + "\n```")
    settings = ", ".join(f"{key} {value}" for key, value in asdict(recipe).items() if key != "steps")
    paragraphs.append(f"Settings: {settings}.")
    if results is not None and results.scores:
        protocols = "; ".join(f"{name}: {text}" for name, text in results.protocols.items())
        paragraphs += ["## Figures", f"As measured, beside the paper's. Protocols: {protocols}."]
        paragraphs.append(render(results, "markdown").strip())
    return model_card(
        config, body="\n\n".join(paragraphs), license=training.license, datasets=training.datasets
    )


def _public(command: Sequence[str]) -> Iterator[str]:
    """The words of the command, without the folders of the machine it ran on.

    The words before the first option name the program and stay.
    """
    option = ""
    for word in command:
        if word.startswith("--"):
            option, equals, value = word.partition("=")
            yield option + equals + _short(value, option)
        else:
            yield _short(word, option) if option or os.path.isabs(word) else word


def _short(value: str, option: str) -> str:
    """The last part of a path; other words, and identifiers of the Hub, as they are."""
    hub_id = re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", value)
    if option in HUB_OPTIONS and hub_id and not os.path.exists(value):
        return value
    return os.path.basename(os.path.normpath(value)) if os.path.basename(value) != value else value


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 6000 else f"{seconds / 3600:.1f} hours"
