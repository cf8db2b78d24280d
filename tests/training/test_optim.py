"""Optimizers and the average of the weights."""

import pytest
import torch
from tiny_training import tiny_model
from torch import nn

from clit_zoo.training.optim import OPTIMIZERS, Average


def two_layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(4, 6, 3), nn.Conv2d(6, 8, 3))


def step(model: nn.Module, kind: str) -> None:
    optimizer = OPTIMIZERS[kind](model, 1e-2)
    torch.manual_seed(1)
    model(torch.randn(2, 4, 9, 9)).square().mean().backward()
    optimizer.step(1e-2)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_the_order_in_memory_changes_nothing(kind):
    plain, last = two_layers(), two_layers().to(memory_format=torch.channels_last)
    before = plain[0].weight.detach().clone()
    step(plain, kind)
    step(last, kind)
    assert last[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert not torch.equal(plain[0].weight, before)
    for a, b in zip(plain.parameters(), last.parameters(), strict=True):
        # Muon orthogonalises in bfloat16: another order of additions shows
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5 if kind == "adam" else 3e-4)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_what_is_frozen_stays(kind):
    model = two_layers()
    model[0].requires_grad_(False)
    before = [p.detach().clone() for p in model.parameters()]
    step(model, kind)
    changed = [not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)]
    assert changed == [False, False, True, True]
    assert set(Average(model, 0.9).shadow) == {"1.weight", "1.bias"}


def test_muon_makes_steps_of_one_size_in_all_directions():
    model = two_layers()
    before = model[1].weight.detach().clone()
    step(model, "muon")
    change = (model[1].weight.detach() - before).flatten(1) / 1e-2
    values = torch.linalg.svdvals(change) / (0.2 * max(change.shape) ** 0.5)
    assert float(values.min()) > 0.6 and float(values.max()) < 1.3


def test_average():
    model = two_layers()
    average = Average(model, 0.9)
    start = {k: v.clone() for k, v in average.shadow.items()}
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1.0)
    average.update(model, step=1000)
    for name, value in average.shadow.items():
        torch.testing.assert_close(value, start[name] + 0.1)
    current = [p.detach().clone() for p in model.parameters()]
    with average.applied(model):
        for (name, p), was in zip(model.named_parameters(), current, strict=True):
            assert torch.equal(p, average.shadow[name]) and not torch.equal(p, was)
    assert all(torch.equal(a, b) for a, b in zip(current, model.parameters(), strict=True))
    average.update(model, step=0)  # early on the start is forgotten faster than the decay says
    for (name, p), old in zip(model.named_parameters(), start.values(), strict=True):
        torch.testing.assert_close((average.shadow[name] - p).detach(), 0.09 * (old - p).detach())


def test_stages_without_gradients_are_left_alone():
    model = tiny_model(2)
    optimizer = OPTIMIZERS["muon"](model, 1e-2)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    image = torch.rand(1, 3, 16, 16)
    cell = torch.full((1, 2), 2 / 16)
    model.query(image, torch.zeros(1, 5, 2), cell, maps=[(16, 16)]).sum().backward()
    optimizer.step(1e-2)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert "decoder.imnets.0.layers.0.weight" in changed
    assert not any(".imnets.1." in name or "s.1." in name for name in changed)
