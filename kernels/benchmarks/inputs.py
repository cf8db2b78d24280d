"""What is measured: the two ops, the paper-sized decoder, a whole light model. Weights are random."""

from functools import partial
from typing import Any

import torch
from bench import Case
from torch import Tensor

from clit_kernels import StageWeights, coordinate_decode, local_attention
from clit_kernels.coordinate_decode import coordinate_decode_reference
from clit_kernels.local_attention import local_attention_reference
from clit_zoo import geometry, registry
from clit_zoo.model import SuperResolver


def picture(h: int, w: int, device: torch.device) -> Tensor:
    """(1, 3, h, w) in [0, 1]: noise at several scales, as photographs have detail at several."""
    generator = torch.Generator().manual_seed(0)
    layers = [torch.rand(1, 3, max(2, h // s), max(2, w // s), generator=generator) for s in (1, 4, 16)]
    scaled = [torch.nn.functional.interpolate(x, (h, w), mode="bicubic") for x in layers]
    return torch.stack(scaled).mean(0).clamp(0, 1).to(device)


def load(name: str, device: torch.device) -> SuperResolver:
    """A registered model with random weights."""
    torch.manual_seed(0)
    return SuperResolver(registry.get(name).config).eval().to(device)


def op_inputs(device: torch.device, side: int = 16, scale: int = 4) -> dict[str, Any]:
    """Arguments of the two ops in the paper's size: 256 channels, 8 heads, 7 x 7 taps."""
    decoder: Any = load("edsr-lit", device).decoder
    generator = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(1, 256, side, side, generator=generator).to(device) for _ in range(3))
    size = (side * scale, side * scale)
    queries = geometry.grid((side, side), size, device)
    stage: StageWeights = decoder._stage(0)
    logits = torch.randn(1, queries.count, stage.heads, stage.area, generator=generator)
    cell = geometry.cell_size((side, side), size, 1, device)
    return {
        "attention": ((q, k, queries, stage.proj_weight, stage.proj_bias), {"heads": 8, "radius": 3}),
        "decode": (logits.softmax(-1).to(device), v, queries, stage.mlp_weights, stage.mlp_biases, cell),
    }


def run_attention(x: dict[str, Any], backend: str) -> Tensor:
    """local_attention."""
    args, settings = x["attention"]
    return local_attention(*args, **settings, backend=backend)


def exact_attention(x: dict[str, Any]) -> Tensor:
    """local_attention in float64: the reference's own float32 rounds arguments of 7,000 rad."""
    args, settings = x["attention"]
    return local_attention_reference(*args, **settings, upcast=torch.float64)


def run_decode(x: dict[str, Any], backend: str) -> Tensor:
    """coordinate_decode."""
    return coordinate_decode(*x["decode"], backend=backend)


def exact_decode(x: dict[str, Any]) -> Tensor:
    """coordinate_decode in float64."""
    return coordinate_decode_reference(*x["decode"], upcast=torch.float64)


def decoder_inputs(device: torch.device, name: str, side: int, scale: int) -> dict[str, Any]:
    """A model's decoder and its encoder's features.

    The image that the decoder adds to its residual is gray (0): it would hide the residual's error.
    """
    model = load(name, device)
    x = model._normalise(picture(side, side, device))
    size = (side * scale, side * scale)
    return {"decoder": model.decoder, "feature": model.encoder(x), "image": torch.zeros_like(x), "size": size}


def run_decoder(x: dict[str, Any], backend: str) -> Tensor:
    """A decoder's forward, its convolutions included."""
    return x["decoder"](x["feature"], x["image"], x["size"], backend=backend)


def model_inputs(device: torch.device, name: str, side: int, scale: int) -> dict[str, Any]:
    """A whole model and a picture, and its decoder on a small one for the gate."""
    return {
        "model": load(name, device),
        "image": picture(side, side, device),
        "size": (side * scale, side * scale),
        "small": decoder_inputs(device, name, 32, scale),
    }


def run_model(x: dict[str, Any], backend: str) -> Tensor:
    """A whole enlargement, without reading and writing files."""
    x["model"].backend = backend
    return x["model"].enlarge(x["image"], x["size"])


def check_model(x: dict[str, Any], backend: str) -> Tensor:
    """The model's decoder on the small picture."""
    return run_decoder(x["small"], backend)


BOTH = ("reference", "hoisted")

CPU_CASES = (
    Case("local_attention 16x16 x4", BOTH, op_inputs, run_attention, truth=exact_attention),
    Case("coordinate_decode 16x16 x4", BOTH, op_inputs, run_decode, truth=exact_decode),
    Case(
        "decoder 48x48 x4", BOTH, partial(decoder_inputs, name="edsr-lit", side=48, scale=4), run_decoder,
        wanted=8, seconds=8,
    ),
    Case(
        "decoder 24x24 x12, two stages", BOTH, partial(decoder_inputs, name="edsr-clit", side=24, scale=12),
        run_decoder, wanted=5, seconds=8,
    ),
    Case(
        "edsr-light-lit 256x256 x4", BOTH, partial(model_inputs, name="edsr-light-lit", side=256, scale=4),
        run_model, check=check_model, limit=3,
    ),
)  # fmt: skip
