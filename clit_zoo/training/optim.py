"""Optimizers, learning-rate schedules and the average of the weights."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, Muon


class Optimizer:
    """Adam, the papers' optimizer; or torch's Muon for matrices and convolution kernels, Adam for the rest.

    Muon takes matrices only; a convolution kernel (out, in, kh, kw) is given to it as a view
    (out, in * kh * kw). ``match_rms_adamw`` scales its steps so that Adam's learning rates carry over. Frozen
    parameters (without ``requires_grad``) and those without a gradient are left alone.

    The columns of the views, and so of the momentum, are in the order in which memory holds the kernel. In
    ``state_dict`` they are in the order (in, kh, kw), so that a run may go on in another memory format.
    """

    def __init__(self, model: nn.Module, lr: float, *, muon: bool):
        trained = [p for p in model.parameters() if p.requires_grad]
        # layers from or to colours and coordinates have no spectrum to speak of
        self.sources = [p for p in trained if muon and p.dim() >= 2 and min(p.shape[:2]) > 3]
        chosen = {id(p) for p in self.sources}
        self.views = [nn.Parameter(_matrix(p.detach(), p)) for p in self.sources]
        for source, view in zip(self.sources, self.views, strict=True):
            assert source.data_ptr() == view.data_ptr(), "kernels must be stored densely"
        self.parts: dict[str, torch.optim.Optimizer] = {
            "adam": Adam([p for p in trained if id(p) not in chosen], lr=lr)
        }
        if self.sources:
            self.parts["muon"] = Muon(self.views, lr=lr, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")

    def step(self, lr: float) -> None:
        """Update all parameters from their gradients, at a learning rate."""
        for source, view in zip(self.sources, self.views, strict=True):
            view.grad = None if source.grad is None else _matrix(source.grad, source)
        for part in self.parts.values():
            for group in part.param_groups:
                group["lr"] = lr
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """Everything that is needed to go on."""
        state = {name: part.state_dict() for name, part in self.parts.items()}
        return self._reordered(state, _columns_in_order)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore ``state_dict``'s result."""
        state = self._reordered(state, _columns_as_stored)
        for name, part in self.parts.items():
            part.load_state_dict(state[name])

    def _reordered(self, state: dict[str, Any], order: Callable[[Tensor, Tensor], Tensor]) -> dict[str, Any]:
        """The state with Muon's tensors passed through ``order(momentum, parameter)``."""
        if not self.sources:
            return state
        momenta = {
            index: {key: order(value, self.sources[index]) for key, value in values.items()}
            for index, values in state["muon"]["state"].items()
        }
        return {**state, "muon": {**state["muon"], "state": momenta}}


OPTIMIZERS: dict[str, Callable[[nn.Module, float], Optimizer]] = {
    "adam": partial(Optimizer, muon=False),
    "muon": partial(Optimizer, muon=True),
}


def _matrix(x: Tensor, parameter: Tensor) -> Tensor:
    """``x`` as (out, rest), its columns in the order in which ``parameter`` stores them: a view of it."""
    if x.dim() == 4 and not parameter.is_contiguous():  # channels-last
        return x.permute(0, 2, 3, 1).flatten(1)
    return x.flatten(1)


def _columns_in_order(x: Tensor, parameter: Tensor) -> Tensor:
    """The inverse of ``_matrix``: columns in the order (in, kh, kw)."""
    if parameter.dim() == 4 and not parameter.is_contiguous():
        out, inner, height, width = parameter.shape
        return x.reshape(out, height, width, inner).permute(0, 3, 1, 2).flatten(1)
    return x


def _columns_as_stored(x: Tensor, parameter: Tensor) -> Tensor:
    """The inverse of ``_columns_in_order``."""
    return _matrix(x.reshape(parameter.shape), parameter).contiguous()


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
