"""A checkpoint of a training script, as a stranger may have made it: nothing is run, little is believed."""

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError, WeightsError, is_out_of_memory
from ..zoo.config import ModelConfig, fields
from ..zoo.schema import show
from ..zoo.skeleton import misfit, shapes

MAX_CHECKPOINT_BYTES = 4 * 2**30
"""Weights in float32 at ``skeleton.MAX_PARAMETERS``, and Adam's two moments of them, make 2.4 GB."""


def read(path: Path) -> dict[str, Any]:
    """The dict that a training script has saved.

    Raises:
        WeightsError: the file cannot be read, is too large or damaged, or holds more than plain values.
    """
    try:
        size = path.stat().st_size
        if not path.is_file() or not size:
            said = "empty" if path.is_file() else "not a file"
            raise WeightsError(f"{path} is {said}; name a .pth checkpoint.")
        if size > MAX_CHECKPOINT_BYTES:
            raise WeightsError(f"{path} has {size:,} bytes; at most {MAX_CHECKPOINT_BYTES:,} are read.")
        if _inflates(path, size):
            raise WeightsError(
                f"{path} holds compressed records, which may be larger than any memory; PyTorch writes none. "
                "Unpack it and save it again with torch.save."
            )
        # weights_only: an unpickler that makes tensors, containers and numbers, and calls nothing else.
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror or error}).") from error
    except Exception as error:  # a made-up archive or pickle can fail in any way
        raise WeightsError(f"{path} {_reason(error)}.") from error
    if not isinstance(checkpoint, dict):
        raise WeightsError(f"{path} holds {show(checkpoint)} instead of the dict of a training script.")
    return checkpoint


def _inflates(path: Path, size: int) -> bool:
    """Whether the records of a zip file are larger than the file: 6 MB of them can stand for 6 GB."""
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":  # how torch tells zip files from its older format
            return False
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
    stored = all(record.compress_type == zipfile.ZIP_STORED for record in records)
    return not stored or sum(record.file_size for record in records) > size


def _reason(error: Exception) -> str:
    message = str(error).strip()
    if is_out_of_memory(error):
        return "does not fit into memory; convert it where there is more"
    if found := re.search(r"GLOBAL (\S{1,100})", message):
        return (
            "holds more than tensors and plain values, which could run code and is never loaded (it asks for "
            f"{found[1]})"
        )
    # torch goes on to advise loading it without this protection: a stranger's file must not get that far
    return "is no PyTorch checkpoint, or a damaged one; copy or download it again"


def spec(given: Any, where: str, known: Mapping[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Name and complete arguments of a {"name": …, "args": {…}}."""
    given = fields(given, where, ("name", "args"))
    name = given["name"]
    if not isinstance(name, str) or name not in known:
        raise ConfigError(f"{where}.name is {show(name)}; known: {', '.join(known)}.")
    return name, arguments(given["args"], f"{where}.args", known[name])


def arguments(given: Any, where: str, defaults: dict[str, Any]) -> dict[str, Any]:
    """``given``, plain values for some of ``defaults``, completed by those."""
    given = fields(given, where, (), defaults)
    for key, value in given.items():
        numbers = isinstance(value, list | tuple) and all(isinstance(item, int) for item in value)
        if not numbers and not isinstance(value, bool | int | float | str | dict | None):
            raise ConfigError(f"{where}.{key} is {show(value)}; it must be a plain value.")
    return {**defaults, **given}


def require(args: dict[str, Any], where: str, **wanted: Any) -> None:
    """Raise ConfigError unless the arguments have the values wanted."""
    for key, value in wanted.items():
        if args[key] != value:
            raise ConfigError(f"{where}.{key} is {show(args[key])}; this library only has {show(value)}.")


def tensors(given: Any, config: ModelConfig, unused: re.Pattern[str]) -> dict[str, Tensor]:
    """The tensors under this library's names, exactly those that a model of ``config`` has.

    Args:
        given: their names, which lack our "decoder.", to tensors.
        config: the model's settings.
        unused: names of tensors that may be there and are left out.

    Raises:
        WeightsError: a tensor is missing, unknown, or not of the shape and a type that the model has.
    """
    if not isinstance(given, Mapping):
        raise WeightsError(f"model.sd must be a dict of tensors, not {show(given)}.")
    found = {
        name if str(name).startswith("encoder.") else f"decoder.{name}": tensor
        for name, tensor in given.items()
        if not (isinstance(name, str) and unused.fullmatch(name))
    }
    kinds = {name: (_kind(tensor), getattr(tensor, "shape", ())) for name, tensor in found.items()}
    if words := misfit(kinds, shapes(config)):
        raise WeightsError(f"its tensors are not those of its arguments. {words}")
    return found


def _kind(tensor: Any) -> str:
    plain = isinstance(tensor, Tensor) and tensor.layout == torch.strided and tensor.device.type == "cpu"
    return str(tensor.dtype).removeprefix("torch.") if plain else "no plain tensor"
