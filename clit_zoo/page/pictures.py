"""The pictures that are open and the models that show them: how many there may be, and what they may hold."""

import hashlib
import math
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .. import imaging
from ..choice import choose
from ..errors import ImageError
from ..geometry import Size
from ..imaging import Picture
from ..model import SuperResolver, View
from ..zoo import registry
from .refusal import Refusal
from .worker import Worker

MAX_PICTURES = 12
MAX_PIXELS = 64 * 10**6
"""Of one picture: 0.2 GB of 8-bit colour."""

MAX_HELD_PIXELS = 128 * 10**6
"""Of all that are open."""

MAX_ENCODED_BYTES = 1 << 30
"""Of the maps of all views, but for the one last asked for."""

BICUBIC = "bicubic"


@dataclass
class Opened:
    """A picture that is open.

    Attributes:
        id: that nobody can guess who does not have the list.
        name: as the person called it; no path.
        model, why: the model that suits it, and why.
        used: when it was last asked for, by ``time.monotonic``.
        saves: how many full enlargements are under way: it is not closed meanwhile.
    """

    id: str
    name: str
    picture: Picture
    model: str
    why: str
    used: float = field(default_factory=time.monotonic)
    saves: int = 0
    closed: bool = False

    @property
    def size(self) -> Size:
        """(h, w) in pixels."""
        return self.picture.height, self.picture.width


class Pictures:
    """The pictures that are open, at most ``MAX_PICTURES`` and ``MAX_HELD_PIXELS``. Threads may share it.

    Args:
        model: the model to show all pictures in; chosen for each where None.
    """

    def __init__(self, model: str | None = None):
        self.model = model
        self._opened: dict[str, Opened] = {}
        self._lock = threading.Lock()
        self._secret = secrets.token_bytes(32)

    def __iter__(self) -> Iterator[Opened]:
        with self._lock:
            return iter(list(self._opened.values()))

    def get(self, id: str) -> Opened:
        """The picture of that identifier.

        Raises:
            Refusal: it is not open.
        """
        with self._lock:
            found = self._opened.get(id)
        if found is None:
            raise Refusal(404, "this picture is not open; it may have been closed to make room for others")
        found.used = time.monotonic()
        return found

    def add(self, path: Path, name: str) -> tuple[Opened, list[Opened]]:
        """Open a file, and close the pictures longest idle where there are too many; these are returned too.

        Raises:
            ImageError: it is no picture, or too large.
            Refusal: all the other pictures are being saved.
        """
        digest = hashlib.blake2b(key=self._secret, digest_size=16)
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        with self._lock:
            if (known := self._opened.get(digest.hexdigest())) is not None:
                known.used = time.monotonic()
                return known, []
        opened = self._read(path, name, digest.hexdigest())
        with self._lock:
            closed = self._room_for(math.prod(opened.size))
            self._opened[opened.id] = opened
        return opened, closed

    def close(self, id: str) -> Opened:
        """Let go of a picture.

        Raises:
            Refusal: it is not open.
        """
        found = self.get(id)
        with self._lock:
            found.closed = True
            self._opened.pop(id, None)
        return found

    def _read(self, path: Path, name: str, id: str) -> Opened:
        try:
            header = imaging.probe(path)
            pixels = header.width * header.height
            if pixels > MAX_PIXELS:
                raise ImageError(
                    f"{name} has {pixels / 1e6:.0f} million pixels, more than the page's "
                    f"{MAX_PIXELS / 1e6:.0f} million; cut it into parts, or use clit-zoo upscale."
                )
            choice = choose(path)
            picture = imaging.read(path)
        except ImageError as error:
            raise ImageError(str(error).replace(str(path), name)) from error
        notices = tuple(notice.replace(str(path), name) for notice in picture.notices)
        picture = replace(picture, notices=notices, source=name)
        return Opened(id, name, picture, *((self.model, "asked for") if self.model else choice))

    def _room_for(self, pixels: int) -> list[Opened]:
        closed: list[Opened] = []
        idle = sorted(
            (one for one in self._opened.values() if not one.saves), key=lambda one: one.used, reverse=True
        )
        count, held = len(self._opened), pixels + sum(math.prod(one.size) for one in self._opened.values())
        while count - len(closed) >= MAX_PICTURES or held > MAX_HELD_PIXELS:
            if not idle:
                raise Refusal(503, "the pictures that are open are all being saved; close one or wait")
            closed.append(idle.pop())
            held -= math.prod(closed[-1].size)
        for one in closed:
            one.closed = True
            del self._opened[one.id]
        return closed


class Models:
    """The models that pictures can be shown in, each loaded when first asked for.

    Args:
        load: from a name to a model.
        own: another model to offer first, by a name, a folder or a Hub repository.
    """

    def __init__(self, load: Callable[[str], SuperResolver], own: str | None = None):
        self._load, self._loaded, self._lock = load, dict[str, SuperResolver](), threading.Lock()
        self.own: str | None = None
        if own is not None:
            model = load(own)
            self.own = model.config.name
            self._loaded[self.own] = model

    @property
    def names(self) -> list[str]:
        """Of the models offered."""
        return list(dict.fromkeys([*([self.own] if self.own else []), *registry.with_weights()]))

    def get(self, name: str) -> SuperResolver:
        """A model, loaded if need be; Refusal as ``check``."""
        self.check(name)
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = self._load(name)
            return self._loaded[name]

    def check(self, name: str) -> None:
        """Raise Refusal where a model is not offered."""
        if name not in self.names:
            raise Refusal(404, f"there is no such model here; there are {', '.join([*self.names, BICUBIC])}")

    def described(self) -> list[dict[str, Any]]:
        """Each model's name, one line on it and whether it can show where it looks."""
        rows = []
        for name in self.names:
            entry = registry.find(name)
            model = self._loaded.get(name)
            config = entry.config if entry else model.config if model else None
            attention = config is not None and config.decoder["name"] == "clit"
            rows.append({"name": name, "summary": entry.summary if entry else "", "attention": attention})
        return [*rows, {"name": BICUBIC, "summary": "Interpolation, to compare with", "attention": False}]


@dataclass
class _Shown:
    view: Future
    progress: float = 0.0


class Views:
    """The views of pictures in models: encoded once each, within ``MAX_ENCODED_BYTES``."""

    def __init__(self, models: Models, worker: Worker):
        self._models, self._worker = models, worker
        self._shown: OrderedDict[tuple[str, str], _Shown] = OrderedDict()
        self._lock = threading.RLock()

    def get(self, opened: Opened, model: str) -> Future:
        """The future of the picture's view; of None for bicubic."""
        if model == BICUBIC:
            done: Future = Future()
            done.set_result(None)
            return done
        self.check(model)
        key = (opened.id, model)
        with self._lock:
            shown = self._shown.get(key)
            if shown is None:
                shown = _Shown(Future())
                shown.view = self._worker.submit(opened.id, self._encode(opened, model, shown))
                self._shown[key] = shown
                shown.view.add_done_callback(lambda future: self._failed(key, future))
            self._shown.move_to_end(key)
        return shown.view

    def check(self, model: str) -> None:
        """Raise Refusal where a model is not offered."""
        if model != BICUBIC:
            self._models.check(model)

    def progress(self, opened: Opened) -> dict[str, float]:
        """How much of its encoding is done, for each model that the picture was asked for in."""
        with self._lock:
            return {model: shown.progress for (id, model), shown in self._shown.items() if id == opened.id}

    def bound(self) -> None:
        """Let go of the views longest unused, as far as all hold too much."""
        with self._lock:
            held = {
                key: shown.view.result().nbytes
                for key, shown in self._shown.items()
                if shown.view.done() and not shown.view.cancelled() and shown.view.exception() is None
            }
            for key in list(held)[:-1]:
                if sum(held.values()) <= MAX_ENCODED_BYTES:
                    break
                del held[key], self._shown[key]

    def forget(self, opened: Opened) -> None:
        """Let go of a closed picture's views; who waits for one is told why it does not come."""
        with self._lock:
            gone = [self._shown.pop(key) for key in list(self._shown) if key[0] == opened.id]
        for shown in gone:
            with suppress(InvalidStateError):  # encoded already
                shown.view.set_exception(_closed())

    @property
    def nbytes(self) -> int:
        """Bytes of all maps held."""
        with self._lock:
            done = [shown.view for shown in self._shown.values() if shown.view.done()]
        return sum(view.result().nbytes for view in done if not view.cancelled() and not view.exception())

    def _encode(self, opened: Opened, name: str, shown: _Shown) -> Generator[None, None, View]:
        model = self._models.get(name)
        yield

        def progress(share: float) -> None:
            if opened.closed:
                raise _closed()
            shown.progress = max(shown.progress, share)

        view = model.open(opened.picture)
        if view.whole:  # other pictures are encoded where one looks
            view.render(size=(1, 1), box=(0, 0, 1, 1), progress=progress)
        shown.progress = 1.0
        return view

    def _failed(self, key: tuple[str, str], future: Future) -> None:
        if future.cancelled() or future.exception() is not None:
            with self._lock:
                if key in self._shown and self._shown[key].view is future:
                    del self._shown[key]


def _closed() -> Refusal:
    return Refusal(404, "this picture was closed")
