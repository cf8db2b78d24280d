"""One training step of a one-stage model, forward and backward; positions as training draws them."""

from functools import partial
from typing import Any

import counts
import torch
import torch.nn.functional as F
from measure import Case, Check, Promise
from model_cases import load
from stage_cases import noise, stage_weights
from torch import Tensor

from clit_kernels import Points, Queries, Raster, decode_stage
from clit_kernels.decode_stage import decode_stage_reference

SMALL = (2, 5, 4)
"""Images and map size of the check."""


def positions(kind: str, batch: int, h: int, w: int, device: torch.device) -> Tensor:
    """Offsets (B, 1, h, w, 2) from every feature pixel, or coordinates (B, h * w, 2) anywhere."""
    if kind == "raster":
        return noise((batch, 1, h, w, 2), device, torch.float32, 1, normal=False) - 0.5
    return noise((batch, h * w, 2), device, torch.float32, 1, normal=False) * 2 - 1


def prepare(
    device: torch.device, name: str, batch: int, side: int, kind: str, dtype: torch.dtype
) -> dict[str, Any]:
    """A model that learns, a batch of patches, and one stage for the check; ``dtype`` is autocast's."""
    return {
        "model": load(name, device).train().requires_grad_(True),
        "image": noise((batch, 3, side, side), device, torch.float32, 0, normal=False),
        "target": noise((batch, side * side, 3), device, torch.float32, 2, normal=False),
        "positions": positions(kind, batch, side, side, device),
        "cell": torch.full((batch, 2), 2 / (3 * side), device=device),
        "kind": kind,
        "dtype": dtype,
        "small": small_stage(device, name, kind, dtype),
    }


def run(x: dict[str, Any], backend: str) -> Tensor:
    """Predict, compare by L1, differentiate; the gradients are dropped."""
    model, image = x["model"], x["image"]
    model.backend = backend
    size = (image.shape[2], image.shape[3])
    lower = x["dtype"] != torch.float32
    with torch.autocast(image.device.type, x["dtype"] if lower else None, enabled=lower):
        if x["kind"] == "raster":
            out = model.query_raster(image, Raster(x["positions"]), x["cell"], [size])
        else:
            out = model.query(image, x["positions"], x["cell"], sizes=[size])
        loss = F.l1_loss(out.float(), x["target"])
    loss.backward()
    model.zero_grad(set_to_none=True)
    return loss.detach()


def small_stage(device: torch.device, name: str, kind: str, dtype: torch.dtype) -> dict[str, Any]:
    """One stage for the check: maps in ``dtype``, weights in float32."""
    batch, h, w = SMALL
    weights = stage_weights(name, device, torch.float32)
    channels = counts.Shape.of(load(name, torch.device("meta")).config).channels
    queries: Queries
    if kind == "raster":
        queries = Raster(positions(kind, batch, h, w, device))
    else:
        where = positions(kind, batch, h, w, device)
        index = ((where + 1) / 2 * torch.tensor((h, w), device=device)).long()
        queries = Points(index, noise((batch, h * w, 2), device, torch.float32, 3, normal=False) - 0.5)
    return {
        "maps": [noise((batch, channels, h, w), device, dtype, seed) for seed in (5, 6, 7)],
        "queries": queries,
        "weights": weights,
        "cell": torch.full((batch, 2), 0.5, device=device),
        "grad": noise((batch, h * w, 3), device, dtype, 8),
    }


def check(x: dict[str, Any], backend: str) -> Check:
    """One stage's residual and all its gradients."""
    plain = _gradients(x["small"], decode_stage_reference)
    truth = _gradients(x["small"], decode_stage_reference, torch.float64)
    result = _gradients(x["small"], partial(decode_stage, backend=backend))
    return Check(result, plain, truth)


def _gradients(small: dict[str, Any], function: Any, dtype: torch.dtype | None = None) -> list[Tensor]:
    def leaf(t: Tensor) -> Tensor:
        return t.detach().to(dtype or t.dtype).requires_grad_()

    w = small["weights"]
    maps = [leaf(t) for t in small["maps"]]
    weights = w._replace(
        proj_weight=leaf(w.proj_weight),
        mlp_weights=[leaf(t) for t in w.mlp_weights],
        mlp_biases=[leaf(t) for t in w.mlp_biases],
    )  # not proj_bias: it moves all logits of a head alike, and its gradient is zero
    cell = small["cell"].to(dtype or small["cell"].dtype)
    out = function(*maps, small["queries"], weights, cell)
    inputs = [*maps, weights.proj_weight, *weights.mlp_weights, *weights.mlp_biases]
    return [out.detach(), *torch.autograd.grad(out, inputs, small["grad"].to(out.dtype))]


def training_case(
    name: str, batch: int, side: int, kind: str, dtype: torch.dtype, backends: tuple[str, ...],
    promises: tuple[Promise, ...] = (), seconds: float = 2.0,
) -> Case:  # fmt: skip
    """One step on ``batch`` patches of ``side`` x ``side``, as many queries as feature pixels."""
    short = str(dtype).removeprefix("torch.")
    return Case(
        f"training step {name} {batch} x {side}x{side} {kind}",
        backends,
        partial(prepare, name=name, batch=batch, side=side, kind=kind, dtype=dtype),
        run,
        check=check,
        exact=1e-5 if dtype == torch.float32 else None,
        promises=promises,
        seconds=seconds,
        operations=counts.training_step(name, (side, side), batch),
        dtype=dtype,
        facts={
            "model": name,
            "batch": batch,
            "queries": kind,
            "dtype": short,
            "autocast": dtype != torch.float32,
        },
    )
