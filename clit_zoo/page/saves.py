"""Full enlargements: computed beside the tiles, written to a file that is then fetched."""

import asyncio
import math
import secrets
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import imaging
from ..geometry import MAX_SCALE, Box, Size
from ..imaging import Picture
from ..imaging.formats import OUTPUTS, output_format, stored_bits
from ..imaging.large import LARGE_BYTES, is_large, write_large
from ..imaging.picture import SAMPLE_TYPES, to_samples
from ..imaging.spool import spool_path
from ..imaging.write import kept_by
from ..model import View
from .iiif import canvas_size
from .pictures import BICUBIC, Opened, Views
from .pixels import enlarges, window
from .refusal import Refusal, sentence
from .worker import Worker, shared

MAX_PIXELS = imaging.MAX_INPUT_PIXELS
"""Of an enlargement: as many as can be opened again. ``clit-zoo upscale`` has no such bound."""

MAX_SAVES = 6
"""Enlargements under way or not yet fetched away; another one takes the place of the oldest finished."""


@dataclass(frozen=True)
class Wish:
    """What to save.

    Attributes:
        model: in which; bicubic where it is not larger.
        box: the part of the picture, in its pixels.
        size: (height, width) that it becomes.
        format, quality: as ``imaging.write`` takes them.
        label: its size in the file's name, such as x3.7.
    """

    model: str
    box: Box
    size: Size
    format: str
    quality: int | None
    label: str

    @classmethod
    def of(cls, body: Any, opened: Opened) -> "Wish":
        """The wish that a JSON object states.

        Raises:
            Refusal: it states none, or more than is offered.
            ImageError: the format cannot hold it.
        """
        if not isinstance(body, dict):
            raise Refusal(400, "a JSON object is expected")
        unknown = set(body) - {"model", "scale", "width", "height", "box", "format", "quality"}
        if unknown:
            raise Refusal(400, f"{sorted(unknown)[0][:40]!r} is unknown here")
        h, w = opened.size
        edges = [_number(edge, "box", 0, max(h, w)) for edge in _list(body.get("box", [0, 0, w, h]))]
        if len(edges) != 4 or not (edges[0] < edges[2] <= w and edges[1] < edges[3] <= h):
            raise Refusal(400, f"box is left, top, right, bottom within the {w}x{h} picture")
        left, top, right, bottom = edges
        if (body.get("scale") is None) == (body.get("width") is None and body.get("height") is None):
            raise Refusal(400, "give a scale, or a width, a height or both")
        if body.get("scale") is not None:
            scale = _number(body["scale"], "scale", 0, MAX_SCALE)
            label = f"x{scale:g}"
            # the window's edges move to the pixels of the whole at that scale
            height, width = canvas_size(opened.size, scale)
            rows = [round(edge * height / h) for edge in (top, bottom)]
            cols = [round(edge * width / w) for edge in (left, right)]
            rows[1], cols[1] = max(rows[1], rows[0] + 1), max(cols[1], cols[0] + 1)
            if rows[1] > height or cols[1] > width:
                raise Refusal(400, "box is smaller than a pixel at that scale")
            left, right = (edge * w / width for edge in cols)
            top, bottom = (edge * h / height for edge in rows)
            size = rows[1] - rows[0], cols[1] - cols[0]
        else:
            given = [body.get("height"), body.get("width")]
            sides = [None if n is None else int(_number(n, "width and height", 1, 10**6)) for n in given]
            ratio = (right - left) / (bottom - top)
            size = (
                sides[0] or max(1, round((sides[1] or 1) / ratio)),
                sides[1] or max(1, round((sides[0] or 1) * ratio)),
            )
            label = f"{size[1]}x{size[0]}"
            if max(size[0] / (bottom - top), size[1] / (right - left)) > MAX_SCALE:
                raise Refusal(400, f"that is more than {MAX_SCALE:g} times the picture")
        if math.prod(size) > MAX_PIXELS:
            raise Refusal(
                413,
                f"{size[1]}x{size[0]} is {math.prod(size) / 1e6:.0f} million pixels, more than the page's "
                f"{MAX_PIXELS / 1e6:.0f} million; take a smaller scale or a part, or use clit-zoo upscale",
            )
        form, bits = body.get("format", "png"), opened.picture.bits
        if not isinstance(form, str) or form not in OUTPUTS:
            raise Refusal(400, f"the formats are {', '.join(OUTPUTS)}")
        quality = None if body.get("quality") is None else int(_number(body["quality"], "quality", 1, 100))
        imaging.check_output(form, size, bits=bits)
        nbytes = math.prod(size) * opened.picture.channels * stored_bits(OUTPUTS[form], bits) // 8
        if nbytes > LARGE_BYTES and not is_large(output_format(form), nbytes, size):
            raise Refusal(
                413,
                f"{size[1]}x{size[0]} pixels take {nbytes / 1e6:.0f} MB, and {form.upper()} is held in "
                f"memory, up to {LARGE_BYTES / 1e6:.0f} MB; take TIFF, a smaller scale or a part",
            )
        box = left, top, right, bottom
        model = str(body.get("model", opened.model)) if enlarges(box, size) else BICUBIC
        return cls(model, box, size, form, quality, label)


@dataclass
class Save:
    """A full enlargement, under way or finished; ``state`` is one of working, writing, done and failed."""

    id: str
    opened: Opened
    wish: Wish
    path: Path
    progress: float = 0.0
    state: str = "working"
    notices: tuple[str, ...] = ()
    task: asyncio.Task | None = None
    left: bool = False

    def leave(self) -> None:
        """End what is under way at its next step, and let go of the file."""
        self.left = True
        if self.task is not None:
            self.task.cancel()
        self.path.unlink(missing_ok=True)

    @property
    def name(self) -> str:
        """What the file is called: as ``clit-zoo upscale`` calls it."""
        return f"{Path(self.opened.name).stem}_{self.wish.label}_{self.wish.model}{self.path.suffix}"

    def described(self) -> dict[str, Any]:
        """As the API tells it."""
        return {
            "id": self.id,
            "picture": self.opened.id,
            "name": self.name,
            "width": self.wish.size[1],
            "height": self.wish.size[0],
            "state": self.state,
            "progress": round(self.progress, 4),
            "notices": list(self.notices),
        }


class Saves:
    """The full enlargements, at most ``MAX_SAVES``. For one event loop.

    Args:
        views: of the pictures.
        worker: computes and writes them, one after the other.
        folder: where their files lie until they are fetched.
    """

    def __init__(self, views: Views, worker: Worker, folder: Path):
        self._views, self._worker, self._folder = views, worker, folder
        self._saves: dict[str, Save] = {}

    def __iter__(self) -> Iterator[Save]:
        return iter(list(self._saves.values()))

    def start(self, opened: Opened, wish: Wish) -> Save:
        """Begin one.

        Raises:
            Refusal: too many are under way, or the model is not offered.
        """
        view = self._views.get(opened, wish.model)
        if len(self._saves) >= MAX_SAVES:
            ended = [save for save in self._saves.values() if save.state in ("done", "failed")]
            if not ended:
                raise Refusal(503, f"{MAX_SAVES} pictures are being saved; wait or cancel one")
            self.remove(ended[0].id)
        id = secrets.token_hex(8)
        suffix = output_format(wish.format).suffixes[0]
        save = Save(id, opened, wish, self._folder / f"{id}{suffix}")
        self._saves[id] = save
        opened.saves += 1
        save.task = asyncio.ensure_future(self._run(save, view))
        return save

    def get(self, id: str) -> Save:
        """The one of that identifier.

        Raises:
            Refusal: there is none.
        """
        if id not in self._saves:
            raise Refusal(404, "there is no such enlargement; it may have been fetched away or cancelled")
        return self._saves[id]

    def remove(self, id: str) -> None:
        """Cancel it, or let go of its file."""
        self.get(id).leave()
        del self._saves[id]

    def stop(self) -> None:
        """End what is under way."""
        for save in self:
            save.leave()

    async def _run(self, save: Save, view: Future) -> None:
        try:
            make = partial(_made, save, await shared(view))
            save.notices = tuple(await asyncio.wrap_future(self._worker.run(save.id, make)))
            save.state, save.progress = "done", 1.0
        except Exception as error:
            save.state = "failed"
            save.notices = (self._why(save, error),)
        finally:
            save.opened.saves -= 1

    def _why(self, save: Save, error: Exception) -> str:
        if isinstance(error.__cause__, OSError):
            return f"{save.name} cannot be written: {error.__cause__.strerror}"
        text = sentence(error).replace(str(save.path), save.name)
        return text.replace(str(self._folder), "the server's disk")


def _made(save: Save, view: View | None) -> list[str]:
    """Write the file of an enlargement; notices of what it could not hold."""
    picture, size, path, quality = save.opened.picture, save.wish.size, save.path, save.wish.quality
    form = output_format(save.wish.format)
    assert form.output is not None
    flat = picture.transparent and not form.output.alpha
    if flat:
        picture = imaging.flattened(picture, "white")
    bits = stored_bits(form.output, picture.bits)
    dtype = np.dtype(str(SAMPLE_TYPES[bits]).removeprefix("torch."))
    shape, bands = (*size, picture.channels), _bands(save, view, picture, bits)
    notices = imaging.check_output(form.name, size, bits=picture.bits)
    try:
        if is_large(form, math.prod(shape) * dtype.itemsize, size):
            kept, left_out = kept_by(form.name, picture, size)
            write_large(lambda first: bands, shape, dtype, kept, path, form, quality, save.id)
        else:
            rows, done = np.empty(shape, dtype), 0
            for band in bands:
                rows[done : done + len(band)] = band
                done += len(band)
            samples = torch.from_numpy(rows)[None].permute(0, 3, 1, 2)
            whole = replace(picture, samples=samples, bits=bits, ground=None)
            left_out = imaging.write(whole, path, form.name, quality)
    finally:
        spool_path(path).unlink(missing_ok=True)
        if save.left:
            path.unlink(missing_ok=True)
    return [*notices, *left_out, *(["transparency was laid on white"] if flat else [])]


def _bands(save: Save, view: View | None, picture: Picture, bits: int) -> Iterator[np.ndarray]:
    """(rows, W, c) samples of an enlargement, from top to bottom; ``picture`` says on what it is laid."""
    done = 0

    def told(share: float) -> None:
        if save.left:
            raise Refusal(499, "this enlargement was cancelled")
        save.progress = max(save.progress, 0.98 * share)

    for part in window(save.opened.picture, view, save.wish.box, save.wish.size, told):
        yield to_samples(replace(part, ground=picture.ground), SAMPLE_TYPES[bits])[0]
        done += part.height
        told(done / save.wish.size[0])
    save.state = "writing"


def _number(value: Any, name: str, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise Refusal(400, f"{name} is a number from {low:g} to {high:g}")
    return float(value)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
