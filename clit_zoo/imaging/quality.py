"""What a picture has been through: the quality it was compressed with, and its noise."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import IO

import numpy as np
from PIL import Image
from torch import Tensor

# ITU-T T.81, table K.1: luminance at quality 50, which libjpeg and most others scale.
_LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
NOISE_BLOCK = 8
NOISE_QUANTILE = 0.02
NOISE_WINDOW = 2048
"""Pixels on a side of the middle of a picture, where its noise is estimated."""


def jpeg_quality(image: Image.Image) -> int | None:
    """The quality from 1 to 100 at which libjpeg's luminance table is most like the file's.

    Args:
        image: opened from a file, and of any format; None where it has no quantisation tables.
    """
    tables = getattr(image, "quantization", None)
    if not tables:
        return None
    total = sum(tables[min(tables)])
    return 1 + int(np.abs(_TOTALS - total).argmin())


def _total(quality: int) -> int:
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return int(np.clip((_LUMINANCE * scale + 50) // 100, 1, 255).sum())


_TOTALS = np.array([_total(quality) for quality in range(1, 101)])


def webp_quality(file: IO[bytes]) -> int | None:
    """The quality from 0 to 100 with which libwebp would have taken the file's quantiser; None if lossless.

    Args:
        file: a WebP file; of an animation the first frame counts.
    """
    file.seek(12)  # RIFF, size, WEBP
    while len(head := file.read(8)) == 8:
        kind, size = head[:4], struct.unpack("<I", head[4:])[0]
        if kind == b"VP8 ":
            return _vp8_quality(file.read(min(size, 256)))
        if kind == b"VP8L":
            return None
        file.seek(16 if kind == b"ANMF" else size + size % 2, 1)  # a frame's chunks follow its own header
    return None


def middle(height: int, width: int) -> tuple[slice, slice]:
    """The part of a picture whose noise is estimated."""
    top, left = (max(0, (side - NOISE_WINDOW) // 2) for side in (height, width))
    return slice(top, top + NOISE_WINDOW), slice(left, left + NOISE_WINDOW)


def noise_level(color: Tensor) -> float:
    """The noise of luminance where a picture is calmest, in levels of 255.

    Immerkær, "Fast noise variance estimation", 1996, in blocks of 8x8 pixels; that of the calmest fiftieth is
    free of texture. It reads a little low: noise of 4 and 8 levels in luminance reads 3 and 6.

    Args:
        color: (B, 3, h, w) in [0, 1]. Pictures too small for a block have no noise.
    """
    window = color[(..., *middle(*color.shape[-2:]))].float().cpu()
    luminance = (window * window.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(-3).numpy() * 255
    second = luminance[:, :-2] - 2 * luminance[:, 1:-1] + luminance[:, 2:]
    response = np.abs(second[..., :-2] - 2 * second[..., 1:-1] + second[..., 2:])
    rows, columns = (n // NOISE_BLOCK for n in response.shape[1:])
    if not rows * columns:
        return 0.0
    response = response[:, : rows * NOISE_BLOCK, : columns * NOISE_BLOCK]
    blocks = response.reshape(-1, rows, NOISE_BLOCK, columns, NOISE_BLOCK).mean((2, 4))
    return float(np.quantile(blocks, NOISE_QUANTILE) * np.sqrt(np.pi / 2) / 6)


def _vp8_quality(frame: bytes) -> int | None:
    """From the quantiser indices in a key frame's header (RFC 6386, section 19.2)."""
    if len(frame) < 16 or frame[3:6] != b"\x9d\x01\x2a":
        return None
    bits = _flat_bits(frame[10:])

    def number(count: int) -> int:
        value = 0
        for _ in range(count):
            value = 2 * value + next(bits)
        return value

    def optional(count: int) -> int:
        """A number with a sign, or 0 where it is left out."""
        if not next(bits):
            return 0
        value = number(count)
        return -value if next(bits) else value

    number(2)  # colour space, clamping
    segments: list[int] = []
    absolute = 0
    if next(bits):  # segments
        new_map, new_data = next(bits), next(bits)
        if new_data:
            absolute = next(bits)
            segments = [optional(7) for _ in range(4)]
            for _ in range(4):  # loop filter
                optional(6)
        if new_map:
            for _ in range(3):
                if next(bits):
                    number(8)
    number(10)  # loop filter: type, level, sharpness
    if next(bits) and next(bits):
        for _ in range(8):
            optional(6)
    number(2)  # partitions
    index = float(number(7))
    if segments:
        index = sum(segments) / 4 + (0 if absolute else index)
    compression = (1 - np.clip(index, 0, 127) / 127) ** 3  # libwebp's, from its quality
    return round(100 * (1.5 * compression if compression < 0.5 else (1 + compression) / 2))


def _flat_bits(data: bytes) -> Iterator[int]:
    """The bits of an arithmetic code whose bits are all as likely 0 as 1 (RFC 6386, section 7)."""
    source = iter(data)
    value, span, shifted = next(source, 0) << 8 | next(source, 0), 255, 0
    while True:
        split = 1 + ((span - 1) * 128 >> 8)
        bit = int(value >= split << 8)
        value, span = (value - (split << 8), span - split) if bit else (value, split)
        while span < 128:
            value, span, shifted = value << 1, span << 1, shifted + 1
            if shifted == 8:
                value, shifted = value | next(source, 0), 0
        yield bit
