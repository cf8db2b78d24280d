"""`clit-zoo doctor`: is everything there that an enlargement needs?"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import torch

PACKAGES = (
    "torch", "triton", "timm", "safetensors", "huggingface_hub", "numpy", "pillow", "tifffile", "imagecodecs",
    "accelerate",
)  # fmt: skip
OPTIONAL = {"triton", "imagecodecs", "accelerate"}


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def command(as_json: bool) -> int:
    """Check versions, devices, backends, threads, the cache and the weights that ship with the library.

    The exit code is 1 if something an enlargement needs is missing or broken.
    """
    problems: list[str] = []
    report = {
        "versions": _versions(problems),
        "devices": _devices(),
        "backends": _backends(problems),
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
    from .. import __version__

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
    import torch

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


def _backends(problems: list[str]) -> dict[str, dict[str, str]]:
    """For each kind of device: what "auto" takes, and of each backend how exact it is or why it is not there.

    Those that there are compute a stage of the paper's size, forward and backward, and are compared with
    the formulas in float64: a few seconds.
    """
    import torch

    from clit_kernels import BACKENDS
    from clit_kernels.backends import choose
    from clit_kernels.decode_stage import why_not

    kinds = {"cpu": [torch.float32]}
    if torch.cuda.is_available():
        kinds["cuda"] = [torch.float32, torch.float16, torch.bfloat16]
    if torch.backends.mps.is_available():
        kinds["mps"] = [torch.float32]
    answers = {}
    for kind, dtypes in kinds.items():
        values = torch.zeros(1, 64, 2, 2, device=kind)
        reasons = {backend: why_not(backend, values) for backend in BACKENDS if backend != "auto"}
        answers[kind] = {"auto": f"takes {choose('decode_stage', 'auto', reasons.__getitem__)}"}
        for backend, reason in reasons.items():
            if reason is None and backend != "reference":  # that one is the formula
                reason = "; ".join(_exactness(backend, kind, dtype, problems) for dtype in dtypes)
            answers[kind][backend] = reason or "available: the formula, slow"
    return answers


def _exactness(backend: str, kind: str, dtype: torch.dtype, problems: list[str]) -> str:
    """What a backend is off by there, in words."""
    from clit_kernels import self_check
    from clit_kernels.backends import in_a_line

    name = str(dtype).removeprefix("torch.")
    remedy = "please report it, and take --backend hoisted until then."
    try:
        found = self_check.check_backend(backend, kind, dtype)
    except Exception as error:  # whatever a driver or a compiler may raise
        problems.append(f"backend {backend} fails on {kind} in {name} ({in_a_line(error)}): {remedy}")
        return f"{name} FAILS"
    words = f"{name} {{}}, off by {found.output:.0e} of the range, gradients by {found.gradients:.0e}"
    if found.right:
        return words.format("right")
    problems.append(
        f"backend {backend} is wrong on {kind} in {name}, off by {found.output:.0e} of the range (allowed "
        f"{found.output_allowed:.0e}), gradients by {found.gradients:.0e} ({found.gradients_allowed:.0e}): "
        f"{remedy}"
    )
    return words.format("WRONG")


def _threads() -> dict[str, Any]:
    import torch

    from .threads import free_cores

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "used by torch": torch.get_num_threads(),
        "cores this process may use": usable,
        "of these idle now": free_cores(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "not set"),
    }


def _cache(problems: list[str]) -> dict[str, Any]:
    from huggingface_hub import constants

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
    from ..errors import ClitZooError
    from ..model import SuperResolver
    from ..zoo import hub, registry

    answers = {}
    for name, entry in registry.REGISTRY.items():
        if entry.folder is None:
            continue
        try:
            hub.load(name, SuperResolver)
            answers[name] = f"readable, in {entry.folder}"
        except ClitZooError as error:
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
