"""What is compared: a model or bicubic, as a function from a small picture to a large one."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from .. import __version__
from ..errors import is_out_of_memory
from ..model import SuperResolver
from .resize import imresize


@dataclass(frozen=True)
class Method:
    """Something that enlarges pictures.

    Attributes:
        name: what tables call it.
        run: uint8 ``(h, w, 3)`` and the output's ``(H, W)`` to ``(H, W, 3)``, uint8 or float from 0 to 1.
        identity: what a resume file knows it by: it must change whenever the output might. A function of it
            is called when first needed, as hashing a model takes a while. Without one nothing is resumed.
    """

    name: str
    run: Callable[[np.ndarray, tuple[int, int]], np.ndarray]
    identity: str | Callable[[], str] = ""

    def __call__(self, image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        return self.run(image, size)

    @cached_property
    def key(self) -> str:
        """The identity, computed once."""
        return self.identity if isinstance(self.identity, str) else self.identity()


bicubic = Method("bicubic", lambda image, size: imresize(image, size=size), "bicubic")


def model_method(model: SuperResolver, name: str | None = None) -> Method:
    """A model as a method, on the device it is on; named after it, and after a precision below float32."""
    if name is None:
        dtype = str(model.dtype).removeprefix("torch.")
        name = model.config.name + ("" if dtype == "float32" else f" in {dtype}")

    def run(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        planes = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        try:
            with torch.inference_mode():
                output = model(planes[None].to(model.device, torch.float32) / 255, size)
            return output[0].permute(1, 2, 0).float().clamp(0, 1).cpu().numpy()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise MemoryError(f"{model.device} has too little memory for {size[1]}×{size[0]}") from error

    return Method(name, run, lambda: model_key(model))


def model_key(model: SuperResolver) -> str:
    """A hash of all that a model's output depends on: weights, settings, how and where it computes."""
    how = (__version__, model.config, model.dtype, model.device.type, model.backend)
    digest = hashlib.sha256(repr(how).encode())
    for tensor in model.state_dict().values():
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def as_method(what: Any) -> Method:
    """A method as it is, "bicubic", a model, or a plain function."""
    if isinstance(what, Method):
        return what
    if what == "bicubic":
        return bicubic
    if isinstance(what, SuperResolver):
        return model_method(what)
    return Method(getattr(what, "__name__", type(what).__name__), what)
