"""Full enlargements: computed beside the tiles, written to a file that is then fetched."""

import asyncio
import math
import secrets
from collections.abc import Generator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from .. import imaging
from ..geometry import MAX_SCALE, Box, Size
from ..imaging import Picture
from ..imaging.formats import OUTPUTS, output_format
from ..model import View
from .iiif import canvas_size
from .pictures import Opened, Views
from .pixels import window
from .refusal import Refusal, sentence
from .worker import Worker, shared

MAX_PIXELS = 64 * 10**6
"""Of an enlargement, which is held until it is written. ``clit-zoo upscale`` has no such bound."""

MAX_SAVES = 6
"""Enlargements under way or not yet fetched away; another one takes the place of the oldest finished."""


@dataclass(frozen=True)
class Wish:
    """What to save.

    Attributes:
        model: in which; of those offered.
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
        box = [_number(edge, "box", 0, max(h, w)) for edge in _list(body.get("box", [0, 0, w, h]))]
        if len(box) != 4 or not (box[0] < box[2] <= w and box[1] < box[3] <= h):
            raise Refusal(400, f"box is left, top, right, bottom within the {w}x{h} picture")
        left, top, right, bottom = box
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
        form = body.get("format", "png")
        if not isinstance(form, str) or form not in OUTPUTS:
            raise Refusal(400, f"the formats are {', '.join(OUTPUTS)}")
        quality = None if body.get("quality") is None else int(_number(body["quality"], "quality", 1, 100))
        imaging.check_output(form, size, bits=opened.picture.bits)
        model = str(body.get("model", opened.model))
        return cls(model, (left, top, right, bottom), size, form, quality, label)


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
        decoding, writing: compute it and write it.
        folder: where their files lie until they are fetched.
    """

    def __init__(self, views: Views, decoding: Worker, writing: Worker, folder: Path):
        self._views, self._decoding, self._writing, self._folder = views, decoding, writing, folder
        self._saves: dict[str, Save] = {}

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
        save = self.get(id)
        del self._saves[id]
        if save.task is not None:
            save.task.cancel()
        save.path.unlink(missing_ok=True)

    async def _run(self, save: Save, view: Future) -> None:
        try:
            steps = _enlarged(save, await shared(view))
            picture = await asyncio.wrap_future(self._decoding.submit(save.id, steps))
            save.state = "writing"
            flatten = "white" if save.wish.format == "jpeg" and picture.transparent else None
            wish = save.wish
            write = partial(imaging.write, picture, save.path, wish.format, wish.quality, flatten)
            notices = await asyncio.wrap_future(self._writing.run(save.id, write))
            save.notices = tuple(notices) + (("transparency was laid on white",) if flatten else ())
            save.state, save.progress = "done", 1.0
        except asyncio.CancelledError:
            raise
        except Exception as error:
            save.state = "failed"
            save.notices = (sentence(error).replace(str(save.path), save.name),)
        finally:
            save.opened.saves -= 1
            if save.id not in self._saves:  # cancelled while it was written
                with suppress(OSError):
                    save.path.unlink(missing_ok=True)


def _enlarged(save: Save, view: View | None) -> Generator[None, None, Picture]:
    """The picture, rows by rows."""
    picture, (height, width) = save.opened.picture, save.wish.size
    rows = torch.empty((1, height, width, picture.channels), dtype=picture.dtype)  # as files hold them
    samples = rows.permute(0, 3, 1, 2)
    done = 0
    for part in window(picture, view, save.wish.box, (height, width)):
        samples[:, :, done : done + part.height] = part.samples[:, :, :, :]
        done += part.height
        save.progress = 0.98 * done / height
        yield
    return replace(picture, samples=samples)


def _number(value: Any, name: str, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise Refusal(400, f"{name} is a number from {low:g} to {high:g}")
    return float(value)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
