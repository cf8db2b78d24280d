"""Optimizers, learning-rate schedules and the average of the weights."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import Adam, Muon


class Optimizer:
    """Adam, the papers' optimizer; or torch's Muon for matrices and convolution kernels, Adam for the rest.

    Muon takes matrices only and is given copies: a convolution kernel (out, in, kh, kw) as
    (out, in * kh * kw), whatever its order in memory. ``match_rms_adamw`` scales its steps so that Adam's
    learning rates carry over. Frozen parameters (without ``requires_grad``) and those without a gradient are
    left alone.
    """

    def __init__(self, model: nn.Module, lr: float, *, muon: bool):
        trained = [p for p in model.parameters() if p.requires_grad]
        # layers from or to colours and coordinates have no spectrum to speak of
        self.sources = [p for p in trained if muon and p.dim() >= 2 and min(p.shape[:2]) > 3]
        self.matrices = [nn.Parameter(p.detach().flatten(1).clone()) for p in self.sources]
        chosen = {id(p) for p in self.sources}
        rest = [p for p in trained if id(p) not in chosen]
        self.parts: dict[str, torch.optim.Optimizer] = {"adam": Adam(rest, lr=lr)}
        if self.sources:
            self.parts["muon"] = Muon(self.matrices, lr=lr, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Update all parameters from their gradients, at a learning rate."""
        pairs = list(zip(self.sources, self.matrices, strict=True))
        for source, matrix in pairs:
            matrix.copy_(source.flatten(1))
            matrix.grad = None if source.grad is None else source.grad.flatten(1)
        for part in self.parts.values():
            for group in part.param_groups:
                group["lr"] = lr
            part.step()
        for source, matrix in pairs:
            source.copy_(matrix.view_as(source))

    def state_dict(self) -> dict[str, Any]:
        """Everything that is needed to go on."""
        return {name: part.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore ``state_dict``'s result."""
        for name, part in self.parts.items():
            part.load_state_dict(state[name])


OPTIMIZERS: dict[str, Callable[[nn.Module, float], Optimizer]] = {
    "adam": partial(Optimizer, muon=False),
    "muon": partial(Optimizer, muon=True),
}


def cosine(step: int, steps: int, warmup: int) -> float:
    """Linear warm-up, then half a cosine to zero."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def halving(step: int, steps: int, warmup: int) -> float:
    """The paper's schedule: halved after each fifth of the run, after a linear warm-up (it has none)."""
    return min(1.0, (step + 1) / max(1, warmup)) * 0.5 ** min(4, 5 * step // steps)


def trapezoid(step: int, steps: int, warmup: int) -> float:
    """Linear warm-up, level, then linear to zero over the last two fifths.

    Up to its fall it does not depend on ``steps``, so a run can be made longer or shorter on the way.
    """
    fall = round(0.4 * steps)
    return min(1.0, (step + 1) / max(1, warmup), (steps - step) / max(1, fall))


SCHEDULES: dict[str, Callable[[int, int, int], float]] = {
    "cosine": cosine,
    "halving": halving,
    "trapezoid": trapezoid,
}
"""The share of the top learning rate at (step, steps, warmup)."""


class Average:
    """Exponential moving average of a model's trained parameters.

    The decay rises with the step, so that the start is forgotten early.

    Attributes:
        shadow: the average, by parameter name.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        trained = ((name, p) for name, p in model.named_parameters() if p.requires_grad)
        self.shadow = {name: p.detach().clone() for name, p in trained}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move towards the model's parameters after ``step``."""
        weight = 1 - min(self.decay, (step + 1) / (step + 10))
        current = [p.detach() for p in self._trained(model)]
        torch._foreach_lerp_(list(self.shadow.values()), current, weight)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """The model with the averaged weights, for as long as the context lasts."""
        trained = [p.detach() for p in self._trained(model)]
        kept = [p.clone() for p in trained]
        with torch.no_grad():
            torch._foreach_copy_(trained, list(self.shadow.values()))
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(trained, kept)

    def _trained(self, model: nn.Module) -> list[nn.Parameter]:
        parameters = dict(model.named_parameters())
        return [parameters[name] for name in self.shadow]
