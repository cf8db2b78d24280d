"""What a run saves: everything that is needed to go on, and its history, for the model card."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import ClitZooError, ConfigError
from ..model import SuperResolver
from .checkpoint import load_checkpoint, save_checkpoint
from .optim import OPTIMIZERS, Average, Optimizer
from .recipe import Recipe

Entry = dict[str, Any]
"""One entry per change: {"step": first step, "start": text, "data": text, "recipe": dict}."""

REMEDIES = "Lower --lr, clip gradients (--clip 1) or warm up (--warmup 500)"


@dataclass
class RunState:
    """What changes while a run goes on. Everything random comes from the seed and the step.

    Attributes:
        model: the one that is trained.
        average: of its weights, which is what models are written from.
        optimizer: of its trained parameters.
        step: steps done.
        seconds: spent on them, over all starts.
        losses: of the steps since the last row of the log.
        best: figures of the best model so far: "score", "step" and what was measured; empty without one.
        history: what was done, from which step on.
    """

    model: SuperResolver
    average: Average
    optimizer: Optimizer
    step: int = 0
    seconds: float = 0.0
    losses: list[Tensor] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=dict)
    history: list[Entry] = field(default_factory=list)

    @classmethod
    def at_start(cls, model: SuperResolver, recipe: Recipe) -> "RunState":
        """That of a run which has done nothing yet; ``model`` is on its device, with its parts frozen."""
        return cls(model, Average(model, recipe.ema), OPTIMIZERS[recipe.optimizer](model, recipe.lr))

    def save(self, path: Path) -> None:
        """Write it whole or not at all.

        Raises:
            ClitZooError: it is not worth keeping, see ``check``.
            OSError: it cannot be written.
        """
        self.check()
        saved = {
            "config": self.model.config.to_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "best": self.best,
            "history": self.history,
            "losses": [float(loss) for loss in self.losses],
            "model": self.model.state_dict(),
            "average": self.average.shadow,
            "optimizer": self.optimizer.state_dict(),
        }
        save_checkpoint(path, saved)

    def load(self, path: Path, entry: Entry) -> list[str]:
        """Take over what ``save`` wrote.

        Args:
            path: the checkpoint of a run with the same model, start, optimizer and frozen parts.
            entry: what is to be done from here on.

        Returns:
            How that differs from what was done before, in words.

        Raises:
            ConfigError: it is another model's or started from something else, or the optimizer or the frozen
                parts differ.
            ClitZooError: it is damaged.
        """
        saved, folder = load_checkpoint(path), path.parent
        config, before, average = saved["config"], saved["history"][-1], saved["average"]
        changed, optimizer = changes(before, entry), before["recipe"]["optimizer"]
        own = self.model.config.to_dict() | {"name": config["name"]}
        same = {
            f"model ({config['name']})": config == own,
            f"start ({before['start']}, not {entry['start']})": before["start"] == entry["start"],
            f"optimizer ({optimizer})": optimizer == entry["recipe"]["optimizer"],
            f"set of frozen parts ({'; '.join(changed)})": set(average) == set(self.average.shadow),
        }
        if others := [what for what, alike in same.items() if not alike]:
            raise ConfigError(f"{folder} holds a run with another {others[0]}: take another folder")
        self.model.load_state_dict(saved["model"])
        for name, value in average.items():
            self.average.shadow[name].copy_(value)
        self.optimizer.load_state_dict(saved["optimizer"])
        self.losses = [torch.tensor(loss) for loss in saved["losses"]]
        self.step, self.seconds = saved["step"], saved["seconds"]
        self.best, self.history = saved["best"], saved["history"]
        return changed

    def mean_loss(self) -> float:
        """The mean of ``losses``, which then begin anew.

        Raises:
            ClitZooError: one, or a weight, is not finite.
        """
        self.check()
        losses, self.losses = self.losses, []
        return sum(map(float, losses)) / len(losses)

    def check(self) -> None:
        """Refuse a state that is not worth keeping.

        A gradient that overflows leaves a finite loss and spoilt weights; the next loss tells too late.

        Raises:
            ClitZooError: a loss or a trained weight is not finite.
        """
        trained = [torch.isfinite(p.detach()).all() for p in self.model.parameters() if p.requires_grad]
        if not all(math.isfinite(loss) for loss in self.losses) or not all(trained):
            raise ClitZooError(
                f"the loss or a weight is not a number any more by step {self.step}; the last checkpoint is "
                f"from before. {REMEDIES}"
            )


def changes(before: Entry, after: Entry) -> list[str]:
    """In words, how what is done differs between two entries of a history."""
    data = [] if before["data"] == after["data"] else [f"on {after['data']}"]
    settings = [
        f"{key} {before['recipe'].get(key)} → {value}"
        for key, value in after["recipe"].items()
        if before["recipe"].get(key) != value
    ]
    return data + settings
