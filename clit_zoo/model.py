"""SuperResolver: an encoder and a decoder that enlarge a picture by any factor. View: a picture opened."""

import math
import mmap
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from clit_kernels import BACKENDS

from . import geometry, imaging
from .decoders import build_decoder
from .decoders.base import Decoder, Progress
from .encoders import build_encoder
from .encoders.base import Encoder
from .errors import ConfigError, ImageError, ScaleError
from .geometry import Box, Coords, Frame, Pixels, Size, Where
from .imaging.picture import SAMPLE_TYPES, store
from .tiles import Glance, Tiles
from .zoo.config import ModelConfig
from .zoo.folder import model_card, write_model_folder


class Encoded(NamedTuple):
    """A batch of pictures, encoded once and decoded as often as asked.

    Attributes:
        size: (h, w) of the pictures.
        prepared: the decoder's maps of them (``Decoder.prepare``).
    """

    size: Size
    prepared: Any


class SuperResolver(nn.Module):
    """One model that enlarges a picture by any factor.

    ``create_model`` and ``from_pretrained`` build it. Calls leave nothing behind in the model, so threads may
    share one.

    Attributes:
        config: the settings it was built from.
        card: the text of the README.md it was loaded with; None for a new model.

    Raises:
        ConfigError: a setting is unknown or out of bounds, or there is no such backend.
    """

    encoder: Encoder
    decoder: Decoder

    def __init__(self, config: ModelConfig, *, backend: str = "auto"):
        super().__init__()
        self.config = config
        self.card: str | None = None
        encoder, decoder = dict(config.encoder), dict(config.decoder)
        self.encoder = build_encoder(encoder.pop("name"), **encoder)
        self.decoder = build_decoder(decoder.pop("name"), self.encoder.out_channels, **decoder)
        self.backend = backend

    def __repr__(self) -> str:
        config, count = self.config, sum(p.numel() for p in self.parameters())
        where = f"{str(self.dtype).removeprefix('torch.')} on {self.device}"
        return f"SuperResolver({config.name}: {count:,} parameters, {where}, any scale from 1)"

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The weights' dtype, in which the model computes."""
        return next(self.parameters()).dtype

    @property
    def backend(self) -> str:
        """Who computes the decoder: "auto", "torch", "triton" or "reference".

        A call that the one named cannot serve raises ValueError and says why; "auto" takes Triton where it
        can serve, else PyTorch (``clit-zoo doctor`` shows which).
        """
        return self.decoder.backend

    @backend.setter
    def backend(self, name: str) -> None:
        if name not in BACKENDS:
            raise ConfigError(f"backend {name!r} is unknown; take one of {', '.join(BACKENDS)}")
        self.decoder.backend = name

    def check_backend(self) -> None:
        """Raise ConfigError where the backend named cannot serve where the model is, before any work."""
        reason = self.decoder.why_not(self.backend, next(self.parameters()))
        if reason is not None:
            raise ConfigError(f"backend {self.backend!r} cannot serve this model: {reason}")

    def encode(self, image: Tensor, frame: Frame | None = None) -> Encoded:
        """What belongs to the pictures and not to a position, computed once.

        Args:
            image: (B, 3, h, w) in [0, 1], any h, w >= 1.
            frame: where it lies in the picture that it is a part of, as ``Tiles`` cut them; of the whole
                picture's decoding the part then gives its pixels, but for a margin.

        Raises:
            ImageError: ``image`` is not of that shape.
        """
        size = _check_image(image)
        self.check_backend()
        # kept in float32 so that adding the image does not round the result to half precision
        x = self.decoder.normalise(image).to(torch.promote_types(self.dtype, torch.float32))
        # convolutions are faster so, on CPUs (10 % in float32, measured) as on tensor cores
        x = x.contiguous(memory_format=torch.channels_last)
        return Encoded(size, self.decoder.prepare(self.encoder(x.to(self.dtype)), x, frame))

    def decode(self, encoded: Encoded, where: Where, *, progress: Progress | None = None) -> Tensor:
        """Colours of encoded pictures at positions. Positions are constants: no gradient reaches them.

        Args:
            encoded: what ``encode`` returned.
            where: Q positions: ``Pixels`` of a window, ``Coords``, or training's ``Raster`` or ``Blocks``.
            progress: called with the share of the decoding done, in (0, 1].

        Returns:
            (B, Q, 3) float32 (float64 for a float64 model) in about [0, 1], not clamped, in ``where``'s
            order.

        Raises:
            ScaleError: the maps that ``where`` names do not fit a cascade.
            ValueError: the backend named cannot serve.
        """
        return self.decoder.restore(self.decoder.decode(encoded.prepared, where, progress=progress))

    def forward(self, image: Tensor, size: Size, *, progress: Progress | None = None) -> Tensor:
        """Enlarge a batch: ``decode(encode(image), Pixels.whole(size))`` as a picture.

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
        size = geometry.output_size(*_check_image(image), size=size)
        colors = self.decode(self.encode(image), Pixels.whole(size), progress=progress)
        return colors.unflatten(1, size).permute(0, 3, 1, 2)

    def query(
        self, image: Tensor, coords: Tensor, cell: Tensor, *, maps: Sequence[Size] | None = None
    ) -> Tensor:
        """Colours at any positions of a batch: ``decode(encode(image), Coords(coords, cell, maps))``.

        Args:
            image: (B, 3, h, w) in [0, 1].
            coords: (B, N, 2) positions (y, x); the picture spans [-1, 1].
            cell: (B, 2) size (y, x) of an output pixel in the same units: (2 / H, 2 / W).
            maps: feature-map size of each stage of a cascade to pass, the first being (h, w); planned from
                ``cell`` where left out, which must then give every image of the batch the same plan. Give
                them under torch.compile(fullgraph=True) or torch.export, which cannot read a tensor's values.

        Returns:
            (B, N, 3) float32 (float64 for a float64 model), not clamped.

        Raises:
            ImageError: a tensor's shape or type does not fit.
            ScaleError: ``maps`` do not fit; in a cascade, the images' cells ask for different plans or are
                not positive (a one-stage model does not look, which would make a GPU wait).
        """
        batch = _check_image(image) and image.shape[0]
        if coords.dim() != 3 or coords.shape[0] != batch or coords.shape[2] != 2:
            raise ImageError(
                f"coords must be ({batch}, N, 2), one list for each image; got {tuple(coords.shape)}"
            )
        if tuple(cell.shape) != (batch, 2):
            raise ImageError(f"cell must be ({batch}, 2), one pair for each image; got {tuple(cell.shape)}")
        if not (coords.is_floating_point() and cell.is_floating_point()):
            raise ImageError(f"coords and cell must be floats; got {coords.dtype} and {cell.dtype}")
        where = Coords(coords.detach(), cell.detach(), None if maps is None else tuple(maps))
        return self.decode(self.encode(image), where)

    def open(self, picture: Any) -> "View":
        """A picture that is encoded once, and rendered as often as one likes.

        Args:
            picture: as in ``upscale``.

        Raises:
            ImageError: it cannot be read or holds values it should not.
        """
        return View(self, picture)

    def upscale(
        self,
        picture: Any,
        scale: float | tuple[float, float] | None = None,
        *,
        size: Size | None = None,
        box: Box | None = None,
        progress: Progress | None = None,
    ) -> Any:
        """A picture, enlarged: ``open(picture).render(...)``.

        Args:
            picture: a path, PIL image, NumPy array (h, w), (h, w, 1-4) or (B, h, w, 1-4), or tensor (h, w),
                (1-4, h, w) or (B, 1-4, h, w); arrays and tensors hold uint8, uint16 or floats in [0, 1]. Gray
                stays gray; alpha is enlarged bicubically. A list of pictures gives a list.
            scale, size, box, progress: as in ``View.render``.

        Returns:
            The same kind of picture; for a path, a PIL image.

        Raises:
            ImageError: the picture cannot be read or holds values it should not.
            ScaleError: scale and size are both given or both missing, or out of bounds.
        """
        if isinstance(picture, list | tuple):
            return [self.upscale(one, scale, size=size, box=box, progress=progress) for one in picture]
        return View(self, picture).render(scale, size=size, box=box, progress=progress)

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
            ClitZooError: the folder holds a model already.
            OSError: it cannot be written.
        """
        text = next(text for text in (card, self.card, model_card(self.config)) if text is not None)
        return write_model_folder(folder, self.config, self.state_dict(), text, overwrite=overwrite)

    def push_to_hub(
        self, repo_id: str, *, private: bool = False, token: str | bool | None = None, card: str | None = None
    ) -> str:
        """Upload the model to the Hugging Face Hub, making the repository if need be; returns its URL.

        ``card`` is as in ``save_pretrained``; a card's "path/to/this/folder" becomes ``repo_id``.

        Raises:
            HubError: there is no token, or the Hub cannot be reached or refuses.
            ClitZooError: the card names no licence.
        """
        from .zoo.hub import push

        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, card=card)
            return push(folder, repo_id, private=private, token=token).address


class View:
    """What ``SuperResolver.open`` returns: a picture, ready to be decoded at any size and window.

    It is encoded when it is first looked at: at once, or above a megapixel tile by tile (``tiles``). A view
    holds the decoder's maps of it, or the picture as it was stored and the maps of some tiles; and nothing of
    an output's size. Threads may share it.

    Args:
        model: decodes; its weights must not change while the view lives.
        picture: as in ``SuperResolver.upscale``.

    Attributes:
        size: (h, w) of the picture.

    Raises:
        ImageError: the picture cannot be read or holds values it should not.
    """

    def __init__(self, model: SuperResolver, picture: Any):
        decoded = imaging.decode(picture)
        if not isinstance(picture, imaging.Picture):  # whoever made one has its notices
            for notice in decoded.notices:
                warnings.warn(notice, stacklevel=3)
        self.size: Size = (decoded.height, decoded.width)
        self._tiles = Tiles(model, decoded)
        self._batch, self._gray, self._channels = decoded.samples.shape[0], decoded.gray, decoded.channels
        self._like = replace(decoded, samples=torch.empty(0, dtype=decoded.samples.dtype))

    @torch.inference_mode()
    def render(
        self,
        scale: float | tuple[float, float] | None = None,
        *,
        size: Size | None = None,
        box: Box | None = None,
        progress: Progress | None = None,
    ) -> Any:
        """The picture, or a window of it, enlarged.

        A window at a scale is the same pixels, bit for bit in float32 and PyTorch, as that part of the whole
        picture at that scale; it costs its own pixels and a halo.

        Args:
            scale: any real number from 1, or a pair (sy, sx) of them.
            size: the output's (height, width), instead of a scale.
            box: (left, top, right, bottom) in pixels of the input, fractions allowed; the whole picture where
                left out. With a scale its edges move to the nearest output pixels' edges; with a size it is
                shown from edge to edge.
            progress: called with the share of the work done, in (0, 1], encoding included.

        Returns:
            The same kind of picture that was opened; for a path, a PIL image.

        Raises:
            ScaleError: scale and size are both given or both missing, or out of bounds, or the box is.
        """
        where = Pixels.window(*self.size, box, scale, size)
        shape = (self._batch, *where.size, self._channels)
        out = _apart(shape, self._like.dtype).to(self._like.origin.device)
        for part in self._tiles.decode(where, self._pixel_bytes, progress):
            alpha = None if part.alpha is None else part.alpha.to(out.device)
            store(part.color.to(out.device), alpha, self._gray, out[:, part.rows, part.cols])
        return imaging.encode(replace(self._like, samples=out.permute(0, 3, 1, 2), ground=None))

    @torch.inference_mode()
    def rows(
        self,
        scale: float | tuple[float, float] | None = None,
        *,
        size: Size | None = None,
        box: Box | None = None,
        progress: Progress | None = None,
        first: int = 0,
        bits: int | None = None,
    ) -> Iterator[np.ndarray]:
        """``render``'s samples from top to bottom, for outputs of any height: only a band of them exists.

        Args:
            scale, size, box, progress: as in ``render``.
            first: the row to begin with: 0, or one that a band began with.
            bits: of the samples: 8, 16 or 32; the picture's own where left out.

        Yields:
            (rows, W, c) bands of uint8, uint16 or float32, as the picture's own samples: 1 to 4 channels, two
            are gray and alpha. They end where finished rows do.

        Raises:
            ScaleError: as ``render``.
            ImageError: the picture is a batch.
        """
        if self._batch != 1:
            raise ImageError(f"rows are of one picture, and this is a batch of {self._batch}: open each.")
        where = Pixels.window(*self.size, box, scale, size)
        width, out = where.size[1], None
        dtype = self._like.dtype if bits is None else SAMPLE_TYPES[bits]
        for part in self._tiles.decode(where, self._pixel_bytes, progress, first):
            if out is None:
                out = _apart((1, part.band.stop - part.band.start, width, self._channels), dtype)
            at = slice(part.rows.start - part.band.start, part.rows.stop - part.band.start)
            store(part.color.cpu(), None if part.alpha is None else part.alpha.cpu(), self._gray,
                  out[:, at, part.cols])  # fmt: skip
            if (part.rows.stop, part.cols.stop) == (part.band.stop, width):
                finished, out = out[0].numpy(), None
                yield finished

    @torch.inference_mode()
    def attention(self, x: float, y: float, scale: float = 1.0) -> list[Glance]:
        """Where the model looks for the colour at a position (Figure 7 of CLIT's paper).

        Args:
            x, y: in pixels of the input, fractions allowed: the first pixel's centre is (0.5, 0.5).
            scale: of the enlargement, by which a cascade plans its stages.

        Returns:
            A ``Glance`` for each stage that works at this scale.

        Raises:
            ConfigError: the decoder has no attention.
            ScaleError: the position is not in the picture, or the scale out of bounds.
        """
        if not hasattr(self._tiles.model.decoder, "attention"):
            raise ConfigError("this model's decoder has no attention to show: take a LIT or CLIT model")
        if not (0 <= x <= self.size[1] and 0 <= y <= self.size[0]):
            raise ScaleError(f"({x:g}, {y:g}) is not in the {self.size[1]}x{self.size[0]} picture")
        return self._tiles.attention(x, y, Pixels.whole(geometry.output_size(*self.size, scale)))

    @property
    def whole(self) -> bool:
        """Whether the picture is encoded in one piece."""
        return self._tiles.layout.whole

    @property
    def nbytes(self) -> int:
        """Bytes of the maps held, which later windows may change."""
        return self._tiles.nbytes

    @property
    def _pixel_bytes(self) -> int:
        return self._channels * self._batch * self._like.dtype.itemsize


def _apart(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor in memory of its own: between freed tensors it would keep the next tile's from their places,
    which took 100 MP at x4 a quarter of a gigabyte more.
    """
    memory = mmap.mmap(-1, math.prod(shape) * dtype.itemsize)
    return torch.frombuffer(memory, dtype=dtype).view(shape)


def _check_image(image: Tensor) -> Size:
    """(h, w) of a batch (B, 3, h, w); ImageError for anything else."""
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
