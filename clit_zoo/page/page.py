"""What one server holds: the pictures, the models, the workers and the answers kept."""

import asyncio
import math
import time
from pathlib import Path
from typing import Any

from ..model import View
from . import iiif
from .cache import Answers
from .pictures import BICUBIC, Models, Opened, Pictures, Views
from .pixels import encoded, enlarges, window
from .saves import Saves
from .worker import Worker, shared

TILE_PIXELS = 1 << 18
"""Larger answers are computed beside the tiles: so many take 0.5 to 1.2 s of a core in the light model."""

WORKERS = ("resize", "encode", "decode", "enlarge", "read", "save")

END_SECONDS = 1.0
"""That computations have for their last step when the server stops."""

CACHED_BYTES = 128 << 20
"""Of answers that are kept."""


class Page:
    """What one server holds.

    Args:
        pictures, models: to show.
        folder: for uploads while they are read, and for enlargements until they are fetched.
    """

    def __init__(self, pictures: Pictures, models: Models, folder: Path):
        self.pictures, self.models, self.folder = pictures, models, folder
        # What needs no model must not wait for one, nor tiles for another picture's encoding or for a whole
        # enlargement. Files are read and written one at a time, as each may take a gigabyte, and by no
        # executor's threads, for which an end would wait.
        self.workers = [Worker(name) for name in WORKERS]
        self.resizing, self.encoding, self.decoding, self.enlarging, self.reading, saving = self.workers
        self.views = Views(models, self.encoding)
        self.answers = Answers(CACHED_BYTES)
        self.saves = Saves(self.views, saving, folder)
        self.uploading = 0  # bytes

    def stop(self) -> None:
        """End what is under way, as far as it ends within a second."""
        for opened in self.pictures:
            opened.closed = True  # ends its encoding at the next layer
        self.saves.stop()
        for worker in self.workers:
            worker.stop()
        end = time.monotonic() + END_SECONDS
        for worker in self.workers:
            worker.join(max(0.0, end - time.monotonic()))

    def forget(self, opened: Opened) -> None:
        """Let go of all that belongs to a closed picture."""
        self.views.forget(opened)
        self.answers.forget(lambda key: isinstance(key, tuple) and key[0] == opened.id)

    def described(self, opened: Opened) -> dict[str, Any]:
        """A picture as the API tells it."""
        picture, (height, width) = opened.picture, opened.size
        return {
            "id": opened.id,
            "name": opened.name,
            "width": width,
            "height": height,
            "gray": picture.gray,
            "alpha": picture.transparent,
            "bits": picture.bits,
            "model": opened.model,
            "why": opened.why,
            "notices": list(picture.notices),
            "encoded": {name: round(share, 4) for name, share in self.views.progress(opened).items()},
        }

    async def pixels(
        self, asker: tuple[str, str], opened: Opened, model: str, scale: float, ask: iiif.Ask
    ) -> bytes:
        """The bytes that an address asks for; the asker is a client and its machine."""
        (h, w), canvas = opened.size, iiif.canvas_size(opened.size, scale)
        left, top, right, bottom = (
            min(edge * side / whole, side)
            for edge, side, whole in zip(ask.region, (w, h) * 2, canvas[::-1] * 2, strict=True)
        )
        box = left, top, right, bottom

        async def compute() -> bytes:
            view: View | None = None
            if model != BICUBIC and enlarges(box, ask.size):
                view = await shared(self.views.get(opened, model))
            else:
                self.views.check(model)

            def steps() -> Any:
                parts = []
                for part in window(opened.picture, view, box, ask.size):
                    parts.append(part)
                    yield
                self.views.bound()
                return encoded(parts, ask)

            worker = self.decoding if math.prod(ask.size) <= TILE_PIXELS else self.enlarging
            worker = self.resizing if view is None else worker
            client, machine = asker
            data: bytes = await asyncio.wrap_future(worker.submit(client, steps(), machine))
            return data

        return await self.answers.get((opened.id, model, scale, ask), compute)
