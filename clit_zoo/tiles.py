"""A picture in tiles, each encoded when it is looked at: memory that does not grow with the picture.

A tile is encoded with as much around it as the encoder and the decoder reach, so its colours are those of the
picture encoded whole: bit for bit behind EDSR and RDN. SwinIR's attention sums in an order that depends on
how many windows there are, and agrees to rounding (6e-8 measured).
"""

import math
import threading
from collections import OrderedDict
from collections.abc import Iterator
from itertools import pairwise, product
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from .decoders.base import Decoder, Progress
from .encoders.base import Encoder
from .geometry import Axis, Frame, Pixels

WHOLE_PIXELS = 1 << 20
"""A picture of at most so many pixels is one tile."""

TILE_SIDE = 512
"""Pixels along a side of other pictures' tiles: ``edsr-light-lit`` then encodes 1.2 times the pixels."""

KEPT_PIXELS = 1 << 20
"""Encoded pixels that are kept for the next window, beside the ones in use."""


class Codec(Protocol):
    """What encodes and decodes: a ``SuperResolver``."""

    encoder: Encoder
    decoder: Decoder

    @property
    def device(self) -> torch.device: ...

    def encode(self, image: Tensor, frame: Frame | None = None) -> Any: ...

    def decode(self, encoded: Any, where: Pixels, *, progress: Progress | None = None) -> Tensor: ...


class Part(NamedTuple):
    """Colours (B, rows, cols, 3) of a part of a window, and where they belong in it."""

    rows: slice
    cols: slice
    colors: Tensor


class Tiles:
    """A picture that is encoded tile by tile as its windows ask for it. Threads may share one.

    Args:
        model: its weights must not change while this lives.
        color: (B, 3, h, w) in [0, 1], float32, on any device. A picture of one tile is encoded at once and
            let go of.
    """

    def __init__(self, model: Codec, color: Tensor):
        self.model, self.batch, self.size = model, color.shape[0], (color.shape[2], color.shape[3])
        reach = (model.encoder.reach, model.decoder.reach)
        # even, because a position half-way between two pixels goes to the even one
        self.grid = math.lcm(model.encoder.grid, 2)
        whole = None in reach or math.prod(self.size) <= WHOLE_PIXELS
        self.margin = sum(n or 0 for n in reach)
        self.edges = [[0, n] if whole else _cuts(n, self.grid) for n in self.size]
        self._kept: OrderedDict[tuple[int, int], Any] = OrderedDict()
        self._lock = threading.Lock()
        self._busy: dict[tuple[int, int], threading.Lock] = {}
        self._color: Tensor | None = color
        if whole:
            self._encoded(0, 0)
            self._color = None

    def decode(self, where: Pixels, progress: Progress | None = None) -> Iterator[Part]:
        """The window's parts, row of tiles by row of tiles, each on the model's device."""
        down, across = self._meets(where.rows, 0), self._meets(where.cols, 1)
        total, done = math.prod(where.size), 0.0
        for (i, rows), (j, cols) in product(down, across):
            size = (rows.stop - rows.start, cols.stop - cols.start)
            share = math.prod(size) / total

            def partly(fraction: float, done: float = done, share: float = share) -> None:
                if progress is not None:
                    progress(min(1.0, done + share * fraction))

            part = Pixels(
                where.rows.part(rows.start, rows.stop).within(self.size[0], *self._around(i, 0)),
                where.cols.part(cols.start, cols.stop).within(self.size[1], *self._around(j, 1)),
            )
            colors = self.model.decode(self._encoded(i, j), part, progress=partly)
            yield Part(rows, cols, colors.unflatten(1, size))
            done += share

    def _encoded(self, i: int, j: int) -> Any:
        """Tile (i, j), encoded with its margin."""
        with self._lock:
            busy = self._busy.setdefault((i, j), threading.Lock())
        with busy:  # whoever wants the same tile waits for it
            return self._found(i, j)

    def _found(self, i: int, j: int) -> Any:
        with self._lock:
            if (i, j) in self._kept:
                self._kept.move_to_end((i, j))
                return self._kept[i, j]
        assert self._color is not None
        (top, bottom), (left, right) = self._around(i, 0), self._around(j, 1)
        color = self._color[:, :, top:bottom, left:right].to(self.model.device)
        encoded = self.model.encode(color, Frame(top, left, self.size))
        with self._lock:
            self._kept[i, j] = encoded
            while len(self._kept) > 1 and len(self._kept) * self.batch * TILE_SIDE**2 > KEPT_PIXELS:
                self._kept.popitem(last=False)
        return encoded

    def _around(self, i: int, axis: int) -> tuple[int, int]:
        """First and last input row or column that tile i is encoded with."""
        edges = self.edges[axis]
        start = max(edges[i] - self.margin, 0) // self.grid * self.grid
        return start, min(edges[i + 1] + self.margin, self.size[axis])

    def _meets(self, axis: Axis, dim: int) -> list[tuple[int, slice]]:
        """The tiles that a window's rows or columns are nearest to, with those rows or columns."""
        nearest, _ = axis.on(self.size[dim])
        cuts = torch.searchsorted(nearest, torch.tensor(self.edges[dim])).tolist()
        return [(i, slice(a, b)) for i, (a, b) in enumerate(pairwise(cuts)) if a < b]


def _cuts(n: int, grid: int) -> list[int]:
    """Edges of tiles of n pixels, on the encoder's grid, of about ``TILE_SIDE`` and nearly equal."""
    count = max(1, round(n / TILE_SIDE))
    return [*(i * n // count // grid * grid for i in range(count)), n]
