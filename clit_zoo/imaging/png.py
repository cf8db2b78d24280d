"""16-bit PNG (W3C PNG, third edition), which Pillow cuts to 8 bits; and a PNG's header without its pixels."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
_METRES_PER_INCH = 0.0254

# Adam7: first row, first column, row step, column step of each pass.
_PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))

# Rows unfiltered together: more make fewer but heavier steps.
_BLOCK = 256


@dataclass(frozen=True)
class PngHeader:
    width: int
    height: int
    depth: int
    color_type: int
    interlaced: bool

    @property
    def channels(self) -> int:
        return _CHANNELS[self.color_type]


class PngError(ValueError):
    """The file breaks the PNG format."""


def parse_header(head: bytes) -> PngHeader | None:
    """The header from a file's first 33 bytes, or None if it is no PNG."""
    if not head.startswith(SIGNATURE):
        return None
    if len(head) < 33 or head[12:16] != b"IHDR":
        raise PngError("the PNG header is missing or cut off")
    width, height, depth, color_type, _, _, interlace = struct.unpack(">IIBBBBB", head[16:29])
    if color_type not in _CHANNELS or not width or not height or interlace > 1:
        raise PngError("the PNG header holds impossible values")
    return PngHeader(width, height, depth, color_type, bool(interlace))


def skim(file: IO[bytes]) -> dict[bytes, bytes]:
    """The small chunks that matter before decoding (tRNS, eXIf, acTL), pixels skipped unread."""
    file.seek(len(SIGNATURE))
    found = {}
    while len(head := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        if name == b"IEND":
            break
        if name in (b"tRNS", b"eXIf", b"acTL"):
            found[name] = file.read(length)
            length = 0
        file.seek(length + 4, 1)
    return found


def read_png(file: IO[bytes]) -> tuple[np.ndarray, dict[bytes, bytes]]:
    """(h, w, c) uint16 samples of a 16-bit PNG, transparency included, and its ancillary chunks.

    Raises PngError for a damaged file; never holds more than the header promises.
    """
    file.seek(0)
    header = parse_header(file.read(33))
    if header is None or header.depth != 16:
        raise PngError("not a 16-bit PNG")
    file.seek(len(SIGNATURE))
    shapes = _pass_shapes(header)
    expected = sum(h * (1 + 2 * w * header.channels) for h, w in shapes)
    inflate, raw, chunks, ended = zlib.decompressobj(), bytearray(), {}, False
    for name, data in _chunks(file):
        if name == b"IDAT":
            try:
                raw += inflate.decompress(data, expected - len(raw)) if len(raw) < expected else b""
            except zlib.error as error:
                raise PngError(f"its compressed pixels are damaged ({error})") from error
        elif name == b"IEND":
            ended = True
        elif name not in chunks:
            chunks[name] = data
    if len(raw) < expected:
        raise PngError("it ends before its last pixel" + ("" if ended else " (the file is truncated)"))
    samples = _deinterlaced(raw, header, shapes)
    key = chunks.get(b"tRNS")
    if key is not None and header.color_type in (0, 2) and len(key) == 2 * header.channels:
        hidden = (samples == np.frombuffer(key, ">u2").astype(np.uint16)).all(axis=-1, keepdims=True)
        samples = np.concatenate([samples, np.where(hidden, 0, 65535).astype(np.uint16)], axis=-1)
    return samples, chunks


def icc_of(chunks: dict[bytes, bytes]) -> bytes | None:
    """The colour profile of an iCCP chunk."""
    _, _, packed = chunks.get(b"iCCP", b"").partition(b"\0")
    try:
        return zlib.decompressobj().decompress(packed[1:], 2**24) if packed else None
    except zlib.error:
        return None


def dpi_of(chunks: dict[bytes, bytes]) -> tuple[float, float] | None:
    """Pixels per inch of a pHYs chunk in metres."""
    physical = chunks.get(b"pHYs", b"")
    if len(physical) != 9 or physical[8] != 1:
        return None
    x, y = struct.unpack(">II", physical[:8])
    return x * _METRES_PER_INCH, y * _METRES_PER_INCH


def write_png(
    file: IO[bytes],
    samples: np.ndarray,
    *,
    icc: bytes | None = None,
    exif: bytes | None = None,
    dpi: tuple[float, float] | None = None,
) -> None:
    """Write (h, w, c) uint16 samples as a non-interlaced 16-bit PNG, c = 1 to 4."""
    height, width, channels = samples.shape
    color_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    file.write(SIGNATURE)
    _write_chunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0))
    if icc is not None:
        _write_chunk(file, b"iCCP", b"ICC Profile\0\0" + zlib.compress(icc))
    if dpi is not None:
        x, y = (round(value / _METRES_PER_INCH) for value in dpi)
        _write_chunk(file, b"pHYs", struct.pack(">IIB", x, y, 1))
    if exif is not None:
        _write_chunk(file, b"eXIf", exif.removeprefix(b"Exif\0\0"))
    deflate = zlib.compressobj(6)
    above = np.zeros((1, width, 2 * channels), np.uint8)
    step = max(1, 2**20 // width)
    for top in range(0, height, step):
        rows = samples[top : top + step].astype(">u2").view(np.uint8).reshape(-1, width, 2 * channels)
        packed = deflate.compress(_filtered(rows, above))
        above = rows[-1:]
        if packed:
            _write_chunk(file, b"IDAT", packed)
    _write_chunk(file, b"IDAT", deflate.flush())
    _write_chunk(file, b"IEND", b"")


def _chunks(file: IO[bytes]) -> Iterator[tuple[bytes, bytes]]:
    while len(head := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        data, check = file.read(length), file.read(4)
        if len(data) < length or len(check) < 4:
            if name == b"IDAT":  # let the reader say how much of the picture is missing
                yield name, data
            return
        if zlib.crc32(name + data) != struct.unpack(">I", check)[0]:
            raise PngError(f"the checksum of its {name.decode('latin-1')} chunk is wrong")
        yield name, data
        if name == b"IEND":
            return


def _write_chunk(file: IO[bytes], name: bytes, data: bytes) -> None:
    file.write(struct.pack(">I", len(data)) + name)
    file.write(data)
    file.write(struct.pack(">I", zlib.crc32(data, zlib.crc32(name))))


def _pass_shapes(header: PngHeader) -> list[tuple[int, int]]:
    """Rows and columns of the picture, or of each Adam7 pass; (0, 0) for a pass without pixels."""
    if not header.interlaced:
        return [(header.height, header.width)]
    shapes = [(-((y - header.height) // dy), -((x - header.width) // dx)) for y, x, dy, dx in _PASSES]
    return [shape if min(shape) > 0 else (0, 0) for shape in shapes]


def _deinterlaced(raw: bytearray, header: PngHeader, shapes: list[tuple[int, int]]) -> np.ndarray:
    if not header.interlaced:
        return _unfiltered(raw, 0, *shapes[0], header.channels)
    samples = np.empty((header.height, header.width, header.channels), np.uint16)
    offset = 0
    for (height, width), (y, x, dy, dx) in zip(shapes, _PASSES):
        if height:
            samples[y::dy, x::dx] = _unfiltered(raw, offset, height, width, header.channels)
            offset += height * (1 + 2 * width * header.channels)
    return samples


def _unfiltered(raw: bytearray, offset: int, height: int, width: int, channels: int) -> np.ndarray:
    """Undo the row filters of one (sub)picture at `offset` in the inflated stream: (h, w, c) uint16."""
    step = 2 * channels  # the filters work on bytes, and their left neighbour is one pixel back
    stride = 1 + width * step
    lines = np.frombuffer(raw, np.uint8, height * stride, offset).reshape(height, stride)
    filters, data = lines[:, 0], lines[:, 1:].reshape(height, width, step)
    if filters.max() > 4:
        raise PngError("a row names a filter that does not exist")
    out = np.empty((height, width, step), np.uint8)
    above = np.zeros((width, step), np.uint8)
    for top in range(0, height, _BLOCK):
        rows = slice(top, min(top + _BLOCK, height))
        out[rows] = _unfiltered_block(data[rows], filters[rows], above)
        above = out[rows.stop - 1]
    return out.reshape(height, width * step).view(">u2").reshape(height, width, channels).astype(np.uint16)


def _unfiltered_block(data: np.ndarray, filters: np.ndarray, above: np.ndarray) -> np.ndarray:
    """Rows (n, w, step) below the finished row `above`, unfiltered.

    A pixel needs its left, upper and upper-left neighbours, so all pixels of one antidiagonal can be done at
    once: row r is skewed to start at time r + 1, and then these neighbours lie one, one and two times back.
    """
    n, width, step = data.shape
    if not (filters > 2).any() and not (filters == 1).any():
        return _unfiltered_up(data, filters, above)
    skewed = np.zeros((width + n + 1, n + 1, step), np.int16)
    skewed[:width, 0] = above
    for r in range(n):
        skewed[r + 1 : r + 1 + width, r + 1] = data[r]
    kind = filters.astype(np.int16)[:, None]
    is_left, is_up, is_mean, is_paeth = (np.where(kind == k, -1, 0).astype(np.int16) for k in (1, 2, 3, 4))
    for time in range(1, width + n):
        first, last = max(1, time - width + 1), min(n, time)
        rows, uppers = slice(first, last + 1), slice(first - 1, last)
        a, b, c = skewed[time - 1, rows], skewed[time - 1, uppers], skewed[time - 2, uppers]
        pa, pb = b - c, a - c
        pc = np.abs(pa + pb)
        pa, pb = np.abs(pa), np.abs(pb)
        paeth = np.where((pa <= pb) & (pa <= pc), a, np.where(pb <= pc, b, c))
        mask = slice(first - 1, last)
        guess = (
            (a & is_left[mask])
            | (b & is_up[mask])
            | ((a + b) >> 1 & is_mean[mask])
            | (paeth & is_paeth[mask])
        )
        here = skewed[time, rows]
        here += guess
        here &= 255
    out = np.empty((n, width, step), np.uint8)
    for r in range(n):
        out[r] = skewed[r + 1 : r + 1 + width, r + 1]
    return out


def _unfiltered_up(data: np.ndarray, filters: np.ndarray, above: np.ndarray) -> np.ndarray:
    """`_unfiltered_block` for rows that use only the filters None and Up."""
    out = data.copy()
    for r in range(len(out)):
        if filters[r] == 2:
            out[r] += above
        above = out[r]
    return out


def _filtered(rows: np.ndarray, above: np.ndarray) -> bytes:
    """Filter bytes and filtered rows (n, w, step), each row by Up, Sub or Paeth, whichever leaves least."""
    up = np.concatenate([above, rows[:-1]]).astype(np.int16)
    here = rows.astype(np.int16)
    left, corner = np.zeros_like(here), np.zeros_like(here)
    left[:, 1:], corner[:, 1:] = here[:, :-1], up[:, :-1]
    pa, pb = np.abs(up - corner), np.abs(left - corner)
    pc = np.abs(left + up - 2 * corner)
    paeth = np.where((pa <= pb) & (pa <= pc), left, np.where(pb <= pc, up, corner))
    n = len(rows)
    tries = np.stack([(here - guess).astype(np.uint8).reshape(n, -1) for guess in (left, up, paeth)])
    best = np.abs(tries.view(np.int8).astype(np.int16)).sum(axis=-1, dtype=np.int64).argmin(axis=0)
    filters = np.array([1, 2, 4], np.uint8)[best]
    return np.concatenate([filters[:, None], tries[best, np.arange(n)]], axis=1).tobytes()
