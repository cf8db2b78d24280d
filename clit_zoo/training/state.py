"""A run's state: collected to be saved, checked before that, and taken over from a file."""

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from ..errors import ClitZooError, ConfigError
from .history import check_start
from .optim import LOGICAL, ORDER

if TYPE_CHECKING:
    from .loop import Run

BEST = "best"
REMEDIES = "Lower --lr, clip gradients (--clip 1) or warm up (--warmup 500)"


def collect(run: "Run") -> dict[str, Any]:
    """Everything that is needed to go on."""
    return {
        "recipe": asdict(run.recipe),
        "config": run.model.config.to_dict(),
        "step": run.step,
        "seconds": run.seconds,
        "best": run.best,
        "history": run.history,
        "losses": [float(loss) for loss in run.losses],
        "ramp_from": run.ramp_from,
        "model": run.model.state_dict(),
        "average": run.average.shadow,
        "optimizer": run.optimizer.state_dict(),
    }


def take_over(run: "Run", state: dict[str, Any]) -> None:
    """Make the state that ``collect`` returned the run's own.

    Raises:
        ConfigError: it is another model's, or the recipe's optimizer or frozen parts differ.
    """
    mine = run.model.config.to_dict()
    if {**state["config"], "name": ""} != {**mine, "name": ""}:
        raise ConfigError(
            f"{run.folder} holds a run of another model ({state['config']['name']}): take another folder"
        )
    recipe, average = state["recipe"], state["average"]
    if recipe["optimizer"] != run.recipe.optimizer or set(average) != set(run.average.shadow):
        raise ConfigError(
            f"{run.folder} holds a run with another optimizer or other frozen parts "
            f"({'; '.join(run.recipe.changes(recipe))}): take the same or another folder"
        )
    if _reordered(recipe, run) and state["optimizer"]["muon"].get(ORDER) != LOGICAL:
        raise ConfigError(
            f"{run.folder} was saved by a version that could not change --channels-last on the way: go on "
            "with it as it was"
        )
    history = state.get("history", [])  # older files have none
    check_start(run, history)
    run.history = list(history)
    run.changed = run.recipe.changes(recipe)
    run.model.load_state_dict(state["model"])
    for name, value in average.items():
        run.average.shadow[name].copy_(value)
    run.optimizer.load_state_dict(state["optimizer"])
    run.losses = [torch.tensor(loss) for loss in state["losses"]]
    run.step, run.seconds = state["step"], state["seconds"]
    run.best = _best_of(run, state["best"])
    run.ramp_from = state["ramp_from"]


def check_losses(run: "Run") -> None:
    """Raises ClitZooError if a loss is not finite: such a state is not worth keeping."""
    if not all(math.isfinite(loss) for loss in run.losses):
        raise ClitZooError(
            f"the loss is not a number any more by step {run.step}; the last checkpoint is from before. "
            f"{REMEDIES}"
        )


def check_weights(run: "Run") -> None:
    """Raises ClitZooError if a trained weight is not finite.

    A gradient that overflows leaves a finite loss and spoilt weights behind; the next loss tells, too late.
    """
    trained = [torch.isfinite(p.detach()).all() for p in run.model.parameters() if p.requires_grad]
    if trained and not bool(torch.stack(trained).all()):
        raise ClitZooError(
            f"the weights are not finite any more after step {run.step}; the last checkpoint is from before. "
            f"{REMEDIES}"
        )


def _reordered(recipe: dict[str, Any], run: "Run") -> bool:
    """Whether Muon's momentum lies in another order in this run's memory than in that of ``recipe``'s."""
    return run.recipe.optimizer == "muon" and recipe.get("channels_last", False) != run.recipe.channels_last


def _best_of(run: "Run", best: dict[str, Any]) -> dict[str, Any]:
    """``best``, where there is such a model and its score can be compared with what this run measures."""
    if not (run.folder / BEST).exists():  # a leg brings the figures without the model
        return {}
    if run.validation is not None and best.get("of", run.validation.what) != run.validation.what:
        return {}
    return best
