"""What a run was trained from, on what and how, in the order it happened: a model card must not forget it."""

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from .card import Training

if TYPE_CHECKING:
    from .loop import Run

Entry = dict[str, Any]
"""From which step on: "step", "start" and "data" in words, "recipe"."""


def check_start(run: "Run", history: list[Entry]) -> None:
    """Raises ConfigError where the run in the folder started from something else than this one is told to."""
    start = run.describe(run).start
    if history and history[0]["start"] != start:
        raise ConfigError(
            f"{run.folder} holds a run that started from {history[0]['start']}, and this one is to start "
            f"from {start}: take another folder for it"
        )


def enter(run: "Run") -> None:
    """Note what this run does from its step on, where that is new."""
    described = run.describe(run)
    entry = {"step": run.step, "start": described.start, "data": described.data, "recipe": asdict(run.recipe)}
    if not run.history or _changes(run.history[-1], entry):
        run.history.append(entry)


def told(run: "Run") -> Training:
    """The run's description, with its whole history."""
    described = run.describe(run)
    if not run.history:
        return described
    later = [
        f"from step {entry['step']:,}: {'; '.join(_changes(before, entry))}"
        for before, entry in zip(run.history, run.history[1:], strict=False)
    ]
    return replace(described, data=run.history[0]["data"], history=tuple(later))


def _changes(before: Entry, after: Entry) -> list[str]:
    data = [] if before["data"] == after["data"] else [f"on {after['data']}"]
    settings = [
        f"{key} {before['recipe'].get(key)} → {value}"
        for key, value in after["recipe"].items()
        if before["recipe"].get(key) != value
    ]
    return data + settings
