"""What is measured: on a CPU and on a GPU. Targets come first: time may run out."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from measure import Case, Promise, Row, measure
from model_cases import check_model, decoder_inputs, model_case, model_inputs, run_decoder, run_model
from orders import PER_PIXEL, order_rows
from stage_cases import stage_case
from training_case import training_case

Size = tuple[int, int]
Job = tuple[str, Callable[[torch.device], list[Row]]]
"""What is measured, in words, and how."""

PAPER, LIGHT = "edsr-lit", "edsr-light-lit"
MODELS = (PAPER, "edsr-clit", "rdn-clit", LIGHT)
SCALES = (4, 2, 3.7, 12, 30)
INPUTS = ((256, 256), (540, 960))
OPS = ("decode_stage", "coordinate_decode", "local_attention")
THREE = ("reference", "hoisted", "triton")
COMPILED = ("reference", "compiled reference", "hoisted", "compiled hoisted", "triton")
LIMITS = {
    "reference": 1 << 21, "compiled reference": 1 << 21, "hoisted": 1 << 23, "compiled hoisted": 1 << 23,
    "triton": 1 << 28,
}  # fmt: skip
"""Queries that a backend is timed on at most; the rows say which part that is. The published order takes the
same time for every 30,000 queries, the hoisted one for every row of feature pixels."""

STAGE_PROMISES = (
    Promise("triton", "share_of_peak", 0.35, "at least 35 % of the matmul peak"),
    Promise("triton", "speed_up", 30, "at least 30x"),
)
MODEL_PROMISES = {
    "edsr-clit": (
        Promise("triton", "median_s", 0.041, "at most 41 ms", at_least=False),
        Promise("triton", "peak_bytes", 4e9, "at most 4 GB", at_least=False),
    ),
    "rdn-clit": (Promise("triton", "median_s", 0.120, "at most 120 ms", at_least=False),),
}
TRAINING_PROMISES = (
    Promise("triton", "speed_up", 5, "at least 5x"),
    Promise("triton", "memory_ratio", 4, "at most 1/4 of the memory"),
)
BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32


def times(size: Size, scale: float) -> Size:
    """The output's size."""
    return round(size[0] * scale), round(size[1] * scale)


def gpu_jobs(memory: float, *, tiny: bool = False) -> Iterator[Job]:
    """Everything on a GPU with so many bytes; ``tiny``: every kind of case on a few pixels."""
    small, wide = ((3, 4), (2, 5)) if tiny else INPUTS
    scales: Sequence[float] = (4, 2.3) if tiny else SCALES
    paper, models = (LIGHT, ("edsr-light-clit",)) if tiny else (PAPER, MODELS)
    batch, side = (2, 4) if tiny else (32, 48)
    seconds = 0.0 if tiny else 0.7

    def made(case: Case) -> Job:
        return job(replace(case, promises=()) if tiny else case)

    def op(name: str, size: Size, scale: float, dtype: torch.dtype, **more: Any) -> Job:
        promises = STAGE_PROMISES if (name, size, scale, dtype) == (OPS[0], wide, 4, BF16) else ()
        case = stage_case(
            name, paper, size, times(size, scale), dtype, more.pop("backends", THREE), LIMITS, promises,
            seconds, memory=memory, **more,
        )  # fmt: skip
        return made(case)

    def model(name: str, size: Size, scale: float, **more: Any) -> Job:
        promises = MODEL_PROMISES.get(name, ()) if (size, scale) == (wide, 4) else ()
        backends = more.pop("backends", THREE)
        case = model_case(name, size, times(size, scale), BF16, backends, LIMITS, promises, seconds, **more)
        return made(case)

    for name in OPS:
        yield op(name, wide, 4, BF16)
    for name in models:
        yield model(name, wide, 4)
    for kind in ("raster", "points"):
        yield made(training_case(paper, batch, side, kind, BF16, THREE, TRAINING_PROMISES, seconds))
    for dtype in (BF16, FP16, FP32):
        for name in OPS:
            yield op(name, small, 4, dtype)
    for size in (small, wide):
        for scale in scales:
            for name in models:
                if (size, scale) != (wide, 4):
                    yield model(name, size, scale)
    for scale in scales[1:]:
        for name in OPS:
            yield op(name, small, scale, BF16)
    yield from order_jobs("triton", BF16, (paper, LIGHT), (small, small), seconds)
    # last, since compiling takes minutes
    yield op(OPS[0], small, 4, BF16, backends=COMPILED, label="compiled")
    yield model(models[0], small, 4, backends=(*COMPILED, "compiled triton"), label="compiled")


def order_jobs(
    backend: str, dtype: torch.dtype, models: Sequence[str], sizes: Sequence[Size], seconds: float
) -> Iterator[Job]:
    """Both orders of the decoder's first layer around the point where the rule switches."""
    for model, size in dict(zip(models, sizes, strict=True)).items():
        for op in ("coordinate_decode", "decode_stage"):
            for n in PER_PIXEL:
                make = partial(order_rows, backend, op, model, size, n, dtype=dtype, seconds=seconds)
                yield f"{op} {model} {n}/pixel", make


def job(case: Case) -> Job:
    """A case to be measured."""
    return case.name, partial(measure, case)


BOTH = ("reference", "hoisted")


def _speed_up(limit: float) -> tuple[Promise, ...]:
    return (Promise("hoisted", "speed_up", limit, f"at least {limit:g}x"),)


def cpu_jobs() -> Iterator[Job]:
    """Everything on a CPU but memory."""
    for name in ("local_attention", "coordinate_decode"):
        case = stage_case(name, PAPER, (16, 16), (64, 64), FP32, BOTH, {}, seconds=10)
        yield job(replace(case, name=f"{name} 16x16 x4"))
    yield job(Case(
        "decoder 48x48 x4", BOTH, partial(decoder_inputs, name=PAPER, size=(48, 48), output=(192, 192)),
        run_decoder, promises=_speed_up(8), seconds=8,
    ))  # fmt: skip
    yield job(Case(
        "decoder 24x24 x12, two stages", BOTH,
        partial(decoder_inputs, name="edsr-clit", size=(24, 24), output=(288, 288)), run_decoder,
        promises=_speed_up(5), seconds=8,
    ))  # fmt: skip
    yield job(Case(
        "edsr-light-lit 256x256 x4", BOTH,
        partial(model_inputs, name=LIGHT, size=(256, 256), output=(1024, 1024)), run_model,
        check=check_model, skipped={"reference": "it takes a minute; the decoder's cases compare"},
        promises=(Promise("hoisted", "median_s", 3, "at most 3 s", at_least=False),),
    ))  # fmt: skip
    yield from order_jobs("hoisted", FP32, (PAPER, LIGHT), ((24, 24), (64, 64)), 2.0)
