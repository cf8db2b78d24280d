"""``clit-zoo compare``: what several models make of one picture, side by side on one labelled sheet."""

from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .. import imaging
from ..errors import ClitZooError
from ..geometry import Box, Pixels
from .loading import Parsed, load
from .upscale.options import SCALE

SIDE = 240
"""Pixels along a crop's sides, about, where nobody says which crops."""

SHOWN, TRIED = 3, 16
"""Crops then on the sheet, and those of which they are the ones where the models differ most."""

GAP, LETTERS, SMALL = 12, 17, 14
"""Pixels between crops, and the heights of letters."""


def edges(text: str) -> Box:
    """Left, top, right and bottom in pixels of the input, such as 100,50,228,178."""
    left, top, right, bottom = (float(edge) for edge in text.split(","))
    return left, top, right, bottom


EDGES = Parsed("L,T,R,B", "left,top,right,bottom in pixels of the input", edges)


class Row(NamedTuple):
    """One part of the picture: where it is in the input, and uint8 (H, W, 3) by each method."""

    box: Box
    crops: dict[str, np.ndarray]

    @property
    def spread(self) -> float:
        """RMS in levels of 255 by which the models differ from their mean; of one, from bicubic and it."""
        models = [crop for name, crop in self.crops.items() if name != "bicubic"]
        compared = np.stack(models if len(models) > 1 else list(self.crops.values())).astype(np.float32)
        return float(np.sqrt(compared.var(0).mean()))


@click.command("compare")
@click.argument("picture", metavar="IN", type=click.Path(readable=False, path_type=Path))
@click.option(
    "-m", "--model", "models", multiple=True, required=True, metavar="NAME|FOLDER|REPO",
    help="May be given several times; see clit-zoo list.",
)  # fmt: skip
@click.option("-s", "--scale", type=SCALE, default=4.0, show_default=True, help="Any number from 1.")
@click.option("--box", "boxes", type=EDGES, multiple=True, help="What to show; may be given several times.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="[default: {name}_x{scale}_compared.png]",
)
@click.option("--overwrite", is_flag=True, help="Replace a sheet that exists.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps …")
@click.option("--backend", default="auto", show_default=True, help="auto, torch, triton or reference.")
def command(
    picture: Path,
    models: tuple[str, ...],
    scale: float,
    boxes: tuple[Box, ...],
    output: Path | None,
    overwrite: bool,
    device: str,
    backend: str,
) -> None:
    """Enlarge parts of the picture IN by bicubic interpolation and by each model, onto one sheet.

    Without --box these are the parts, of the busiest ones, in which the models differ most: they show what
    tells the models apart, not what is common, and not which is better on average.
    """
    output = output or picture.with_name(f"{picture.stem}_x{scale:g}_compared.png")
    imaging.output_format(output)  # refused now, and not after all has been computed
    if output.exists() and not overwrite:
        raise ClitZooError(f"{output} exists; give --overwrite or another name with -o.")
    color = imaging.flattened(imaging.read(picture), "white").color
    tried = list(boxes) or busiest(color, max(1, round(SIDE / scale)))
    crops = {"bicubic": [bicubic(color, scale, box) for box in tried]}
    for name in dict.fromkeys(models):
        view = load(name, device, None, backend).open(color[0])
        crops[name] = [_as_uint8(view.render(scale, box=box)) for box in tried]
    rows = [Row(box, {name: each[i] for name, each in crops.items()}) for i, box in enumerate(tried)]
    how = "the parts asked for"
    if not boxes:
        rows = sorted(rows, key=lambda row: row.spread, reverse=True)[:SHOWN]
        how = f"of the {len(tried)} busiest parts the {len(rows)} in which the models differ most"
    sheet = draw(rows, f"{picture.name}, {scale:g} times as large: {how}")
    imaging.write(imaging.decode(sheet), output)
    click.echo(f"{output}: {sheet.width}×{sheet.height}, {how}")


def busiest(color: Tensor, side: int) -> list[Box]:
    """Squares of the picture (1, 3, h, w) in which neighbouring pixels differ most, the busiest first.

    They do not overlap, and are as large as the picture allows, up to ``side``.
    """
    gray, (h, w) = color[0].mean(0), (color.shape[2], color.shape[3])
    change = torch.zeros_like(gray)
    change[1:] += gray.diff(dim=0).abs()
    change[:, 1:] += gray.diff(dim=1).abs()
    high, wide = min(side, h), min(side, w)
    top, left = h % high // 2, w % wide // 2
    parts = change[top:, left:].unfold(0, high, high).unfold(1, wide, wide).mean((2, 3))
    best = parts.flatten().topk(min(TRIED, parts.numel())).indices.tolist()
    places = [(top + i // parts.shape[1] * high, left + i % parts.shape[1] * wide) for i in best]
    return [(x, y, x + wide, y + high) for y, x in places]


def bicubic(color: Tensor, scale: float, box: Box) -> np.ndarray:
    """The part of the picture, enlarged as alpha is: uint8 (H, W, 3)."""
    where = Pixels.window(color.shape[2], color.shape[3], box, scale)
    return _as_uint8(imaging.enlarge_alpha(color, where)[0])


def _as_uint8(planes: Tensor) -> np.ndarray:
    return planes.clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).cpu().numpy()


def draw(rows: list[Row], title: str) -> Image.Image:
    """The sheet: a column for each method under its name, a row for each part under where it is."""
    names = list(rows[0].crops)
    font, small = ImageFont.load_default(LETTERS), ImageFont.load_default(SMALL)
    column = max(SIDE, *(row.crops["bicubic"].shape[1] for row in rows))
    line, caption = LETTERS + GAP, SMALL + GAP // 2
    width = GAP + len(names) * (column + GAP)
    heights = [caption + row.crops["bicubic"].shape[0] + GAP for row in rows]
    sheet = Image.new("RGB", (width, GAP + 2 * line + sum(heights)), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((GAP, GAP), fitting(title, font, width - 2 * GAP), "black", font)
    for i, name in enumerate(names):
        at = (GAP + i * (column + GAP), GAP + line)
        pen.text(at, fitting(name, font, column), "black", font)
    top = GAP + 2 * line
    for row, height in zip(rows, heights, strict=True):
        edges = ", ".join(f"{edge:g}" for edge in row.box)
        words = f"left, top, right, bottom {edges}; they differ by {row.spread:.1f} of 255 levels (RMS)"
        pen.text((GAP, top), fitting(words, small, width - 2 * GAP), "#555555", small)
        for i, name in enumerate(names):
            sheet.paste(Image.fromarray(row.crops[name]), (GAP + i * (column + GAP), top + caption))
        top += height
    return sheet


def fitting(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: int) -> str:
    """The text, or its end where it is too long: paths and names differ there."""
    if font.getlength(text) <= width:
        return text
    return next((end for i in range(1, len(text)) if font.getlength(end := "…" + text[i:]) <= width), "…")
