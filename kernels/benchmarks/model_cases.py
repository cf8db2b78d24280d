"""Whole models, and decoders alone: pictures in, enlarged pictures out. Weights are random."""

import copy
from collections.abc import Mapping
from functools import partial
from typing import Any

import counts
import torch
from measure import Case, Check, Promise
from torch import Tensor

from clit_zoo import geometry
from clit_zoo.model import SuperResolver
from clit_zoo.zoo import registry

Size = tuple[int, int]

SMALL = (8, 7)
"""Picture on which every backend's result is checked: in float64, x30 takes the formula 3 GB at a time."""


def picture(h: int, w: int, device: torch.device) -> Tensor:
    """(1, 3, h, w) in [0, 1]: noise at several scales, as photographs have detail at several."""
    generator = torch.Generator().manual_seed(0)
    layers = [torch.rand(1, 3, max(2, h // s), max(2, w // s), generator=generator) for s in (1, 4, 16)]
    scaled = [torch.nn.functional.interpolate(x, (h, w), mode="bicubic") for x in layers]
    return torch.stack(scaled).mean(0).clamp(0, 1).to(device)


def load(name: str, device: torch.device, dtype: torch.dtype = torch.float32) -> SuperResolver:
    """A registered model with random weights."""
    torch.manual_seed(0)
    return SuperResolver(registry.get(name).config).eval().requires_grad_(False).to(device, dtype)


def decoder_inputs(
    device: torch.device, name: str, size: Size, output: Size, dtype: torch.dtype = torch.float32
) -> dict[str, Any]:
    """A model's decoder and its encoder's features.

    The image that the decoder adds to its residual is gray (0): it would hide the residual's error.
    """
    model = load(name, device, dtype)
    with torch.no_grad():
        x, feature = model.features(picture(*size, device))
    return {"decoder": model.decoder, "feature": feature, "image": torch.zeros_like(x), "size": output}


@torch.no_grad()
def run_decoder(x: dict[str, Any], backend: str) -> Tensor:
    """A decoder's forward, its convolutions included."""
    return x["decoder"](x["feature"], x["image"], x["size"], backend=backend)


def model_inputs(
    device: torch.device, name: str, size: Size, output: Size, dtype: torch.dtype = torch.float32
) -> dict[str, Any]:
    """A whole model and a picture, and its decoder on a small one for the check."""
    scales = [b / a for a, b in zip(size, output, strict=True)]
    shrunk = (round(SMALL[0] * scales[0]), round(SMALL[1] * scales[1]))
    small = decoder_inputs(device, name, SMALL, shrunk, dtype)
    image = picture(*size, device)
    return {"model": load(name, device, dtype), "image": image, "size": output, "small": small}


def part(x: dict[str, Any], share: float) -> tuple[dict[str, Any], float]:
    """The upper rows of the picture, at the same scale; how large that part of the output is."""
    (rows, cols), height = x["size"], x["image"].shape[2]
    kept = max(1, min(height, round(height * share)))
    smaller = max(kept, round(kept * rows / height))
    return x | {"image": x["image"][:, :, :kept], "size": (smaller, cols)}, smaller / rows


def run_model(x: dict[str, Any], backend: str) -> Tensor:
    """A whole enlargement, without reading and writing files."""
    model, kind = x["model"], backend.removeprefix("compiled ")
    model.backend = kind
    if kind == backend:
        return model.enlarge(x["image"], x["size"])
    if backend not in x:
        x[backend] = torch.compile(model)
    with torch.no_grad():
        return x[backend](x["image"], x["size"]).float().clamp_(0, 1)


def check_model(x: dict[str, Any], backend: str) -> Check:
    """The model's decoder on the small picture, against the published order of work in float64."""
    small = x["small"]
    if "truth" not in small:
        exact = copy.copy(small)
        exact["decoder"] = copy.deepcopy(small["decoder"]).double()
        exact["feature"], exact["image"] = small["feature"].double(), small["image"].double()
        small["truth"], small["plain"] = run_decoder(exact, "reference"), run_decoder(small, "reference")
    kind = backend.removeprefix("compiled ")
    decoder = small["decoder"] if kind == backend else torch.compile(small["decoder"])
    result = run_decoder(small | {"decoder": decoder}, kind)
    return Check([result], [small["plain"]], [small["truth"]])


def model_case(
    name: str, size: Size, output: Size, dtype: torch.dtype, backends: tuple[str, ...],
    limits: Mapping[str, int], promises: tuple[Promise, ...] = (), seconds: float = 1.0,
    label: str = "",
) -> Case:  # fmt: skip
    """A whole model at one scale; ``limits``: queries of all stages that a backend is timed on at most."""
    stages = len(geometry.plan(*size, output, registry.get(name).config.decoder["stages"]))
    queries = stages * output[0] * output[1]
    return Case(
        f"{name} {size[1]}x{size[0]} to {output[1]}x{output[0]} {label}".strip(),
        backends,
        partial(model_inputs, name=name, size=size, output=output, dtype=dtype),
        run_model,
        check=check_model,
        exact=1e-5 if dtype == torch.float32 else None,
        promises=promises,
        seconds=seconds,
        operations=counts.model(name, size, output),
        dtype=dtype,
        shares={b: min(1.0, limit / queries) for b, limit in limits.items()},
        part=part,
        facts={
            "model": name,
            "scale": round(output[1] / size[1], 3),
            "dtype": str(dtype).removeprefix("torch."),
        },
    )
