"""IIIF Image API 3.0, level 2 (https://iiif.io/api/image/3.0): what an address asks for, and info.json.

The picture of an address is a canvas: the input's own pixels, or the input at a scale. Its identifier is then
followed by @ and the scale, ``0f3a@3.7``, and programs that never ask for more pixels than a picture has see
the larger one.
"""

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ..geometry import MAX_SCALE, Box, Size
from .refusal import Refusal

TILE = 256
"""Side of the tiles that info.json names, in pixels."""

MAX_SIDE, MAX_AREA = 16383, 1 << 24
"""Of an answer, in pixels; the first is WebP's."""

FORMATS = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp", "tif": "image/tiff"}
QUALITIES = ("default", "color", "gray", "bitonal")
CONTEXT = "http://iiif.io/api/image/3/context.json"
PROFILE_LINK = '<http://iiif.io/api/image/3/level2.json>;rel="profile"'


class Ask(NamedTuple):
    """What an address asks of a canvas.

    Attributes:
        region: in the canvas' pixels.
        size: (height, width) of the region in the answer, before it is turned.
        mirrored, turns: the answer is mirrored left to right, then turned clockwise by so many quarters.
        quality, format: of ``QUALITIES`` and ``FORMATS``.
    """

    region: Box
    size: Size
    mirrored: bool
    turns: int
    quality: str
    format: str


def identifier(text: str) -> tuple[str, float]:
    """A picture's identifier and its canvas' scale.

    Raises:
        Refusal: it is none.
    """
    found = re.fullmatch(r"([0-9a-f]{1,64})(?:@([0-9]{1,4}(?:\.[0-9]{1,12})?))?", text)
    if found is None:
        raise Refusal(404, "there is no such picture")
    scale = float(found[2] or 1)
    if not 0 < scale <= MAX_SCALE:
        raise Refusal(404, f"a scale lies between 0 and {MAX_SCALE:g}")
    return found[1], scale


def canvas_size(size: Size, scale: float) -> Size:
    """(H, W) of an (h, w) picture at a scale."""
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def parse(parts: Sequence[str], canvas: Size, scale: float = 1.0) -> Ask:
    """What the last four parts of an address ask of a canvas: region, size, rotation, quality and format.

    Args:
        parts: of the address.
        canvas: (H, W) in pixels.
        scale: of the canvas: what it is enlarged already counts towards ``MAX_SCALE``.

    Raises:
        Refusal: they are not what the standard allows, or ask for more than is offered.
    """
    region, size, rotation, file = parts
    quality, _, form = file.rpartition(".")
    if quality not in QUALITIES:
        raise Refusal(400, f"the qualities are {', '.join(QUALITIES)}")
    if form not in FORMATS:
        raise Refusal(400, f"the formats are {', '.join(FORMATS)}")
    turned = re.fullmatch(r"(!?)([0-9]{1,3}(?:\.[0-9]{1,12})?)", rotation)
    if turned is None or float(turned[2]) > 360:
        raise Refusal(400, "a rotation is a number from 0 to 360, after ! to mirror")
    if float(turned[2]) % 90:
        raise Refusal(501, "rotations are offered by 0, 90, 180 and 270 degrees")
    box = _region(region, canvas)
    return Ask(
        box,
        _size(size, box, MAX_SCALE / scale),
        bool(turned[1]),
        int(float(turned[2])) // 90 % 4,
        quality,
        form,
    )


def info(address: str, canvas: Size) -> dict[str, Any]:
    """The info.json of a canvas at an address."""
    height, width = canvas
    levels = 1 + max(0, math.ceil(math.log2(max(canvas) / TILE)))
    halves = [tuple(math.ceil(side / 2**i) for side in canvas) for i in range(levels)]
    return {
        "@context": CONTEXT,
        "id": address,
        "type": "ImageService3",
        "protocol": "http://iiif.io/api/image",
        "profile": "level2",
        "width": width,
        "height": height,
        "maxWidth": MAX_SIDE,
        "maxHeight": MAX_SIDE,
        "maxArea": MAX_AREA,
        "sizes": [{"width": w, "height": h} for h, w in reversed(halves) if _offered((h, w))],
        "tiles": [{"width": TILE, "height": TILE, "scaleFactors": [2**i for i in range(levels)]}],
        "preferredFormats": ["png"],
        "extraFormats": ["webp", "tif"],
        "extraQualities": ["color", "gray", "bitonal"],
        "extraFeatures": ["mirroring", "profileLinkHeader", "sizeUpscaling"],
    }


def tiles(canvas: Size) -> Iterator[str]:
    """The addresses that a static copy of a canvas needs: ``full/max`` and all that info.json names."""
    height, width = canvas
    offered = info("", canvas)
    for factor in offered["tiles"][0]["scaleFactors"]:
        side = TILE * factor
        for top in range(0, height, side):
            for left in range(0, width, side):
                w, h = min(side, width - left), min(side, height - top)
                region = "full" if (w, h) == (width, height) else f"{left},{top},{w},{h}"
                yield f"{region}/{math.ceil(w / factor)},{math.ceil(h / factor)}/0/default"
    for size in offered["sizes"]:
        if max(size.values()) > TILE:
            yield f"full/{size['width']},{size['height']}/0/default"
    yield "full/max/0/default"


def _region(text: str, canvas: Size) -> Box:
    height, width = canvas
    if text == "full":
        return 0, 0, width, height
    if text == "square":
        side = min(canvas)
        left, top = (width - side) // 2, (height - side) // 2
        return left, top, left + side, top + side
    number = r"([0-9]{1,9}(?:\.[0-9]{1,20})?)" if text.startswith("pct:") else r"([0-9]{1,9})"
    found = re.fullmatch(",".join([number] * 4), text.removeprefix("pct:"))
    if found is None:
        raise Refusal(400, "a region is full, square, x,y,w,h in pixels or pct:x,y,w,h")
    x, y, w, h = (float(n) if text.startswith("pct:") else int(n) for n in found.groups())
    if text.startswith("pct:"):
        x, y, w, h = x * width / 100, y * height / 100, w * width / 100, h * height / 100
    if not (w > 0 and h > 0 and x < width and y < height):
        raise Refusal(400, f"the region is empty or lies beyond the {width}x{height} picture")
    return x, y, min(x + w, width), min(y + h, height)


def _size(text: str, box: Box, most: float) -> Size:
    wide, high = box[2] - box[0], box[3] - box[1]
    larger, asked = text.startswith("^"), text.removeprefix("^")
    # a region in percent has a fraction of a pixel at its end
    most_wide, most_high = max(1, math.ceil(wide - 1e-6)), max(1, math.ceil(high - 1e-6))
    fits = min(MAX_SIDE / wide, MAX_SIDE / high, math.sqrt(MAX_AREA / (wide * high)), most)
    if asked == "max":
        factor = fits if larger else min(1.0, fits)
        return _rounded(high * factor, wide * factor, down=factor == fits)
    if found := re.fullmatch(r"pct:([0-9]{1,9}(?:\.[0-9]{1,20})?)", asked):
        size = _rounded(*(side * float(found[1]) / 100 for side in (high, wide)))
        if float(found[1]) == 0:
            raise Refusal(400, "the size is zero")
    elif found := re.fullmatch(r"!([0-9]{1,9}),([0-9]{1,9})", asked):
        factor = min(int(found[1]) / wide, int(found[2]) / high, fits)
        size = (
            _rounded(high * factor, wide * factor, down=factor == fits)
            if larger or factor < 1
            else (most_high, most_wide)
        )
        size = min(size[0], int(found[2])), min(size[1], int(found[1]))
    elif found := re.fullmatch(r"([0-9]{1,9}),([0-9]{1,9})", asked):
        size = int(found[2]), int(found[1])
    elif found := re.fullmatch(r"([0-9]{1,9}),", asked):
        size = _rounded(high * int(found[1]) / wide, 0)[0], int(found[1])
    elif found := re.fullmatch(r",([0-9]{1,9})", asked):
        size = int(found[1]), _rounded(0, wide * int(found[1]) / high)[1]
    else:
        raise Refusal(400, "a size is max, pct:n, w,h or w, or ,h or !w,h, after ^ where it is larger")
    if min(size) < 1:
        raise Refusal(400, "the size is zero")
    if not larger and (size[0] > most_high or size[1] > most_wide):
        raise Refusal(400, f"the size is larger than the region: ask for ^{asked}")
    if not _offered(size):
        raise Refusal(400, f"an answer has at most {MAX_SIDE} pixels a side and {MAX_AREA} in all")
    if larger and max(size[1] / wide, size[0] / high) > most * (1 + 1e-6):  # of a rounded region
        raise Refusal(400, f"that is more than {MAX_SCALE:g} times the picture")
    return size


def _offered(size: Size) -> bool:
    return max(size) <= MAX_SIDE and math.prod(size) <= MAX_AREA


def _rounded(height: float, width: float, *, down: bool = False) -> Size:
    whole = math.floor if down else round
    return max(1, whole(height)), max(1, whole(width))
