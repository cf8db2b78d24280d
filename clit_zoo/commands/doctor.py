"""``clit-zoo doctor``: is everything there that an enlargement needs?"""

import copy
import importlib.metadata
import json
import os
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click
import torch
from huggingface_hub import constants
from torch import Tensor

from clit_kernels import BACKENDS
from clit_kernels.backends import in_a_line

from .. import __version__
from ..decoders import DECODERS, build_decoder
from ..decoders.base import Decoder
from ..errors import ClitZooError
from ..geometry import Coords, Pixels, Raster
from ..zoo import hub, registry
from .threads import free_cores, usable_cores

EXACT, EXACT_MPS = 1e-5, 1e-4
"""Share of the range that float32 may be off by. How exact the sines of Apple's GPUs are is not known."""

SIZE = (5, 6)
"""Of the feature maps: odd and even, and smaller than a window and a tile."""

CHANNELS = 64

PACKAGES = (
    "torch", "triton", "timm", "safetensors", "huggingface_hub", "numpy", "pillow", "tifffile", "imagecodecs",
    "accelerate",
)  # fmt: skip
OPTIONAL = {"triton", "imagecodecs", "accelerate"}


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def command(as_json: bool) -> int:
    """Check versions, devices, decoders, threads, the cache and the weights that ship with the library.

    The exit code is 1 if something an enlargement needs is missing or broken.
    """
    problems: list[str] = []
    report = {
        "versions": _versions(problems),
        "devices": _devices(),
        "decoders": _decoders(problems),
        "threads": _threads(),
        "cache": _cache(problems),
        "embedded_weights": _embedded(problems),
        "problems": problems,
    }
    if as_json:
        click.echo(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        for title, facts in report.items():
            _section(title.replace("_", " "), facts)
        if not problems:
            click.echo("No problems found.")
    return int(bool(problems))


def _versions(problems: list[str]) -> dict[str, str]:
    versions = {"clit_zoo": __version__, "python": platform.python_version(), "system": platform.platform()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
            if package not in OPTIONAL:
                problems.append(f"{package} is not installed: pip install {package}.")
    return versions


def _devices() -> dict[str, str]:
    devices = {"cpu": torch.backends.cpu.get_cpu_capability()}
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        devices[f"cuda:{index}"] = (
            f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, "
            f"compute capability {properties.major}.{properties.minor}"
        )
    if torch.backends.mps.is_available():
        devices["mps"] = "Apple GPU"
    return devices


def _decoders(problems: list[str]) -> dict[str, dict[str, str]]:
    """For each device and decoder: what "auto" takes, and how exact each backend is or why it is not there.

    Those that are compute a small picture with the paper's settings, forward and backward, and are compared
    with the formula in float64: a few seconds.
    """
    kinds = {"cpu": [torch.float32]}
    if torch.cuda.is_available():
        kinds["cuda"] = [torch.float32, torch.float16, torch.bfloat16]
    if torch.backends.mps.is_available():
        kinds["mps"] = [torch.float32]
    answers: dict[str, dict[str, str]] = {kind: {} for kind in kinds}
    for name in DECODERS:
        torch.manual_seed(0)
        decoder = build_decoder(name, CHANNELS)
        for kind, dtypes in kinds.items():
            like = torch.zeros(1, device=kind)
            reasons = {backend: decoder.why_not(backend, like) for backend in BACKENDS if backend != "auto"}
            served = [backend for backend, reason in reasons.items() if reason is None]
            answers[kind][f"{name} auto"] = f"takes {served[0]}"
            for backend, reason in reasons.items():
                if reason is None and backend != "reference":  # that one is the formula
                    reason = "; ".join(
                        _exactness(name, decoder, backend, served[-1], kind, dtype, problems)
                        for dtype in dtypes
                    )
                answers[kind][f"{name} {backend}"] = reason or "available: the formula, slow"
    return answers


def _exactness(
    name: str,
    decoder: Decoder,
    backend: str,
    plain: str,
    kind: str,
    dtype: torch.dtype,
    problems: list[str],
) -> str:
    """What a backend is off by there, in words.

    float32 may be off by 1e-5 of the range, lower precision by twice what the formula (backend ``plain``) is.
    """
    word, remedy = str(dtype).removeprefix("torch."), "please report it, and take --backend torch until then."
    try:
        exact = results(decoder, plain, "cpu", dtype, torch.float64)
        found = _shares(results(decoder, backend, kind, dtype, dtype), exact)
        limits = [EXACT_MPS if kind == "mps" else EXACT] * len(found)
        if dtype != torch.float32:
            limits = [2 * share for share in _shares(results(decoder, plain, kind, dtype, dtype), exact)]
    except Exception as error:  # whatever a driver or a compiler may raise
        problems.append(f"{name}: backend {backend} fails on {kind} in {word} ({in_a_line(error)}): {remedy}")
        return f"{word} FAILS"
    off = f"off by {found[0]:.0e} of the range, gradients by {max(found[1:]):.0e}"
    if all(share <= limit for share, limit in zip(found, limits)):  # NaN is not
        return f"{word} right, {off}"
    allowed = ", ".join(f"{limit:.0e}" for limit in limits)
    problems.append(
        f"{name}: backend {backend} is wrong on {kind} in {word}, {off} (allowed {allowed}): {remedy}"
    )
    return f"{word} WRONG, {off}"


def results(
    decoder: Decoder, backend: str, device: str, rounded: torch.dtype, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Colours everywhere and at random positions; gradients there, of the features and of the parameters.

    Args:
        decoder: of maps of ``CHANNELS``.
        backend: who computes.
        device: where.
        rounded: what weights and features are rounded to, before they are computed with in ``dtype``.
        dtype: ``rounded``, or float64 for the truth.

    Returns:
        Three lists of numbers, in float64 on the CPU.
    """
    mine: Any = copy.deepcopy(decoder)
    mine = mine.to(rounded).to(device, dtype)
    mine.backend = backend
    draw = torch.Generator().manual_seed(1)
    h, w = SIZE
    features = torch.randn(1, CHANNELS, h, w, generator=draw).to(rounded).to(device, dtype).requires_grad_()
    image = torch.zeros(1, 3, h, w, device=device, dtype=torch.promote_types(dtype, torch.float32))
    cell = torch.full((1, 2), 0.12, device=device)
    around = torch.rand(1, 2, h, w, 2, generator=draw).sub(0.5).to(device)
    anywhere = torch.rand(1, 40, 2, generator=draw).mul(2).sub(1).to(device)
    prepared = mine.prepare(features, image)
    with torch.no_grad():
        everywhere = mine.decode(prepared, Pixels.whole((16, 19)))
    some = [mine.decode(prepared, Raster(around, cell)), mine.decode(prepared, Coords(anywhere, cell))]
    leaves = [features, *mine.parameters()]
    gradients = torch.autograd.grad(sum(out.sum() for out in some), leaves)

    def joined(tensors: Iterable[Tensor]) -> Tensor:
        return torch.cat([tensor.detach().cpu().double().flatten() for tensor in tensors])

    return joined([everywhere, *some]), joined(gradients[:1]), joined(gradients[1:])


def _shares(found: Sequence[Tensor], exact: Sequence[Tensor]) -> list[float]:
    """The largest difference of each as a share of its largest true entry."""
    return [float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, exact)]


def _threads() -> dict[str, Any]:
    return {
        "used by torch": torch.get_num_threads(),
        "cores this process may use": usable_cores(),
        "of these idle now": free_cores(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "not set"),
    }


def _cache(problems: list[str]) -> dict[str, Any]:
    folder = Path(constants.HF_HUB_CACHE)
    nearest = next(place for place in (folder, *folder.parents) if os.path.exists(place))
    writable = os.access(nearest, os.W_OK)
    if not writable:
        problems.append(f"the cache folder {folder} cannot be written: set HF_HOME to another folder.")
    return {
        "folder": str(folder),
        "exists": os.path.isdir(folder),
        "writable": writable,
        "offline": bool(constants.HF_HUB_OFFLINE),
        "endpoint": constants.ENDPOINT,
    }


def _embedded(problems: list[str]) -> dict[str, str]:
    """Each embedded model is loaded for real: configuration, names, shapes and bytes."""
    answers = {}
    for name, entry in registry.REGISTRY.items():
        if entry.folder is None:
            continue
        try:
            hub.load(name)
            answers[name] = f"readable, in {entry.folder}"
        except (ClitZooError, OSError) as error:
            answers[name] = str(error)
            problems.append(f"the embedded weights of {name} cannot be read: {error}")
    if not answers:
        problems.append(
            "no weights came with this installation: install clit-zoo again, from a full clone or wheel."
        )
    return answers


def _section(title: str, facts: Any) -> None:
    if isinstance(facts, list):
        facts = {f"{number}": fact for number, fact in enumerate(facts, 1)}
    if not facts:
        if title != "problems":
            click.echo(f"{title}\n  none\n")
        return
    lines = [
        (f"{key} {inner}", value) if isinstance(group, dict) else (key, group)
        for key, group in facts.items()
        for inner, value in (group.items() if isinstance(group, dict) else [("", None)])
    ]
    width = max(len(key) for key, _ in lines)
    click.echo(title)
    for key, value in lines:
        shown = {True: "yes", False: "no"}.get(value, value) if isinstance(value, bool) else value
        click.echo(f"  {key.ljust(width)}  {shown}")
    click.echo()
