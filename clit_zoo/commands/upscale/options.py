"""Values of the options of ``clit-zoo upscale``."""

import math
import re

from PIL import ImageColor

from ...geometry import Size
from ..loading import Parsed


def _scale(text: str) -> float:
    number = float(text)
    if not (math.isfinite(number) and number >= 1):
        raise ValueError
    return number


def _found(pattern: str, text: str) -> tuple[int, int]:
    """The two whole numbers in a text."""
    match = re.fullmatch(pattern, text.strip(), re.ASCII)
    if match is None:
        raise ValueError
    return int(match[1]), int(match[2])


def _size(text: str) -> Size:
    width, height = _found(r"([1-9]\d{0,8})[xX×]([1-9]\d{0,8})", text)
    return height, width


def _shard(text: str) -> tuple[int, int]:
    part, parts = _found(r"(\d{1,9})/(\d{1,9})", text)
    return range(parts).index(part), parts


def _suffix(text: str) -> str:
    if re.search(r"[/\\\0]", text):
        raise ValueError
    return text


SCALE = Parsed("scale", "number of at least 1, such as 3.7", _scale)
WIDTH_BY_HEIGHT = Parsed("WxH", "width and height in pixels, such as 1920x1080", _size)
SHARD = Parsed("R/N", "part of a whole: of four they are 0/4 to 3/4", _shard)
COLOUR = Parsed("colour", "colour, such as white or #202020", lambda text: ImageColor.getrgb(text) and text)
SUFFIX = Parsed("text", "end of a file's name, which holds no / or \\", _suffix)
