"""Positions along one axis, in whole numbers: what makes a part of a picture have the whole's positions."""

import math
from fractions import Fraction
from typing import NamedTuple

import torch
from torch import Tensor

GRID_STEPS = 1e-4
"""A window whose edges lie within this part of an output pixel of the whole picture's pixels shares them."""

MOST_GROWN = 64.0
"""Largest scale at which a window grows to whole feature pixels: beyond, that costs more than the window."""

FRACTION_STEPS = 1 << 16
"""Other edges are rounded to fractions of at most this denominator: 1e-5 of an input pixel at worst."""


class Axis(NamedTuple):
    """Output pixels along one axis, in whole numbers, so that nothing is rounded before it meets a map.

    Attributes:
        start, step, unit: pixel i spans [start + i * step, start + (i + 1) * step] / unit of the picture's
            side. All ``unit`` pixels of the whole picture are (0, 1, unit, unit).
        size: number of pixels.
    """

    start: int
    step: int
    unit: int
    size: int

    @classmethod
    def whole(cls, m: int) -> "Axis":
        """All m pixels of an output."""
        return cls(0, 1, m, m)

    @classmethod
    def between(
        cls, n: int, low: float, high: float, *, whole: int | None = None, size: int | None = None
    ) -> "Axis":
        """Output pixels between two edges, in pixels of the n-pixel input.

        Args:
            n: pixels of the input.
            low, high: the edges, 0 <= low < high <= n.
            whole: pixels of the whole output whose pixels to take: those nearest to the edges.
            size: or so many pixels, from edge to edge.
        """
        if whole is not None:
            start, stop = round(low * whole / n), round(high * whole / n)
            start = min(start, whole - 1)
            return cls.whole(whole).part(start, max(stop, start + 1))
        assert size is not None
        # the edges of a grid of m pixels over the whole picture, where there is one that fits
        m = round(n * size / (high - low))
        start = round(low * m / n)
        if max(abs(low * m / n - start), abs(high * m / n - (start + size))) < GRID_STEPS:
            return cls.whole(m).part(start, start + size)
        first, last = (Fraction(edge).limit_denominator(FRACTION_STEPS) / n for edge in (low, high))
        step = (last - first) / size
        unit = math.lcm(first.denominator, step.denominator)
        return cls(int(first * unit), int(step * unit), unit, size)

    def part(self, start: int, stop: int) -> "Axis":
        """Pixels [start, stop)."""
        return self._replace(start=self.start + start * self.step, size=stop - start)

    def within(self, n: int, low: int, high: int) -> "Axis":
        """The same positions for whom pixels [low, high) of the n-pixel input are the whole picture."""
        start, step, unit = self.start * n - low * self.unit, self.step * n, self.unit * (high - low)
        divisor = math.gcd(start, step, unit)
        return Axis(start // divisor, step // divisor, unit // divisor, self.size)

    def grown(self, least: int, *maps: int) -> tuple["Axis", int]:
        """This axis with pixels added on both sides, and how many before it, for sums in the whole's order.

        There are at least ``least`` pixels. Where maps are named, they lie on at least 3 pixels of the first,
        and all that are nearest to one pixel of a map are there, up to a scale of ``MOST_GROWN``. Products of
        matrices of few rows are summed in another order than those of more (measured: MKL, 1 to 8 rows a
        thread), and exponentials at the end of a row of numbers are rounded otherwise (measured: AVX-512), so
        fewer pixels would not have the bits of the whole.
        """
        if self.start == 0 and self.size == self.unit:
            return self, 0
        low, high = -(self.start // self.step), (self.unit - self.start) // self.step
        if maps and self.scale(maps[0]) > MOST_GROWN:
            maps = ()
        wanted = max([least, *(math.ceil(2 * self.scale(n)) + 1 for n in maps[:1])])
        more = max(wanted - self.size, 0)
        start, stop = max(-(more // 2), low), self.size
        stop = min(stop + more + start, high)
        start = max(min(start, stop - self.size - more), low)
        while start > low and any(self.nearest(start - 1, n) == self.nearest(start, n) for n in maps):
            start -= 1
        while stop < high and any(self.nearest(stop - 1, n) == self.nearest(stop, n) for n in maps):
            stop += 1
        return self.part(start, stop), -start

    def scale(self, n: int) -> float:
        """Output pixels for each of the n pixels of the whole side."""
        return self.unit / (self.step * n)

    def phases(self, n: int) -> int:
        """How many positions relative to the pixels of an n-pixel map the whole picture's pixels have."""
        return int(self.unit) // math.gcd(int(self.step * n), int(self.unit))

    def cell(self, n: int) -> float:
        """Size of an output pixel in half pixels of an n-pixel map."""
        return 2 * n * self.step / self.unit

    def on(self, n: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
        """Nearest pixel (size,) int64 on an n-pixel map and offset (size,) float32 from it, in pixels.

        Half-way positions go to the even pixel, as grid_sample's 'nearest' does. A position's numerator is a
        whole number below 2**53, so a tie is exactly a tie, and a part of an axis has the positions it has in
        the whole.
        """
        i = torch.arange(self.size, dtype=torch.float64)
        start: float = self.start
        step: float = self.step
        unit = self.unit
        if isinstance(unit, int) and unit > 1 << 52:  # of edges that are on nobody's grid
            start, step, unit = start / unit, step / unit, 1
        position = ((2 * start + (2 * i + 1) * step) * n - unit) / (2 * unit)
        index = position.round()
        return index.long().to(device), (position - index).float().to(device)

    def on_map(self, start: int, stop: int, n: int) -> tuple[int, int]:
        """First and last pixel of an n-pixel map that pixels [start, stop) are nearest to."""
        if self.start == 0 and self.step == 1 and start == 0 and stop == self.unit:
            return 0, n - 1
        return self.nearest(start, n), self.nearest(stop - 1, n)

    def nearest(self, i: int, n: int) -> int:
        """``on``'s index of pixel i, in whole numbers: tracing needs no tensor's value."""
        position = (2 * self.start + (2 * i + 1) * self.step) * n - self.unit
        index, rest = position // (2 * self.unit), position % (2 * self.unit)  # a symbolic size has no divmod
        return index + (rest > self.unit or (rest == self.unit and index % 2 == 1))
