"""A checkpoint of a training script, as a stranger may have made it: nothing is run, little is believed."""

import io
import math
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from ..errors import WeightsError, is_out_of_memory
from ..zoo.config import ModelConfig, fields
from ..zoo.schema import require, show
from ..zoo.skeleton import misfit, shapes

MAX_CHECKPOINT_BYTES = 4 * 2**30
"""Weights in float32 at ``skeleton.MAX_PARAMETERS``, and Adam's two moments of them, make 2.4 GB."""


def read(path: Path) -> dict[str, Any]:
    """The dict that a training script has saved.

    Raises:
        WeightsError: the file is too large or damaged, or holds more than plain values.
        ConfigError: it holds something else than a dict.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        try:
            if _unpacked_bytes(file) > MAX_CHECKPOINT_BYTES:
                raise MemoryError  # before it is had
            # weights_only: an unpickler that makes tensors, containers and numbers, and calls nothing else.
            checkpoint = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # a made-up archive or pickle can fail in any way
            raise WeightsError(f"{path} {_reason(error)}.") from error
    require(isinstance(checkpoint, dict), f"the content of {path}", checkpoint, "a training script's dict")
    return checkpoint


def _unpacked_bytes(file: IO[bytes]) -> float:
    """What a file may stand for; of compressed records, which torch does not write, 6 MB can be 6 GB."""
    size: float = file.seek(0, io.SEEK_END)
    file.seek(0)
    if file.read(4) == b"PK\x03\x04":  # how torch tells zip files from its older format
        records = zipfile.ZipFile(file).infolist()
        stored = all(record.compress_type == zipfile.ZIP_STORED for record in records)
        size = size if stored and sum(record.file_size for record in records) <= size else math.inf
    file.seek(0)
    return size


def _reason(error: Exception) -> str:
    message = str(error).strip()
    if is_out_of_memory(error):
        return (
            "takes too much memory: of records that are not compressed 4 GiB are read; save it again with "
            "torch.save, or convert it where there is more memory"
        )
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
    require(isinstance(name, str) and name in known, f"{where}.name", name, f"one of {', '.join(known)}")
    return name, arguments(given["args"], f"{where}.args", known[name])


def arguments(given: Any, where: str, defaults: dict[str, Any]) -> dict[str, Any]:
    """``given``, plain values for some of ``defaults``, completed by those."""
    given = fields(given, where, (), defaults)
    for key, value in given.items():
        numbers = isinstance(value, list | tuple) and all(isinstance(item, int) for item in value)
        plain = numbers or isinstance(value, bool | int | float | str | dict | None)
        require(plain, f"{where}.{key}", value, "a plain value")
    return {**defaults, **given}


def only(args: dict[str, Any], where: str, **wanted: Any) -> None:
    """Raise ConfigError unless the arguments have the values wanted, which are all that this library has."""
    for key, value in wanted.items():
        require(args[key] == value, f"{where}.{key}", args[key], f"{show(value)} in this library")


def tensors(given: Any, config: ModelConfig, unused: re.Pattern[str]) -> dict[str, Tensor]:
    """The tensors under this library's names, exactly those that a model of ``config`` has.

    Args:
        given: their names, which lack our "decoder.", to tensors.
        config: the model's settings.
        unused: names of tensors that may be there and are left out.

    Raises:
        ConfigError: it is no dict.
        WeightsError: a tensor is missing, unknown, or not of the shape and a type that the model has.
    """
    require(isinstance(given, Mapping), "model.sd", given, "a dict of tensors")
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
