"""The model card of a trained model: what it was trained on, for how long, and what it scores."""

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise

from ..evaluation import Results, render
from ..zoo.folder import model_card
from .log import duration
from .recipe import Recipe
from .state import RunState, changes

HUB_OPTIONS = ("--model", "--datasets", "--data-name")
"""Options whose values may be identifiers of the Hub, "organisation/name", which look like paths."""


@dataclass(frozen=True)
class Provenance:
    """Where a model comes from, as far as the run cannot know.

    Attributes:
        start: what it started from, in words.
        data: the pictures, in words.
        command: how it was started; may hold paths, of which the card shows the last part.
        license: the weights' licence, an identifier of the Hub.
        datasets: identifiers of the Hub.
    """

    start: str
    data: str
    command: Sequence[str] = ()
    license: str | None = None
    datasets: tuple[str, ...] = ()


def training_card(
    provenance: Provenance, recipe: Recipe, state: RunState, place: str, results: Results | None = None
) -> str:
    """The text of README.md.

    Args:
        provenance: where the model comes from.
        recipe: how it is trained from here on.
        state: of the run.
        place: where it is trained, in words.
        results: what it scores.
    """
    patches = state.step * recipe.batch
    planned = max(recipe.steps, state.step)  # a run may have been made shorter than it is
    spent = f"{duration(state.seconds)} on {place}"
    average = " The weights are the average over the last steps." if recipe.ema else ""
    history = state.history or [{"data": provenance.data}]
    paragraphs = [
        "## Training",
        f"From {provenance.start}, on {history[0]['data']}.",
        f"{state.step:,} of {planned:,} steps of {recipe.batch} patches of {recipe.patch}×{recipe.patch} "
        f"({patches:,} patches) in {spent}. The field's papers train for a "
        f"million steps of 16 to 32 patches.{average}",
    ]
    later = [
        f"from step {entry['step']:,}: {'; '.join(changes(before, entry))}"
        for before, entry in pairwise(history)
    ]
    if later:
        paragraphs.append(f"Changed on the way: {'; '.join(later)}.")
    if provenance.command:
        words = map(shlex.quote, _public(provenance.command))
        paragraphs.append("```\n" + " ".join(words) + "\n```")
    settings = ", ".join(f"{key} {value}" for key, value in asdict(recipe).items() if key != "steps")
    paragraphs.append(f"Settings: {settings}.")
    if results is not None and results.scores:
        protocols = "; ".join(f"{name}: {text}" for name, text in results.protocols.items())
        paragraphs += ["## Figures", f"As measured, beside the paper's. Protocols: {protocols}."]
        paragraphs.append(render(results, "markdown").strip())
    return model_card(
        state.model.config,
        body="\n\n".join(paragraphs),
        license=provenance.license,
        datasets=provenance.datasets,
        trained=f"{state.step:,} steps in {spent}, from {provenance.start}",
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
