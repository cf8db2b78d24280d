"""Pictures of text and lines, made up: what screenshots, scans of print and diagrams are made of.

Photographs hold little of these, and a model that has seen photographs alone makes gray text black and thin.
"""

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

Color = tuple[int, int, int]

_FOLDERS = {
    "linux": ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts"),
    "darwin": ("/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts"),
    "win32": (os.path.join(os.environ.get("WINDIR", r"C:\Windows"), "Fonts"),),
}
_LETTERS = "eeeetttaaaoooiiinnnsssrrrhhhllldddcccuuummmffpppggwwyybbvvkkxjqz"
_SIGNS = "0123456789.,:;-+()/%&?!=<>[]{}@#$*_\"'|\\"


@functools.cache
def fonts() -> tuple[str | None, ...]:
    """Files of this machine's fonts with Latin letters, by name; Pillow's own font, None, comes first."""
    found: list[str | None] = [None]
    for folder in _FOLDERS.get(sys.platform, ()):
        files = sorted(Path(folder).expanduser().rglob("*"))
        found += [str(f) for f in files if f.suffix.lower() in (".ttf", ".otf", ".ttc") and _has_letters(f)]
    return tuple(found)


def drawing(side: int, pixel: float, rng: np.random.Generator) -> Tensor:
    """A drawing (3, side, side) uint8.

    Args:
        side: in pixels.
        pixel: how many of them the pixel of a low-resolution picture will span: text and lines have the sizes
            that they have on a screen with such pixels.
        rng: what it depends on, beside the fonts there are.
    """
    fine = int(rng.integers(1, 3))  # drawn so much larger: slanted edges are smooth at 2, and stairs at 1
    canvas = _Canvas(side * fine, pixel * fine, rng)
    for _ in range(int(rng.integers(2, 6))):
        rng.choice(np.array(_PARTS, dtype=object), p=_SHARES)(canvas)
    image = canvas.image.reduce(fine) if fine > 1 else canvas.image
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


class _Canvas:
    """A square picture being drawn on; lengths are in pixels of ``unit`` of its own."""

    def __init__(self, side: int, unit: float, rng: np.random.Generator):
        self.rng, self.unit, self.side = rng, unit, side
        self.paper = _paper(rng)
        self.image = Image.new("RGB", (side, side), self.paper)
        self.draw = ImageDraw.Draw(self.image)
        self.width = side / unit

    def ink(self) -> Color:
        """A colour that can be read on the paper: gray or black most often, at any contrast."""
        rng = self.rng
        far = 0 if sum(self.paper) > 384 else 255
        strength = rng.uniform(0.25, 1.0) if rng.random() < 0.7 else 1.0
        base = np.full(3, far) if rng.random() < 0.65 else rng.integers(0, 256, 3)
        mixed = strength * base + (1 - strength) * np.array(self.paper)
        red, green, blue = (int(c) for c in np.rint(mixed))
        return red, green, blue

    def place(self, whole: bool | None = None) -> float:
        """A position on one axis, most often at the edge of a low-resolution pixel."""
        at = self.rng.uniform(0, self.width)
        whole = self.rng.random() < 0.7 if whole is None else whole
        return round(at) if whole else at

    def box(self, left: float, top: float, right: float, bottom: float) -> tuple[int, int, int, int]:
        """The same in this picture's pixels, which ``ImageDraw`` counts with both ends."""
        x0, y0 = round(left * self.unit), round(top * self.unit)
        return x0, y0, max(x0, round(right * self.unit) - 1), max(y0, round(bottom * self.unit) - 1)

    def thickness(self) -> float:
        return float(self.rng.choice([0.5, 1, 1, 1, 1, 2, 3]))


def _lines_of_text(canvas: _Canvas) -> None:
    """Some lines of one font, at sizes as small as screens have them."""
    rng = canvas.rng
    size = float(np.exp(rng.uniform(np.log(6), np.log(28))))
    file = fonts()[int(rng.integers(len(fonts())))]
    font = _font(file, max(6, round(size * canvas.unit)))
    ink = canvas.ink()
    left, top = rng.uniform(-size, canvas.width / 2), rng.uniform(-size / 2, canvas.width * 0.8)
    step = size * rng.uniform(1.1, 1.6)
    for line in range(int(rng.integers(1, 6))):
        if rng.random() < 0.15:
            ink = canvas.ink()
        at = (left * canvas.unit, (top + line * step) * canvas.unit)
        letters = int(2.5 * canvas.width / size) + 2
        canvas.draw.text(at, _words(rng, min(letters, 80)), fill=ink, font=font)


def _straight_lines(canvas: _Canvas) -> None:
    """Level and upright lines one low-resolution pixel thick, alone or as the rules of a table."""
    rng = canvas.rng
    ink, thick = canvas.ink(), canvas.thickness()
    step = float(rng.integers(2, 13))
    count = int(rng.integers(1, 9))
    start = canvas.place()
    for i in range(count):
        at = start + i * step
        canvas.draw.rectangle(canvas.box(0, at, canvas.width, at + thick), fill=ink)
    if rng.random() < 0.5:
        start = canvas.place()
        for i in range(count):
            at = start + i * step
            canvas.draw.rectangle(canvas.box(at, 0, at + thick, canvas.width), fill=ink)


def _boxes(canvas: _Canvas) -> None:
    """Panels, buttons and frames in flat colours."""
    rng = canvas.rng
    for _ in range(int(rng.integers(1, 4))):
        left, top = canvas.place(), canvas.place()
        right, bottom = left + rng.uniform(3, canvas.width), top + rng.uniform(3, canvas.width / 2)
        box = canvas.box(left, top, right, bottom)
        fill = _paper(rng) if rng.random() < 0.6 else None
        edge = canvas.ink() if fill is None or rng.random() < 0.5 else None
        width = max(1, round(canvas.thickness() * canvas.unit))
        if rng.random() < 0.4:
            radius = rng.uniform(1, 6) * canvas.unit
            canvas.draw.rounded_rectangle(box, radius, fill=fill, outline=edge, width=width)
        else:
            canvas.draw.rectangle(box, fill=fill, outline=edge, width=width)


def _strokes(canvas: _Canvas) -> None:
    """Slanted lines, curves of a plot, and closed outlines."""
    rng = canvas.rng
    ink, width = canvas.ink(), max(1, round(canvas.thickness() * canvas.unit))
    points = int(rng.integers(2, 9))
    if rng.random() < 0.5:  # a plot: from left to right
        x = np.linspace(0, canvas.side, points)
        y = rng.uniform(0, canvas.side, points)
    else:
        x, y = rng.uniform(0, canvas.side, (2, points))
    corners = list(zip(x.tolist(), y.tolist(), strict=True))
    if points > 2 and rng.random() < 0.3:
        fill = canvas.ink() if rng.random() < 0.5 else None
        canvas.draw.polygon(corners, fill=fill, outline=ink, width=width)
    else:
        canvas.draw.line(corners, fill=ink, width=width, joint="curve")


def _rounds(canvas: _Canvas) -> None:
    """Circles, ellipses and arcs."""
    rng = canvas.rng
    for _ in range(int(rng.integers(1, 4))):
        left, top = canvas.place(), canvas.place()
        box = canvas.box(left, top, left + rng.uniform(3, 30), top + rng.uniform(3, 30))
        width = max(1, round(canvas.thickness() * canvas.unit))
        if rng.random() < 0.3:
            canvas.draw.arc(box, rng.uniform(0, 360), rng.uniform(0, 360), fill=canvas.ink(), width=width)
        else:
            fill = canvas.ink() if rng.random() < 0.5 else None
            canvas.draw.ellipse(box, fill=fill, outline=canvas.ink(), width=width)


_PARTS: tuple[Callable[[_Canvas], None], ...] = (_lines_of_text, _straight_lines, _boxes, _strokes, _rounds)
_SHARES = (0.5, 0.15, 0.15, 0.12, 0.08)


def _paper(rng: np.random.Generator) -> Color:
    """A colour for an area: white and light ones, dark ones, any."""
    chance = rng.random()
    if chance < 0.4:
        return 255, 255, 255
    low, high = (225, 256) if chance < 0.65 else (0, 60) if chance < 0.8 else (0, 256)
    red, green, blue = (int(c) for c in rng.integers(low, high, 3))
    return (red, red, red) if rng.random() < 0.3 else (red, green, blue)


def _words(rng: np.random.Generator, letters: int) -> str:
    """Made-up words with the letters of English, some with capitals, numbers and signs."""
    words: list[str] = []
    while sum(map(len, words)) < letters:
        kind, length = rng.random(), int(rng.integers(1, 10))
        alphabet = _SIGNS if kind > 0.85 else _LETTERS
        word = "".join(alphabet[int(i)] for i in rng.integers(0, len(alphabet), length))
        words.append(word.upper() if kind < 0.08 else word.capitalize() if kind < 0.25 else word)
    return " ".join(words)


@functools.lru_cache(maxsize=256)
def _font(file: str | None, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size) if file is None else ImageFont.truetype(file, size)


def _has_letters(file: Path) -> bool:
    """Whether it draws letters: fonts of signs have boxes in their place, or nothing."""
    try:
        font = ImageFont.truetype(str(file), 24)
        shapes = {bytes(font.getmask(letter)) for letter in ("a", "g", "\uffff")}
    except (OSError, ValueError):
        return False
    return len(shapes) == 3 and b"" not in shapes
