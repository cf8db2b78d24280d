"""A picture in tiles, each encoded when it is looked at: memory that does not grow with the picture.

A tile is encoded with as much around it as the encoder and the decoder reach, so its colours are those of the
picture encoded whole: bit for bit behind EDSR and RDN. SwinIR's attention sums in an order that depends on
how many windows there are, and agrees to rounding (6e-8 measured).
"""

import math
import threading
from collections import OrderedDict
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from .axis import Axis
from .decoders.base import Decoder, Progress
from .encoders.base import Encoder
from .geometry import Box, Coords, Frame, Pixels, Size
from .imaging import Picture, enlarge_alpha, fill_hidden
from .pace import Pace, Work

WHOLE_PIXELS = 1 << 20
"""A picture of at most so many pixels is one tile."""

TILE_SIDE = 352
"""Pixels along a side of other pictures' tiles: ``edsr-light-lit`` then encodes 1.4 times the pixels."""

BAND_BYTES = 192 << 20
"""What a row of tiles may hold of finished samples. Of large outputs its tiles are lower, and wider."""

CHUNK_PIXELS = 1 << 21
"""Output pixels that are decoded at once: 25 MB of float32 colours."""

KEPT_TILES = 4
"""A window of at most so many tiles keeps them for the next one."""


class Codec(Protocol):
    """What encodes and decodes: a ``SuperResolver``."""

    encoder: Encoder
    decoder: Decoder

    @property
    def device(self) -> torch.device: ...

    def encode(self, image: Tensor, frame: Frame | None = None) -> Any: ...

    def decode(self, encoded: Any, where: Pixels, *, progress: Progress | None = None) -> Tensor: ...


class Part(NamedTuple):
    """Colours (B, rows, cols, 3) and alpha (B, rows, cols, 1) of a part of a window, and where they belong.

    ``band``: rows of the window that are finished together, of which these are some.
    """

    band: slice
    rows: slice
    cols: slice
    color: Tensor
    alpha: Tensor | None


class Tile(NamedTuple):
    """A part of the picture that is encoded: what is decoded of it, and a margin."""

    rows: slice
    cols: slice

    @property
    def key(self) -> tuple[int, ...]:
        """Says which it is: slices cannot be the keys of a table."""
        return self.rows.start, self.rows.stop, self.cols.start, self.cols.stop

    @property
    def encoded(self) -> int:
        """Input pixels that are encoded."""
        return (self.rows.stop - self.rows.start) * (self.cols.stop - self.cols.start)


class Layout:
    """How a picture of a size is cut for a model. A picture of one tile is never cut.

    Args:
        encoder, decoder: the model's.
        size: (h, w) of the picture.
    """

    def __init__(self, encoder: Encoder, decoder: Decoder, size: Size):
        self.size = size
        reach = (encoder.reach, decoder.reach)
        self.whole = None in reach or math.prod(size) <= WHOLE_PIXELS
        self.margin = sum(n or 0 for n in reach)
        self.grid = math.lcm(encoder.grid, 2)  # a position half-way between two pixels goes to the even one

    def rows(self, where: Pixels, pixel_bytes: int) -> list[tuple[slice, list[tuple[slice, Tile]]]]:
        """Rows of tiles that a window is nearest to: its rows, and each tile with its columns.

        Args:
            where: the window.
            pixel_bytes: of one of its pixels as it is handed out.
        """
        high, wide = TILE_SIDE, TILE_SIDE
        row_bytes = where.rows.scale(self.size[0]) * where.cols.size * pixel_bytes
        while high * row_bytes > BAND_BYTES and high >= 2 * max(self.grid, 16):
            high, wide = high // 2, wide * 2
        down, across = self._meets(where.rows, 0, high), self._meets(where.cols, 1, wide)
        return [(part, [(cols, Tile(rows, columns)) for cols, columns in across]) for part, rows in down]

    def _meets(self, axis: Axis, dim: int, side: int) -> list[tuple[slice, slice]]:
        """A window's rows or columns, cut between tiles, and those of the input that are encoded for them.

        All tiles are equally large, so that the memory of one is that of the next: those at the borders
        decode what others have as margin.
        """
        n, room = self.size[dim], self.size[dim] - 2 * self.margin
        count = 1 if self.whole else max(1, min(round(n / side), room // self.grid))
        step = room // count // self.grid * self.grid
        edges = [0, *(i * step + self.margin for i in range(1, count)), n]
        nearest, _ = axis.on(n)
        cuts = torch.searchsorted(nearest, torch.tensor(edges)).tolist()
        starts = [i * step for i in range(count)]
        size = n - starts[-1]
        pairs = zip(pairwise(cuts), starts, strict=True)
        return [(slice(a, b), slice(start, start + size)) for (a, b), start in pairs if a < b]


def work(layout: Layout, where: Pixels, pixel_bytes: int) -> Work:
    """Input pixels that are encoded and output pixels that are decoded for a window."""
    rows = layout.rows(where, pixel_bytes)
    return Work(sum(tile.encoded for _, tiles in rows for _, tile in tiles), math.prod(where.size))


class Glance(NamedTuple):
    """Where one stage of a decoder looks for one position.

    Attributes:
        box: (left, top, right, bottom) in the picture's pixels; it may reach beyond the picture.
        weights: (heads, K, K), rows from top to bottom, over the box; each head's sum to 1.
    """

    box: Box
    weights: Tensor


class Tiles:
    """A picture that is encoded tile by tile as its windows ask for it. Threads may share one.

    Args:
        model: its weights must not change while this lives.
        picture: of one tile it is let go of when it has been encoded.
    """

    def __init__(self, model: Codec, picture: Picture):
        self.model, self.layout = model, Layout(model.encoder, model.decoder, (picture.height, picture.width))
        self.batch = picture.samples.shape[0]
        self._picture: Picture | None = picture
        self._kept: OrderedDict[tuple[int, ...], tuple[Any, Tensor | None]] = OrderedDict()
        self._lock = threading.Lock()
        self._busy: dict[tuple[int, ...], threading.Lock] = {}

    def decode(
        self, where: Pixels, pixel_bytes: int, progress: Progress | None = None, first: int = 0
    ) -> Iterator[Part]:
        """The window's parts, row of tiles by row of tiles, each on the model's device.

        Args:
            where: the window.
            pixel_bytes: as in ``Layout.rows``.
            progress: called with the share of the whole window's work done.
            first: row of the window with which a band begins: the bands before it are left out.
        """
        rows = self.layout.rows(where, pixel_bytes)
        pace = Pace(self.model, where, self.layout.size, work(self.layout, where, pixel_bytes), progress)
        keep = sum(len(tiles) for _, tiles in rows) <= KEPT_TILES
        for band, tiles in rows:
            if band.stop <= first:
                pace.skip(Work(sum(t.encoded for _, t in tiles), (band.stop - band.start) * where.size[1]))
                continue
            for cols, tile in tiles:
                encoded, alpha = self._encoded(tile, pace) if keep else self._encode(tile, pace)
                width = cols.stop - cols.start
                high = band.stop - band.start
                step = math.ceil(high / math.ceil(high * width * self.batch / CHUNK_PIXELS))  # equal parts
                for top in range(band.start, band.stop, step):
                    part = slice(top, min(top + step, band.stop))
                    finished = part if len(tiles) == 1 else band
                    if finished.stop <= first:
                        pace.skip(Work(0, (part.stop - part.start) * width))
                        continue
                    inside = Pixels(
                        where.rows.part(part.start, part.stop).within(
                            self.layout.size[0], tile.rows.start, tile.rows.stop
                        ),
                        where.cols.part(cols.start, cols.stop).within(
                            self.layout.size[1], tile.cols.start, tile.cols.stop
                        ),
                    )
                    with pace.decoding(math.prod(inside.size)) as told:
                        colors = self.model.decode(encoded, inside, progress=told)
                    yield Part(
                        finished, part, cols, colors.unflatten(1, inside.size),
                        None if alpha is None else enlarge_alpha(alpha, inside).permute(0, 2, 3, 1),
                    )  # fmt: skip
                del encoded  # before the next one is made

    def attention(self, x: float, y: float, where: Pixels) -> list[Glance]:
        """``View.attention`` at the scale of the whole picture ``where``."""
        model, size = self.model, self.layout.size
        decoder: Any = model.decoder  # one that has ``attention``
        left, top = min(int(x), size[1] - 1), min(int(y), size[0] - 1)
        pixel = Pixels.window(*size, (left, top, left + 1, top + 1), 1)
        ((_, ((_, tile),)),) = self.layout.rows(pixel, 1)
        encoded, _ = self._encoded(tile, Pace(model, pixel, size, Work(tile.encoded, 1), None))
        spans = (tile.rows, tile.cols)
        parts = [
            axis.within(n, span.start, span.stop) for axis, n, span in zip(where, size, spans, strict=True)
        ]
        corner = torch.tensor([span.start for span in spans])
        sides = torch.tensor([span.stop - span.start for span in spans])
        maps = decoder.plan(*sides.tolist(), Pixels(*parts))
        coords = 2 * (torch.tensor([[[y, x]]], dtype=torch.float64) - corner) / sides - 1
        cell = torch.tensor([[part.cell(1) for part in parts]], dtype=torch.float64)
        around = Coords(coords.to(model.device), cell.to(model.device), tuple(maps))
        found = []
        for one, weights in zip(maps, decoder.attention(encoded.prepared, around), strict=True):
            # the weights lie around the nearest feature pixel, which the position may be half a pixel off
            side = sides / torch.tensor(one)
            centre = (around.on(one).index[0, 0].cpu() + 0.5) * side + corner
            reach = weights.shape[-1] / 2 * side
            first, last = (centre - reach).tolist(), (centre + reach).tolist()
            found.append(Glance((first[1], first[0], last[1], last[0]), weights[0, 0].cpu()))
        return found

    @property
    def nbytes(self) -> int:
        """Bytes of the encoded tiles that are held."""
        with self._lock:
            leaves = tree_leaves(list(self._kept.values()))
        return sum(leaf.nbytes for leaf in leaves if isinstance(leaf, Tensor))

    def _encoded(self, tile: Tile, pace: Pace) -> tuple[Any, Tensor | None]:
        """A tile encoded, and kept for the next window."""
        with self._lock:
            busy = self._busy.setdefault(tile.key, threading.Lock())
        with busy:  # whoever wants the same tile waits for it
            with self._lock:
                if tile.key in self._kept:
                    self._kept.move_to_end(tile.key)
                    pace.skip(Work(tile.encoded, 0))
                    return self._kept[tile.key]
            found = self._encode(tile, pace)
            with self._lock:
                self._kept[tile.key] = found
                while len(self._kept) > KEPT_TILES:
                    del self._busy[self._kept.popitem(last=False)[0]]
                if self.layout.whole:
                    self._picture = None
            return found

    def _encode(self, tile: Tile, pace: Pace) -> tuple[Any, Tensor | None]:
        assert self._picture is not None
        color, alpha = self._picture.part(tile.rows, tile.cols)
        color = fill_hidden(color, alpha).to(self.model.device)
        with pace.encoding(tile.encoded):
            frame = Frame(tile.rows.start, tile.cols.start, self.layout.size)
            return self.model.encode(color, frame), alpha
