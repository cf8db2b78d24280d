"""A run's state small enough to hand from machine to machine: files of at most 16 MiB, 64 MiB in all.

For machines that are one's own for minutes at a time (a spot instance, a free notebook) and keep no disk: a
leg of a run starts from one folder and ends with another. Kept are the trained weights in float16, their
average (in float16, or as an 8-bit difference where that does not fit), the optimizer's state in bfloat16 if
there is room, and the log. What a resumed run loses by it is rounding, 5e-4 of a weight at most; without the
optimizer's state its first 50 steps ramp the learning rate up.
"""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ..atomic import remove_stale, replacing
from ..errors import ClitZooError
from .log import LOG_FILE
from .loop import Run
from .optim import LOGICAL, ORDER

FILE_BYTES, TOTAL_BYTES = 16 << 20, 64 << 20
INDEX = "leg.json"
FORMAT = "clit_zoo leg/1"


def write_leg(
    run: Run, folder: str | Path, total_bytes: int = TOTAL_BYTES, file_bytes: int = FILE_BYTES
) -> list[str]:
    """Write the run's state to a folder and return what it holds, in words.

    The index comes last and names the other files by their content, so a folder cut short still holds the leg
    before.

    Raises:
        ClitZooError: the weights alone are too large, or the folder cannot be written.
    """
    folder = Path(folder)
    tensors, kept = _packed(run, total_bytes - (1 << 20))  # the rest is for the index and the log
    blob = save(tensors)
    cuts = [blob[i : i + file_bytes] for i in range(0, len(blob), file_bytes)]
    digest = hashlib.sha256(blob).hexdigest()
    names = [f"state-{digest[:12]}-{i}.bin" for i in range(len(cuts))]
    index = {
        "format": FORMAT, "files": names, "sha256": digest, "kept": kept,
        "recipe": asdict(run.recipe), "config": run.model.config.to_dict(),
        "step": run.step, "seconds": run.seconds, "best": run.best, "history": run.history,
        "losses": [float(x) for x in run.losses],
        "frozen": _frozen(run), ORDER: LOGICAL,
    }  # fmt: skip
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_stale(folder, "state-")
        for name, cut in zip(names, cuts, strict=True):
            _write(folder / name, cut)
        log = run.folder / LOG_FILE
        if log.exists():
            _write(folder / LOG_FILE, log.read_bytes()[-(1 << 19) :])
        _write(folder / INDEX, json.dumps(index).encode())
        for old in folder.glob("state-*.bin"):
            if old.name not in names:
                old.unlink()
    except OSError as error:
        raise ClitZooError(f"the leg {folder} cannot be written ({error.strerror or error})") from error
    return kept


def check_leg(run: Run, total_bytes: int = TOTAL_BYTES) -> None:
    """Raises ClitZooError if a leg of ``run`` would be too large, before any step is done."""
    _packed(run, total_bytes - (1 << 20))


def read_leg(run: Run, folder: str | Path) -> bool:
    """Go on from a leg, unless the run has gone further itself; returns whether it did.

    ``run`` must have been made as the leg's was: same model, optimizer and frozen parts. What a leg leaves
    out, frozen weights, must be those the run has.

    Raises:
        ClitZooError: there is no leg, it is damaged, or another run's; or the log cannot be written.
    """
    folder = Path(folder)
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        if index["format"] != FORMAT:
            raise ClitZooError(f"{folder} holds a leg of another version of this library")
        blob = b"".join((folder / name).read_bytes() for name in index["files"])
        if hashlib.sha256(blob).hexdigest() != index["sha256"]:
            raise ClitZooError(f"the leg {folder} is damaged: its files are not those it was written with")
        tensors = load(blob)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ClitZooError(f"{folder} holds no whole leg ({error})") from error
    if index["step"] <= run.step:
        return False
    trained = {name: p for name, p in run.model.named_parameters() if p.requires_grad}
    weights = _prefixed(tensors, "weight/")
    if set(weights) != set(trained):
        raise ClitZooError(
            f"the leg {folder} trained {len(weights)} tensors of {index['config'].get('name')}, this run "
            f"trains {len(trained)} of {run.model.config.name}: start it with the same --model, --stages and "
            "--freeze-… options"
        )
    if index.get("frozen") not in (None, _frozen(run)):
        raise ClitZooError(
            f"the leg {folder} was trained on other frozen weights than this run has: start it with the same "
            "--model and, for weights drawn at random, the same --seed"
        )
    state = run.state()
    state.update({key: index[key] for key in ("recipe", "config", "step", "seconds", "best", "losses")})
    state["history"] = index.get("history", [])
    state["model"] = {**state["model"], **{name: w.float() for name, w in weights.items()}}
    state["average"] = {name: _average_of(tensors, name, w.float()) for name, w in weights.items()}
    optimizer = _prefixed(tensors, "optimizer/")
    if optimizer:
        _fill(state["optimizer"], optimizer)
        if ORDER not in index and "muon" in state["optimizer"]:  # of a version that kept memory's order
            del state["optimizer"]["muon"][ORDER]
    else:
        state["ramp_from"] = index["step"]
    run.restore(state)
    if run.processes.main:  # all of them would write the same file
        try:
            if not (run.folder / LOG_FILE).exists() and (folder / LOG_FILE).exists():
                _write(run.folder / LOG_FILE, (folder / LOG_FILE).read_bytes())
        except OSError as error:
            reason = error.strerror or error
            raise ClitZooError(f"the leg's log cannot be copied to {run.folder} ({reason})") from error
    return True


def _frozen(run: Run) -> str:
    """A hash of the weights that are not trained, and so in no leg."""
    digest = hashlib.sha256()
    for name, p in sorted(run.model.named_parameters()):
        if not p.requires_grad:
            digest.update(name.encode())
            digest.update(p.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _packed(run: Run, limit: int) -> tuple[dict[str, Tensor], list[str]]:
    """What fits into ``limit`` bytes, the most useful first."""
    trained = {name: p.detach().cpu() for name, p in run.model.named_parameters() if p.requires_grad}
    packed = {f"weight/{name}": p.half().contiguous() for name, p in trained.items()}
    kept, size = ["weights in float16"], _size(packed)
    if size > limit:
        raise ClitZooError(
            f"the trained weights take {size / 2**20:.0f} MiB in float16, a leg {limit / 2**20:.0f}: allow "
            "more (--leg-size), or freeze a part (--freeze-encoder, --freeze-stages)"
        )
    average = {name: value.cpu() for name, value in run.average.shadow.items()}
    half = {f"average/{name}": value.half().contiguous() for name, value in average.items()}
    small: dict[str, Tensor] = {}
    for name, value in average.items():
        small |= _difference(name, value, packed[f"weight/{name}"].float())
    optimizer = _flat(run.optimizer.state_dict())
    for extra, words in (
        (half, "average in float16"),
        (small, "average as 8-bit difference"),
        (optimizer, "optimizer's state in bfloat16"),
    ):
        if extra is small and "average in float16" in kept:
            continue
        if size + _size(extra) <= limit:
            packed |= extra
            kept.append(words)
            size += _size(extra)
    return packed, kept


def _difference(name: str, average: Tensor, weight: Tensor) -> dict[str, Tensor]:
    """The average minus the weights in 8 bits, with a step for each output channel."""
    rows = (average - weight).reshape(average.shape[0], -1)
    step = rows.abs().amax(1, keepdim=True) / 127
    levels = (rows / step.clamp(min=1e-30)).round().to(torch.int8)
    return {f"difference/{name}": levels, f"step/{name}": step.contiguous()}


def _average_of(tensors: dict[str, Tensor], name: str, weight: Tensor) -> Tensor:
    if f"average/{name}" in tensors:
        return tensors[f"average/{name}"].float()
    if f"difference/{name}" in tensors:
        change = tensors[f"difference/{name}"].float() * tensors[f"step/{name}"]
        return weight + change.view(weight.shape)
    return weight.clone()


def _flat(state: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors of optimizers' states, floats in bfloat16 but for the step counters."""
    return {
        f"optimizer/{which}/{index}/{key}": (
            value.cpu().bfloat16() if value.dim() else value.cpu().clone()
        ).contiguous()
        for which, one in state.items()
        for index, values in one["state"].items()
        for key, value in values.items()
    }


def _fill(state: dict[str, Any], flat: dict[str, Tensor]) -> None:
    """Put ``_flat``'s tensors, without their prefix, into fresh optimizers' states."""
    for name, value in flat.items():
        which, index, key = name.split("/")
        state[which]["state"].setdefault(int(index), {})[key] = value.float()


def _prefixed(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _size(tensors: dict[str, Tensor]) -> int:
    # safetensors' header takes about 130 bytes more for each
    return sum(t.numel() * t.element_size() + 200 + len(name) for name, t in tensors.items())


def _write(path: Path, content: bytes) -> None:
    with replacing(path) as part:
        part.write_bytes(content)
