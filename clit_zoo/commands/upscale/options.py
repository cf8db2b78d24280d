"""Values of the options of ``clit-zoo upscale``."""

import math
import re
from typing import Any

import click
from PIL import ImageColor

from ...geometry import Size


class Scale(click.ParamType):
    """A finite number of at least 1, such as 3.7."""

    name = "scale"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not (math.isfinite(number) and number >= 1):
            self.fail(f"{value!r} is no number of at least 1, such as 3.7.", param, ctx)
        return number


class WidthByHeight(click.ParamType):
    """Width and height in pixels, such as 1920x1080, as a size (h, w)."""

    name = "WxH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Size:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"([1-9]\d{0,8})[xX×]([1-9]\d{0,8})", value.strip())
        if match is None:
            self.fail(f"{value!r} is no width and height in pixels, such as 1920x1080.", param, ctx)
        return int(match[2]), int(match[1])


class Shard(click.ParamType):
    """One of N parts, counted from 0 as ranks are, such as 0/4."""

    name = "R/N"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", value.strip(), re.ASCII)
        if match is None or int(match[1]) >= int(match[2]):
            self.fail(f"{value!r} is no part of a whole: of four they are 0/4 to 3/4.", param, ctx)
        return int(match[1]), int(match[2])


class Colour(click.ParamType):
    """A colour as CSS names it."""

    name = "colour"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            ImageColor.getrgb(value)
        except ValueError:
            self.fail(f"{value!r} is no colour, such as white or #202020.", param, ctx)
        return value
