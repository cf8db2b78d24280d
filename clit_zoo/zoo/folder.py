"""A model on disk: a folder with config.json, model.safetensors and README.md.

Weights may come from a stranger, so a file is believed only after its size, its names, shapes and types have
been compared with what the configuration asks for; nothing is unpickled. Files are written whole or not at
all. Torch is imported only where tensors are.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..atomic import replacing
from ..errors import ClitZooError, WeightsError, WeightsNotFoundError
from .config import ModelConfig

if TYPE_CHECKING:
    from torch import Tensor

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "README.md"
# config.MAX_PARAMETERS in float32 is 0.8 GB.
MAX_WEIGHTS_BYTES = 2**30

HERE = "path/to/this/folder"
"""How a card calls a model that is in no repository yet; publishing puts the repository's name there."""

_DTYPES = ("F32", "F16", "BF16")


@dataclass(frozen=True)
class ModelFiles:
    """The files of one model. origin: where they are from, for people: "embedded", "folder …", "hub …@…"."""

    config_path: Path
    weights_path: Path
    origin: str


def files_in(folder: Path, origin: str) -> ModelFiles:
    """The files in `folder`. Raises WeightsNotFoundError naming the one that is missing or out of reach."""
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        try:
            there = stat.S_ISREG(os.stat(folder / name).st_mode)
        except PermissionError as error:
            raise WeightsNotFoundError(
                f"The folder {folder} may not be looked into; check its permissions."
            ) from error
        except OSError:
            there = False
        if not there:
            raise WeightsNotFoundError(
                f"The folder {folder} has no {name}; a model is a folder with {CONFIG_FILE} and "
                f"{WEIGHTS_FILE}.{_hint(folder)}"
            )
    return ModelFiles(folder / CONFIG_FILE, folder / WEIGHTS_FILE, origin)


def _hint(folder: Path) -> str:
    """What to give instead of a folder that is no model."""
    inside = [folder / name for name in ("model", "best")]  # of a training run
    if models := [str(path) for path in inside if os.path.isfile(path / CONFIG_FILE)]:
        return f" Did you mean {' or '.join(models)}?"
    if os.path.isfile(folder / "checkpoint.pt") and os.path.isfile(folder / "log.jsonl"):
        return f" It is a training run that has not ended; its command goes on and writes {inside[0]}."
    for checkpoint in sorted(folder.glob("*.pt*"))[:1]:
        return f" If {checkpoint.name} is a checkpoint: clit-zoo convert {checkpoint} -o FOLDER."
    return ""


def check_weights(path: str | Path, expected_shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Compares the header of a safetensors file with the tensors expected; no tensor is read.

    Raises WeightsError: damaged, too large, or tensors missing, unknown, of another shape or of another type
    than float32, float16 and bfloat16, all of which load.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise WeightsError(f"{path} is not a file.")
        if size > MAX_WEIGHTS_BYTES:
            raise WeightsError(f"{path} has {size:,} bytes; at most {MAX_WEIGHTS_BYTES:,} are read.")
        found: dict[str, tuple[str, tuple[int, ...]]] = {}
        with safe_open(str(path), framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118 (it is not a dict)
                tensor = file.get_slice(name)
                found[name] = (tensor.get_dtype(), tuple(tensor.get_shape()))
    except SafetensorError as error:
        raise WeightsError(
            f"{path} is damaged or no safetensors file ({error}). Download or convert it again."
        ) from error
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror or error}).") from error

    wrong = [
        f"{name}: shape {_shape(shape)}, expected {_shape(tuple(expected_shapes[name]))}"
        for name, (_, shape) in found.items()
        if name in expected_shapes and shape != tuple(expected_shapes[name])
    ]
    types = [f"{name}: {dtype}" for name, (dtype, _) in found.items() if dtype not in _DTYPES]
    complaints = [
        _listed("missing", [name for name in expected_shapes if name not in found]),
        _listed("unknown", [name for name in found if name not in expected_shapes]),
        _listed("misshaped", wrong),
        _listed(f"of a type other than {', '.join(_DTYPES)}", types),
    ]
    if any(complaints):
        raise WeightsError(
            f"{path} does not fit its configuration. {' '.join(filter(None, complaints))} Is the "
            f"{CONFIG_FILE} beside it the one it was trained with?"
        )


def read_weights(path: str | Path, expected_shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Reads the tensors of a safetensors file onto the CPU, in the type they are stored in.

    Exactly the tensors of `expected_shapes` (name -> shape) must be there, all of them finite; see
    `check_weights` for what else is refused. Raises WeightsError.
    """
    check_weights(path, expected_shapes)
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(str(path))
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} cannot be read ({error}).") from error
    bad = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if bad:
        raise WeightsError(f"{path} is damaged. {_listed('with values that are not finite', bad)}")
    return tensors


def write_model_folder(
    folder: str | Path,
    config: ModelConfig,
    state_dict: Mapping[str, Tensor],
    card_text: str,
    overwrite: bool = False,
) -> Path:
    """Writes config.json, model.safetensors and README.md into `folder` (made if need be) and returns it.

    Each file appears whole or not at all; config.json, which makes the folder a model, comes last. Raises
    WeightsError for tensors that could not be loaded again, ClitZooError if a model is there already and
    `overwrite` is not set, or if the folder cannot be written.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = {}
    for name, tensor in state_dict.items():
        if tensor.dtype not in (torch.float32, torch.float16, torch.bfloat16):
            raise WeightsError(f"{name} is {tensor.dtype}; weights are float32, float16 or bfloat16.")
        if not torch.isfinite(tensor).all():
            raise WeightsError(f"{name} holds values that are not finite; such a model is not saved.")
        # A copy of its own for each: safetensors refuses tensors that share memory.
        tensors[name] = tensor.detach().to("cpu", copy=True).contiguous()
    # Before the weights are written, which without the rest would only be in the way of another attempt.
    card, settings = _encoded(card_text, "the card"), _encoded(config.to_json(), "the configuration")

    folder = Path(folder)
    names = (CONFIG_FILE, WEIGHTS_FILE, CARD_FILE)
    new = False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        there = [name for name in names if (folder / name).exists()]
        if there and not overwrite:
            raise ClitZooError(
                f"{folder} already holds {', '.join(there)}; choose another folder or ask to overwrite."
            )
        new = not there
        with replacing(folder / WEIGHTS_FILE) as part:
            save_file(tensors, part, metadata={"format": "pt"})
        for name, content in ((CARD_FILE, card), (CONFIG_FILE, settings)):
            with replacing(folder / name) as part:
                part.write_bytes(content)
    except BaseException as error:
        for name in names if new else ():  # half a model would refuse the next attempt
            with contextlib.suppress(OSError):
                (folder / name).unlink()
        if not isinstance(error, (OSError, SafetensorError)):  # Ctrl-C, say
            raise
        reason = getattr(error, "strerror", None) or error
        raise ClitZooError(f"{folder} cannot be written ({reason}).") from error
    return folder


def model_card(
    config: ModelConfig,
    *,
    repo_id: str | None = None,
    summary: str = "",
    license: str | None = None,
    datasets: tuple[str, ...] = (),
    body: str = "",
) -> str:
    """The text of README.md: the Hub's front matter, how to use the model, its settings, `body`, its papers.

    repo_id: how the usage lines call the model (default: `HERE`, as its name may load another one).
    license: an identifier of the Hub, such as "apache-2.0"; None writes none. datasets: Hub identifiers.
    body: Markdown, e.g. data and figures.
    """
    encoder, decoder = config.encoder["name"], config.decoder["name"]
    tags = ["super-resolution", "image-super-resolution", "arbitrary-scale", "pytorch", encoder, decoder]
    front = ["library_name: clit_zoo", "pipeline_tag: image-to-image", "tags:", *(f"- {tag}" for tag in tags)]
    if license:
        front.insert(0, f"license: {_yaml_word(license)}")
    if datasets:
        front += ["datasets:", *(f"- {_yaml_word(name)}" for name in datasets)]
    called = repo_id or HERE
    parts = [
        "---\n" + "\n".join(front) + "\n---",
        f"# {config.name}",
        summary,
        "Enlarges a picture by any factor, with the Python library clit_zoo.",
        f'```python\nimport clit_zoo\n\nmodel = clit_zoo.from_pretrained("{called}")\n'
        'model.upscale("photo.jpg", scale=3.7).save("large.png")\n```',
        f"```\nclit-zoo upscale photo.jpg -o large.png -s 3.7 -m {called}\n```",
        body.strip(),
        "## Settings",
        _settings_table(config),
        "## Papers",
        "\n".join(f"- {paper}" for paper in config.papers),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _settings_table(config: ModelConfig) -> str:
    rows = ["| part | setting | value |", "|---|---|---|"]
    for part, settings in (("encoder", config.encoder), ("decoder", config.decoder)):
        rows += [f"| {part} | {key} | {value} |" for key, value in settings.items()]
    return "\n".join([*rows, f"| model | parameters | {config.parameters:,} |"])


def _yaml_word(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/-]*", text):
        raise ClitZooError(
            f"{text!r} is no identifier of a licence or data set; letters, digits, '.', '_', '/', '-'."
        )
    return text


def _encoded(text: str, what: str) -> bytes:
    if not isinstance(text, str):
        raise ClitZooError(f"{what} is of type {type(text).__name__}; pass text.")
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ClitZooError(
            f"{what} cannot be written as UTF-8 (a lone surrogate at character {error.start}); take it out."
        ) from error


def _listed(what: str, names: list[str]) -> str:
    if not names:
        return ""
    # A hostile header may hold long names, and many.
    shown = "; ".join(name[:120] for name in names[:4])
    more = f"; and {len(names) - 4} more" if len(names) > 4 else ""
    return f"{len(names)} tensor{'s' * (len(names) > 1)} {what} ({shown}{more})."


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "scalar"
