"""What is timed: enlarging a picture, and a training step."""

from dataclasses import asdict, dataclass
from functools import cache, cached_property
from importlib import import_module
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import WeightsNotFoundError
from ..geometry import Pixels, Raster, Size, output_size
from ..model import SuperResolver
from ..pretrained import create_model, from_pretrained, pick_device, pick_dtype

LOW = (torch.float16, torch.bfloat16)

SMALL = (9, 8)
"""Picture on which results are checked: the formula in float64 takes gigabytes for large ones."""


@dataclass
class Case:
    """A model at work: ``parts`` names the methods to call in turn, and to time.

    Attributes:
        name: of the model, as ``from_pretrained`` takes it. One without published weights gets random ones.
        backend, device, dtype: likewise.
    """

    parts: ClassVar[tuple[str, ...]]
    name: str
    backend: str
    device: str
    dtype: str

    @cached_property
    def model(self) -> SuperResolver:
        """The model, ready to compute.

        Raises:
            ClitZooError: there is none, it cannot be had, or the backend cannot serve it there.
        """
        return self.load(self.precision).eval()

    def load(self, dtype: torch.dtype) -> SuperResolver:
        try:
            model = from_pretrained(self.name, device=self.device, dtype=dtype, backend=self.backend)
        except WeightsNotFoundError:
            torch.manual_seed(0)
            model = create_model(self.name, backend=self.backend).to(pick_device(self.device), dtype)
        model.check_backend()
        return model

    @property
    def precision(self) -> torch.dtype:
        """What the model computes in."""
        return pick_dtype(self.dtype, pick_device(self.device))

    def facts(self) -> dict[str, Any]:
        """What a row says of the case."""
        return asdict(self) | {"dtype": str(self.precision).removeprefix("torch.")}

    def outcome(self, model: SuperResolver) -> Tensor:
        """A small result by ``model``, to compare with the same by the formula in float64."""
        raise NotImplementedError


@dataclass
class Enlargement(Case):
    """Enlarging a picture.

    Attributes:
        size: (h, w) of the picture.
        scale: a number from 1.
    """

    parts: ClassVar[tuple[str, ...]] = ("encode", "decode")
    size: Size
    scale: float

    @cached_property
    def image(self) -> Tensor:
        return picture(self.size, self.model.device)

    @torch.inference_mode()
    def encode(self) -> None:
        self._encoded = self.model.encode(self.image)

    @torch.inference_mode()
    def decode(self) -> None:
        self.model.decode(self._encoded, Pixels.whole(output_size(*self.size, self.scale)))

    @torch.inference_mode()
    def outcome(self, model: SuperResolver) -> Tensor:
        return model(picture(SMALL, model.device), output_size(*SMALL, self.scale))


PEERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "SRVGGNetCompact": ("Compact.__arch.SRVGG", "SRVGGNetCompact", {"num_feat": 64, "num_conv": 32}),
    "SPAN": ("SPAN.__arch.span", "SPAN", {"num_in_ch": 3, "num_out_ch": 3, "feature_channels": 48}),
}
"""What people enlarge with by a whole factor: the module of spandrel, the class, and its settings."""


@dataclass
class Peer(Enlargement):
    """Enlarging a picture by one of ``PEERS``, with random weights, which cost as much as any."""

    parts: ClassVar[tuple[str, ...]] = ("enlarge",)

    @cached_property
    def model(self) -> SuperResolver:
        module, kind, settings = PEERS[self.name]
        torch.manual_seed(0)
        built = getattr(import_module(f"spandrel.architectures.{module}"), kind)(
            **settings, upscale=int(self.scale)
        )
        built.to(pick_device(self.device), self.precision, memory_format=torch.channels_last)
        built.device, built.dtype = pick_device(self.device), self.precision  # as a SuperResolver says them
        return cast(SuperResolver, built.eval())

    @torch.inference_mode()
    def enlarge(self) -> None:
        image = self.image.to(self.precision, memory_format=torch.channels_last)
        nn.Module.__call__(self.model, image)

    @torch.inference_mode()
    def outcome(self, model: SuperResolver) -> Tensor:
        at = next(model.parameters())
        out: Tensor = nn.Module.__call__(model, picture(SMALL, at.device).to(at.dtype))
        return out


@dataclass
class Step(Case):
    """One training step as ``clit_zoo.training`` does it: L1 at a random position near each pixel, and Adam.

    Weights are float32; the case's precision is autocast's.

    Attributes:
        batch, patch: so many patches of so many pixels a side.
    """

    parts = ("step",)
    batch: int
    patch: int

    @cached_property
    def model(self) -> SuperResolver:
        return self.load(torch.float32).train()

    @cached_property
    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.model.parameters())

    def step(self) -> None:
        self._backward(self.model, self.batch, self.patch)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def outcome(self, model: SuperResolver) -> Tensor:
        self._backward(model, 2, SMALL[0])
        gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        model.zero_grad(set_to_none=True)
        return torch.cat(gradients)

    def _backward(self, model: SuperResolver, batch: int, patch: int) -> None:
        """Predict, compare, differentiate."""
        image, where, target = patches(batch, patch, model.device)
        low = self.precision in LOW and model.dtype == torch.float32  # the check's float64 stays
        with torch.autocast(model.device.type, self.precision if low else None, enabled=low):
            found = model.decode(model.encode(image), where)
        F.l1_loss(found, target.to(found.dtype)).backward()


@cache
def patches(batch: int, patch: int, device: torch.device) -> tuple[Tensor, Raster, Tensor]:
    """Noise to train on at a scale of 3: images (B, 3, p, p), a position near each pixel, colours there."""
    generator = torch.Generator().manual_seed(0)
    shapes = (batch, 3, patch, patch), (batch, 1, patch, patch, 2), (batch, patch * patch, 3)
    image, offset, target = (torch.rand(shape, generator=generator).to(device) for shape in shapes)
    cell = torch.full((batch, 2), 2 / (3 * patch), device=device)
    return image, Raster(offset - 0.5, cell, ((patch, patch),)), target


def picture(size: Size, device: torch.device) -> Tensor:
    """(1, 3, h, w) in [0, 1]: noise at several scales, as photographs have detail at several."""
    generator = torch.Generator().manual_seed(0)
    layers = [torch.rand(1, 3, *(max(2, n // s) for n in size), generator=generator) for s in (1, 4, 16)]
    scaled = [F.interpolate(layer, size, mode="bicubic") for layer in layers]
    return torch.stack(scaled).mean(0).clamp(0, 1).to(device)
