"""From a picture to the bytes of an answer: by a model where it is enlarged, else by Pillow's bicubic."""

import io
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..decoders.base import Progress
from ..geometry import Box, Size
from ..imaging import Picture
from ..imaging.metadata import Metadata
from ..imaging.picture import SAMPLE_TYPES, store, to_samples
from ..imaging.write import encoded as whole_file
from ..model import View
from .iiif import Ask

BAND_PIXELS = 1 << 22
"""That an interpolated band reads or gives, whichever is more: 50 MB of float32 colours."""

REDUCING_GAP = 3.0
"""Pillow averages whole pixels first down to so many times the size; it calls 3 nearly indistinguishable."""


def enlarges(box: Box, size: Size) -> bool:
    """Whether a window is larger than its part of the picture; where one side is smaller it is not.

    Args:
        box: in the picture's pixels, fractions allowed and rounded.
        size: (height, width) of the window.
    """
    more = size[0] - (box[3] - box[1]), size[1] - (box[2] - box[0])
    return min(more) > -_ROUNDING and max(more) > _ROUNDING


_ROUNDING = 1e-6
"""Pixels by which a box that was told in percent may be off."""


def window(
    picture: Picture, view: View | None, box: Box, size: Size, progress: Progress | None = None
) -> Iterator[Picture]:
    """Bands of rows of a window of a picture, from top to bottom.

    Args:
        picture: one, not a batch.
        view: the same, opened in a model, which decodes what it ``enlarges``; the rest is bicubic, and all of
            it where None.
        box: in the picture's pixels, fractions allowed.
        size: (height, width) of the window.
        progress: called with the share of a view's work done.

    Yields:
        Pictures as wide as the window. Those of a view are the crop of its whole enlargement, bit for bit
        where they share its grid.
    """
    left, top, right, bottom = box
    height, width = size
    if view is not None and enlarges(box, size):
        box = left, top, _end(left, right, width), _end(top, bottom, height)
        for band in view.rows(size=size, box=box, progress=progress):
            samples = torch.from_numpy(band)[None].permute(0, 3, 1, 2)
            yield replace(picture, samples=samples, ground=None)
        return
    most = max(height * width, (bottom - top) * (right - left))
    step = max(1, int(BAND_PIXELS * height / most))
    for start in range(0, height, step):
        stop = min(start + step, height)
        first, last = (min(top + (bottom - top) * row / height, bottom) for row in (start, stop))
        yield resized(picture, (left, first, right, last), (stop - start, width))


def _end(first: float, last: float, size: int) -> float:
    """The last edge, moved by a rounding where the box would be larger than the window."""
    last = min(last, first + size)
    return last if last - first <= size else math.nextafter(last, first)


def resized(picture: Picture, box: Box, size: Size) -> Picture:
    """A window of a picture by Pillow's antialiased bicubic, computed in float32.

    Tiles meet without a seam, because pixels around the box are read too.
    """
    reach = [3 * max(1.0, (box[i + 2] - box[i]) / size[1 - i]) + 2 for i in (0, 1)]
    left, top = (max(0, math.floor(box[i] - reach[i])) for i in (0, 1))
    right, bottom = (math.ceil(box[i + 2] + reach[i]) for i in (0, 1))
    color, alpha = picture.part(slice(top, bottom), slice(left, right))
    planes = color[0, :1] if picture.gray else color[0]
    if alpha is not None:
        planes = torch.cat([planes * alpha[0], alpha[0]])
    high, wide = planes.shape[-2:]
    local = (box[0] - left, box[1] - top, min(box[2] - left, wide), min(box[3] - top, high))
    found = [
        Image.fromarray(plane.numpy()).resize(
            (size[1], size[0]), Image.Resampling.BICUBIC, local, reducing_gap=REDUCING_GAP
        )
        for plane in planes.contiguous()
    ]
    values = torch.from_numpy(np.stack([np.asarray(plane) for plane in found], -1))[None]
    if alpha is not None:
        alpha = values[..., -1:].clamp(0, 1)
        values = values[..., :-1] / alpha.clamp_min(1e-6)
    out = torch.empty((1, *size, picture.channels), dtype=picture.dtype)
    store(values, alpha, False, out)
    return replace(picture, samples=out.permute(0, 3, 1, 2), ground=None)


def encoded(rows: list[Picture], ask: Ask) -> bytes:
    """The answer's bytes with the colour profile: 8 bits a sample, in TIFF as many as the picture has."""
    deep = ask.format == "tif" and ask.quality in ("default", "color")
    kind = SAMPLE_TYPES[rows[0].bits if deep else 8]
    samples = np.concatenate([to_samples(part, kind)[0] for part in rows])
    if ask.mirrored:
        samples = samples[:, ::-1]
    samples = np.ascontiguousarray(np.rot90(samples, -ask.turns))
    icc = rows[0].metadata.icc
    if deep:
        return whole_file(samples, "tiff", 100, Metadata(icc=icc))
    image = Image.fromarray(samples[:, :, 0] if samples.shape[-1] == 1 else samples)
    if ask.quality in ("gray", "bitonal") and image.mode in ("RGB", "RGBA"):
        image, icc = image.convert("L" if image.mode == "RGB" else "LA"), None
    if ask.format == "jpg" and image.mode in ("LA", "RGBA"):
        white = Image.new(image.mode, image.size, "white")
        image = Image.alpha_composite(white.convert("RGBA"), image.convert("RGBA")).convert("RGB")
        image = image.convert("L") if samples.shape[-1] == 2 or ask.quality in ("gray", "bitonal") else image
    if ask.quality == "bitonal" and ask.format != "webp":
        image = image.convert("1")
        image = image.convert("L") if ask.format == "jpg" else image
    file = io.BytesIO()
    image.save(file, icc_profile=icc, **_WRITTEN[ask.format])
    return file.getvalue()


_WRITTEN: dict[str, dict[str, Any]] = {
    "jpg": {"format": "JPEG", "quality": 92, "subsampling": 0},
    "png": {"format": "PNG", "compress_level": 1},
    "webp": {"format": "WEBP", "quality": 92},
    "tif": {"format": "TIFF", "compression": "tiff_deflate"},
}
