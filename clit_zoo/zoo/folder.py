"""A model on disk: a folder with config.json, model.safetensors and README.md.

Weights may come from a stranger, so a file is believed only after its size, its names, shapes and types have
been compared with what the configuration asks for; nothing is unpickled. Files are written whole or not at
all.
"""

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..atomic import replacing
from ..errors import ClitZooError, WeightsError, WeightsNotFoundError
from .card import CARD_FILE
from .config import ModelConfig
from .skeleton import listed, misfit, parameters

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"

MAX_WEIGHTS_BYTES = 2**30
"""``skeleton.MAX_PARAMETERS`` in float32 are 0.8 GB."""

HERE = "path/to/this/folder"
"""How a card calls a model that is in no repository yet; publishing puts the repository's name there."""

_TYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class ModelFiles:
    """The files of one model, and where they are from, for people: "embedded", "folder …", "hub …@…"."""

    config_path: Path
    weights_path: Path
    origin: str


def files_in(folder: Path, origin: str) -> ModelFiles:
    """The files in ``folder``.

    Raises:
        WeightsNotFoundError: one is missing; the message names it.
        PermissionError: the folder may not be looked into.
    """
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
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


def read_weights(path: str | Path, expected: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU, in the type they are stored in.

    Args:
        path: the file.
        expected: name -> shape of each tensor that must be there; no other may. Their types may be float32,
            float16 and bfloat16.

    Raises:
        WeightsError: it is damaged, other tensors are in it, or values that are not finite.
        OSError: it cannot be read.
    """
    Path(path).open("rb").close()  # safetensors says "no such file" of one that may not be read
    try:
        with safe_open(str(path), framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            found = {
                name: (_TYPES.get(s.get_dtype(), s.get_dtype()), tuple(s.get_shape()))
                for name, s in slices.items()
            }
            if words := misfit(found, expected):
                raise WeightsError(
                    f"{path} does not fit its configuration. {words} Is the {CONFIG_FILE} beside it the one "
                    "it was trained with?"
                )
            tensors = {name: file.get_tensor(name) for name in expected}
    except SafetensorError as error:
        raise WeightsError(
            f"{path} is damaged or no safetensors file ({error}). Download or convert it again."
        ) from error
    bad = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if bad:
        raise WeightsError(f"{path} is damaged. {listed('with values that are not finite', bad)}")
    return tensors


def write_model_folder(
    folder: str | Path,
    config: ModelConfig,
    state_dict: Mapping[str, Tensor],
    card_text: str,
    overwrite: bool = False,
) -> Path:
    """Write config.json, model.safetensors and README.md, each whole or not at all.

    config.json, which makes the folder a model, comes last.

    Args:
        folder: made if need be.
        config: the settings.
        state_dict: the tensors.
        card_text: the text of README.md.
        overwrite: replace a model that is there already.

    Returns:
        The folder.

    Raises:
        WeightsError: a tensor could not be loaded again: of another type, or with values that are not finite.
        ClitZooError: a model is there already.
        OSError: the folder cannot be written.
    """
    kinds = {name: (str(t.dtype).removeprefix("torch."), tuple(t.shape)) for name, t in state_dict.items()}
    infinite = [name for name, tensor in state_dict.items() if not torch.isfinite(tensor).all()]
    words = misfit(kinds, {name: shape for name, (_, shape) in kinds.items()})
    if words or infinite:
        words += listed("with values that are not finite", infinite)
        raise WeightsError(f"{config.name} is not saved: it has {words}")
    # A copy of its own for each: safetensors refuses tensors that share memory.
    tensors = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in state_dict.items()}
    contents = {  # all made before anything is written
        WEIGHTS_FILE: save(tensors, metadata={"format": "pt"}),
        # a file name that is no UTF-8 may have reached the card: it is escaped
        CARD_FILE: card_text.encode("utf-8", "backslashreplace"),
        CONFIG_FILE: config.to_json().encode(),
    }
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    there = [name for name in contents if (folder / name).exists()]
    if there and not overwrite:
        raise ClitZooError(
            f"{folder} already holds {', '.join(there)}; choose another folder or ask to overwrite."
        )
    try:
        for name, content in contents.items():
            with replacing(folder / name) as part:
                part.write_bytes(content)
    except BaseException:
        for name in contents if not there else ():  # half a model would refuse the next attempt
            with contextlib.suppress(OSError):
                (folder / name).unlink()
        raise
    return folder


def model_card(
    config: ModelConfig,
    *,
    repo_id: str | None = None,
    summary: str = "",
    license: str | None = None,
    datasets: tuple[str, ...] = (),
    trained: str | None = None,
    body: str = "",
) -> str:
    """The text of README.md: the Hub's front matter, how to use the model, its settings, its papers.

    Args:
        config: the settings.
        repo_id: how the usage lines call the model; ``HERE`` where left out, as its name may mean another.
        summary: a sentence below the title.
        license: an identifier of the Hub, such as "apache-2.0"; None writes none.
        datasets: identifiers of the Hub.
        trained: for how many steps and hours, in words; what ``clit-zoo list`` shows.
        body: Markdown, e.g. data and figures.
    """
    encoder, decoder = config.encoder["name"], config.decoder["name"]
    tags = ["super-resolution", "image-super-resolution", "arbitrary-scale", "pytorch", encoder, decoder]
    front = ["library_name: clit_zoo", "pipeline_tag: image-to-image", "tags:", *(f"- {tag}" for tag in tags)]
    if license:
        front.insert(0, f"license: {license}")
    if datasets:
        front += ["datasets:", *(f"- {name}" for name in datasets)]
    if trained:
        front.append(f"trained: {json.dumps(trained, ensure_ascii=False)}")  # a string of YAML, too
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
    return "\n".join([*rows, f"| model | parameters | {parameters(config):,} |"])
