"""SuperResolver: an encoder and a decoder that enlarge a picture by any factor."""

import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from clit_kernels import BACKENDS
from clit_kernels.decode_stage import why_not

from . import geometry, imaging
from .decoders import build_decoder
from .encoders import build_encoder
from .errors import ConfigError, ImageError, ScaleError
from .geometry import Size
from .zoo.config import ModelConfig
from .zoo.folder import model_card, write_model_folder

Progress = Callable[[float], None]


class SuperResolver(nn.Module):
    """One model that enlarges a picture by any factor.

    ``create_model`` and ``from_pretrained`` build it. Calls leave nothing behind in the model, so threads may
    share one.

    Attributes:
        config: the settings it was built from.
        backend: who computes the decoder: "auto", "triton", "hoisted" or "reference". A call that the one
            named cannot serve raises ValueError and says why; "auto" takes Triton where it can serve, else
            "hoisted" (``clit-zoo doctor`` shows which).
        card: the text of the README.md it was loaded with; None for a new model.

    Raises:
        ConfigError: a setting is unknown or out of bounds, or there is no such backend.
    """

    def __init__(self, config: ModelConfig, *, backend: str = "auto"):
        super().__init__()
        if backend not in BACKENDS:
            raise ConfigError(f"backend {backend!r} is unknown; take one of {', '.join(BACKENDS)}")
        self.config, self.backend = config, backend
        self.card: str | None = None
        encoder, decoder = dict(config.encoder), dict(config.decoder)
        self.encoder = build_encoder(encoder.pop("name"), **encoder)
        self.decoder = build_decoder(decoder.pop("name"), cast(int, self.encoder.out_channels), **decoder)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The weights' dtype, in which the model computes."""
        return next(self.parameters()).dtype

    def check_backend(self) -> None:
        """Raise ConfigError where the backend named cannot serve where the model is, before any work."""
        reason = why_not(self.backend, torch.zeros(1, 1, 1, 1, device=self.device, dtype=self.dtype))
        if reason is not None:
            raise ConfigError(f"backend {self.backend!r} cannot serve this model: {reason}")

    def forward(self, image: Tensor, size: Size, *, progress: Progress | None = None) -> Tensor:
        """Enlarge a batch.

        Args:
            image: (B, 3, h, w) in [0, 1], any h, w >= 1.
            size: (H, W) of the output, at least (h, w).
            progress: called with the share of the decoding done, in (0, 1].

        Returns:
            (B, 3, H, W) float32 (float64 for a float64 model) in about [0, 1], not clamped.

        Raises:
            ImageError: ``image`` is not of that shape.
            ScaleError: ``size`` is not.
        """
        h, w = self._check(image)
        size = geometry.output_size(h, w, size=size)
        x, feature = self.features(image)
        out = self.decoder(feature, x, size, backend=self.backend, progress=progress)
        return out * 0.5 + 0.5 if out.requires_grad else out.mul_(0.5).add_(0.5)  # spares two outputs' memory

    def query(
        self, image: Tensor, coords: Tensor, cell: Tensor, *, sizes: Sequence[Size] | None = None
    ) -> Tensor:
        """Colours at any positions of a batch. Positions are constants: no gradient reaches them.

        Args:
            image: (B, 3, h, w) in [0, 1].
            coords: (B, N, 2) positions (y, x); the picture spans [-1, 1].
            cell: (B, 2) size (y, x) of an output pixel in the same units: (2 / H, 2 / W).
            sizes: feature-map size of each stage to pass, the first being (h, w); planned from ``cell`` where
                left out, which must then give every image of the batch the same plan. Give them to a cascade
                under torch.compile(fullgraph=True) or torch.export, which cannot read a tensor's values.

        Returns:
            (B, N, 3) float32 (float64 for a float64 model), not clamped.

        Raises:
            ImageError: a tensor's shape or type does not fit.
            ScaleError: ``sizes`` do not fit; in a cascade, the images' cells ask for different plans or are
                not positive (a one-stage model does not look, which would make a GPU wait).
        """
        h, w = self._check(image)
        coords, cell = self._checked_positions(image, coords, cell)
        plan = self._checked_plan(sizes, h, w) if sizes is not None else self._plan(h, w, cell)
        x, feature = self.features(image)
        return self.decoder.query(feature, x, coords, cell, plan, backend=self.backend) * 0.5 + 0.5

    def query_raster(
        self, image: Tensor, raster: geometry.Raster, cell: Tensor, sizes: Sequence[Size]
    ) -> Tensor:
        """``query`` at M positions nearest to each feature pixel, without gathers in the first stage.

        Args:
            image: (B, 3, h, w) in [0, 1].
            raster: offsets (B, M, h, w, 2).
            cell: (B, 2) size of an output pixel, the picture spanning [-1, 1].
            sizes: map size of each stage to pass, the first being (h, w).

        Returns:
            (B, M * h * w, 3) in the raster's order.

        Raises:
            ImageError, ScaleError: as ``query``.
        """
        h, w = self._check(image)
        offset = raster.offset
        if offset.dim() != 5 or (offset.shape[0], *offset.shape[2:]) != (image.shape[0], h, w, 2):
            raise ImageError(
                f"a raster's offsets must be ({image.shape[0]}, M, {h}, {w}, 2); got {tuple(offset.shape)}"
            )
        coords, cell = self._checked_positions(image, geometry.raster_coords(raster), cell)
        plan = self._checked_plan(sizes, h, w)
        x, feature = self.features(image)
        out = self.decoder.query(feature, x, coords, cell, plan, raster=raster, backend=self.backend)
        return out * 0.5 + 0.5

    def query_blocks(
        self, image: Tensor, coords: Tensor, cell: Tensor, sizes: Sequence[Size], span: float
    ) -> Tensor:
        """``query`` at positions that come in small blocks, which spares a cascade its large maps.

        Args:
            image: (B, 3, h, w) in [0, 1].
            coords: (B, n, Q, 2) positions of n blocks; the picture spans [-1, 1].
            cell: (B, 2) size of an output pixel in the same units.
            sizes: map size of each stage to pass, the first being (h, w).
            span: largest extent of a block, as a share of the picture.

        Returns:
            (B, n * Q, 3), not clamped.

        Raises:
            ImageError, ScaleError: as ``query``.
        """
        h, w = self._check(image)
        if coords.dim() != 4:
            raise ImageError(f"coords must be ({image.shape[0]}, n, Q, 2); got {tuple(coords.shape)}")
        flat, cell = self._checked_positions(image, coords.flatten(1, 2), cell)
        plan = self._checked_plan(sizes, h, w)
        x, feature = self.features(image)
        by_block = flat.unflatten(1, coords.shape[1:3])
        out = self.decoder.query_blocks(feature, x, by_block, cell, plan, span, backend=self.backend)
        return out * 0.5 + 0.5

    def features(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """A batch as the decoder takes it.

        Args:
            image: (B, 3, h, w) in [0, 1].

        Returns:
            The image in [-1, 1], (B, 3, h, w), float32 at least: the decoder adds it to its result, which
            would else have the 8 or 11 bits of a half-precision model's weights. And the encoder's map of it,
            (B, channels, h, w), in the weights' dtype.
        """
        x = ((image - 0.5) / 0.5).to(torch.promote_types(self.dtype, torch.float32))
        # convolutions are faster so, on CPUs (10 % in float32, measured) as on tensor cores
        x = x.contiguous(memory_format=torch.channels_last)
        return x, self.encoder(x.to(self.dtype))

    def upscale(
        self,
        image: Any,
        scale: float | tuple[float, float] | None = None,
        *,
        size: Size | None = None,
        progress: Progress | None = None,
    ) -> Any:
        """A picture, enlarged.

        Args:
            image: a path, PIL image, NumPy array (h, w), (h, w, 1-4) or (B, h, w, 1-4), or tensor (h, w),
                (1-4, h, w) or (B, 1-4, h, w); arrays and tensors hold uint8, uint16 or floats in [0, 1]. Gray
                stays gray; alpha is enlarged bicubically.
            scale: any real number from 1, or a pair (sy, sx) of them.
            size: the output's (H, W), instead of a scale.
            progress: called with the share of the decoding done, in (0, 1].

        Returns:
            The same kind of picture; for a path, a PIL image.

        Raises:
            ImageError: the picture cannot be read or holds values it should not.
            ScaleError: scale and size are both given or both missing, or out of bounds.
        """
        return imaging.enlarge(
            image,
            lambda h, w: geometry.output_size(h, w, scale, size),
            lambda color, target: self.enlarge(color, target, progress),
        )

    def save_pretrained(
        self, folder: str | Path, *, overwrite: bool = False, card: str | None = None
    ) -> Path:
        """Write config.json, model.safetensors and README.md, each whole or not at all.

        Args:
            folder: made if need be.
            overwrite: replace a model that is there already.
            card: the text of README.md; where left out, that which it was loaded with, else a plain one. Give
                a new one, or set ``model.card``, after training the weights further.

        Raises:
            ClitZooError: the folder holds a model already, or cannot be written.
        """
        text = next(text for text in (card, self.card, model_card(self.config)) if text is not None)
        return write_model_folder(folder, self.config, self.state_dict(), text, overwrite=overwrite)

    def push_to_hub(
        self, repo_id: str, *, private: bool = False, token: str | bool | None = None, card: str | None = None
    ) -> str:
        """Upload the model to the Hugging Face Hub, making the repository if need be; returns its URL.

        ``card`` is as in ``save_pretrained``; a card's "path/to/this/folder" becomes ``repo_id``.

        Raises:
            HubError: the Hub cannot be reached or refuses.
        """
        from .zoo.hub import push

        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, card=card)
            return push(folder, repo_id, private=private, token=token)

    @torch.inference_mode()
    def enlarge(self, image: Tensor, size: Size, progress: Progress | None = None) -> Tensor:
        """``forward`` without gradients, clamped.

        Takes (B, 3, h, w) float32 in [0, 1] on any device; returns (B, 3, H, W) float32 there.
        """
        out = self(image.to(self.device), size, progress=progress)
        return out.float().clamp_(0, 1).to(image.device)

    def _plan(self, h: int, w: int, cell: Tensor) -> list[Size]:
        if self.decoder.stages == 1:
            return [(h, w)]
        if not all(c > 0 and math.isfinite(c) for pair in cell.tolist() for c in pair):
            raise ScaleError("a cell is the size of an output pixel, (2 / H, 2 / W): it must be positive")
        plans = {
            tuple(geometry.plan(h, w, (max(h, round(2 / y)), max(w, round(2 / x))), self.decoder.stages))
            for y, x in cell.tolist()
        }
        if len(plans) != 1:
            raise ScaleError(
                "the images of this batch have cells that pass the cascade at different sizes; query them "
                "separately, or give the sizes"
            )
        return list(plans.pop())

    def _checked_plan(self, sizes: Sequence[Size], h: int, w: int) -> list[Size]:
        plan = list(sizes)
        for size in plan:
            whole = isinstance(size, Sequence) and all(isinstance(n, int | torch.SymInt) for n in size)
            if not whole or len(size) != 2 or min(size) < 1:
                raise ScaleError(f"a map's size is a pair of whole numbers from 1; got {size!r}")
        if not 1 <= len(plan) <= self.decoder.stages or tuple(plan[0]) != (h, w):
            raise ScaleError(
                f"sizes must name the maps of 1 to {self.decoder.stages} stages, the first ({h}, {w}); "
                f"got {plan}"
            )
        return plan

    @staticmethod
    def _checked_positions(image: Tensor, coords: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        batch = image.shape[0]
        if coords.dim() != 3 or coords.shape[0] != batch or coords.shape[2] != 2:
            raise ImageError(
                f"coords must be ({batch}, N, 2), one list for each image; got {tuple(coords.shape)}"
            )
        if tuple(cell.shape) != (batch, 2):
            raise ImageError(f"cell must be ({batch}, 2), one pair for each image; got {tuple(cell.shape)}")
        if not (coords.is_floating_point() and cell.is_floating_point()):
            raise ImageError(f"coords and cell must be floats; got {coords.dtype} and {cell.dtype}")
        return coords.detach(), cell.detach()

    @staticmethod
    def _check(image: Tensor) -> Size:
        if not isinstance(image, Tensor):
            raise ImageError(
                f"image must be a float tensor (B, 3, h, w) in [0, 1]; got a {type(image).__name__}. "
                "`upscale` takes files, PIL images and arrays"
            )
        if image.dim() != 4 or image.shape[1] != 3 or not image.is_floating_point() or 0 in image.shape:
            raise ImageError(
                f"image must be a float tensor (B, 3, h, w) in [0, 1]; got {image.dtype} {tuple(image.shape)}"
            )
        return image.shape[2], image.shape[3]
