"""Optimizers and learning-rate schedules."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer


class MuonWithAdam:
    """torch's Muon for matrices and convolution kernels, Adam for everything else.

    Muon takes matrices only; a convolution kernel (out, in, kh, kw) is given to it as a view
    (out, in * kh * kw). ``match_rms_adamw`` scales its steps so that Adam's learning rates carry over.
    """

    def __init__(self, model: nn.Module, lr: float, muon_scale: float = 1.0):
        hidden = [p for n, p in model.named_parameters() if p.dim() >= 2 and min(p.shape[:2]) > 3]
        chosen = {id(p) for p in hidden}
        self.sources = hidden
        self.views = [nn.Parameter(p.detach().flatten(1)) for p in hidden]
        for source, view in zip(self.sources, self.views, strict=True):
            assert source.data_ptr() == view.data_ptr(), "kernels must be stored contiguously"
        self.muon = torch.optim.Muon(
            self.views, lr=lr * muon_scale, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"
        )
        self.adam = Adam([p for p in model.parameters() if id(p) not in chosen], lr=lr)
        self.muon_scale = muon_scale

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of the next step."""
        _set_lr(self.muon, lr * self.muon_scale)
        _set_lr(self.adam, lr)

    def step(self) -> None:
        """Update all parameters from their gradients."""
        for source, view in zip(self.sources, self.views, strict=True):
            view.grad = None if source.grad is None else source.grad.flatten(1)
        self.muon.step()
        self.adam.step()

    def state_dict(self) -> dict:
        """State of both optimizers."""
        return {"muon": self.muon.state_dict(), "adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        """Restore ``state_dict``'s result."""
        self.muon.load_state_dict(state["muon"])
        self.adam.load_state_dict(state["adam"])


class AdamOnly:
    """torch's Adam on all parameters: the paper's optimizer."""

    def __init__(self, model: nn.Module, lr: float):
        self.adam = Adam(model.parameters(), lr=lr)

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of the next step."""
        _set_lr(self.adam, lr)

    def step(self) -> None:
        """Update all parameters from their gradients."""
        self.adam.step()

    def state_dict(self) -> dict:
        """The optimizer's state."""
        return {"adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        """Restore ``state_dict``'s result."""
        self.adam.load_state_dict(state["adam"])


OPTIMIZERS: dict[str, Callable[[nn.Module, float], MuonWithAdam | AdamOnly]] = {
    "adam": AdamOnly,
    "muon": MuonWithAdam,
}


def _set_lr(optimizer: Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def cosine(step: int, steps: int, warmup: int) -> float:
    """Share of the top learning rate at ``step``: linear warm-up, then half a cosine to zero."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def halving(step: int, steps: int, warmup: int) -> float:
    """The paper's schedule: halved after each fifth of the run, no warm-up."""
    return 0.5 ** min(4, 5 * step // steps)


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


class Average:
    """Exponential moving average of a model's parameters.

    The decay rises with the step, so that the random start is forgotten early.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.shadow = {name: p.detach().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move towards the model's parameters after ``step``."""
        weight = 1 - min(self.decay, (step + 1) / (step + 10))
        shadows: list[Tensor] = []
        current: list[Tensor] = []
        for name, p in model.named_parameters():
            shadows.append(self.shadow[name])
            current.append(p.detach())
        torch._foreach_lerp_(shadows, current, weight)
