"""What is evaluated: a model or bicubic, as a function from a small picture to a large one."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .. import __version__
from ..errors import is_out_of_memory
from .resize import imresize


class Runner:
    """``run(image, size)``: uint8 ``(h, w, 3)`` to ``(H, W, 3)``, uint8 or float in [0, 1].

    Args:
        name: what tables call it.
        fingerprint: changes whenever the output might: finished images are looked up by it. "" where that is
            unknown; a function is called when it is first needed, as hashing a large model takes long.
        run: the function.
    """

    def __init__(
        self,
        name: str,
        fingerprint: str | Callable[[], str],
        run: Callable[[np.ndarray, tuple[int, int]], np.ndarray],
    ):
        self.name, self.run, self._fingerprint = name, run, fingerprint

    @cached_property
    def fingerprint(self) -> str:
        return self._fingerprint if isinstance(self._fingerprint, str) else self._fingerprint()

    def __call__(self, image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        return self.run(image, size)


bicubic = Runner("bicubic", "bicubic/matlab", lambda image, size: imresize(image, size=size))


def model_runner(model: Any, name: str | None = None) -> Runner:
    """A ``SuperResolver`` as a runner, on the device it is on."""
    import torch

    device = next(model.parameters()).device

    def run(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        planes = np.ascontiguousarray(image.transpose(2, 0, 1))
        try:
            tensor = torch.from_numpy(planes)[None].to(device, torch.float32) / 255
            output = model.upscale(tensor, size=size)
            return output[0].permute(1, 2, 0).float().cpu().numpy()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise MemoryError(f"{device} has too little memory for {size[1]}×{size[0]}") from error

    return Runner(name or _name_of(model), lambda: model_fingerprint(model), run)


def model_fingerprint(model: Any) -> str:
    """A hash of the weights, the configuration, the device, the precision and this library's version."""
    import torch

    tensors = model.state_dict()
    where = {str(p.device.type) for p in model.parameters()}
    how = [str(getattr(model, key, None)) for key in ("dtype", "backend")]
    digest = hashlib.sha256(json.dumps([__version__, _config_of(model), sorted(where), how]).encode())
    for key in sorted(tensors):
        tensor = tensors[key].detach().cpu().contiguous()
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _config_of(model: Any) -> Any:
    config = getattr(model, "config", None)
    if is_dataclass(config) and not isinstance(config, type):
        config = asdict(config)
    return json.loads(json.dumps(config, sort_keys=True, default=str))


def _name_of(model: Any) -> str:
    """The model's name, with the precision where that is not the papers' float32."""
    name = str(getattr(getattr(model, "config", None), "name", None) or type(model).__name__)
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    return name if dtype == "float32" else f"{name} in {dtype}"


def as_runner(what: Any) -> Runner:
    """A runner as it is, "bicubic", a model (anything with ``upscale``), or a plain function."""
    if isinstance(what, Runner):
        return what
    if what == "bicubic":
        return bicubic
    if hasattr(what, "upscale"):
        return model_runner(what)
    if callable(what):
        return Runner(getattr(what, "__name__", type(what).__name__), "", what)
    raise TypeError(f"Expected a model, a function run(image, size) or 'bicubic', got {type(what).__name__}.")
