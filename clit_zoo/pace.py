"""How long an enlargement takes, and how much of it is done, by the time that its two halves take here."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from .decoders.base import Progress
from .geometry import Pixels

SAMPLE_SIDE = 96
"""Side of the input, and of two and a half times that of the output, that is timed."""

SMALL_PIXELS = 1 << 18
"""Work on fewer pixels is over before anybody reads a forecast, and nothing is timed for it."""


class Codec(Protocol):
    """What encodes and decodes: a ``SuperResolver``."""

    @property
    def device(self) -> torch.device: ...

    def encode(self, image: Tensor) -> Any: ...

    def decode(self, encoded: Any, where: Pixels, *, progress: Progress | None = None) -> Tensor: ...


class Work(NamedTuple):
    """Pixels to encode, of the input and with what lies around its tiles, and pixels to decode."""

    encoded: float
    decoded: float

    def plus(self, more: "Work") -> "Work":
        """Both together."""
        return Work(self.encoded + more.encoded, self.decoded + more.decoded)

    def seconds(self, rate: "Work") -> float:
        """The time it takes at so many seconds a pixel."""
        return self.encoded * rate.encoded + self.decoded * rate.decoded


class _Counted(TorchDispatchMode):
    """Numbers that the operations within have made: near enough a measure of a network's work."""

    def __init__(self, told: Any = None):
        super().__init__()
        self.made, self.told = 0, told

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.made += result.numel()
            if self.told is not None:
                self.told(self.made)
        return result


@torch.inference_mode()
def sample(model: Codec, where: Pixels, size: tuple[int, int]) -> tuple[Work, float]:
    """Seconds for each pixel to encode and to decode, and the numbers made for each pixel encoded.

    Args:
        model: encodes and decodes noise.
        where: a window of a picture, whose scale is taken.
        size: (h, w) of that picture.
    """
    scales = where.rows.scale(size[0]), where.cols.scale(size[1])
    side = SAMPLE_SIDE
    box = tuple(min(side, 2.5 * side / scale) for scale in scales)
    window = Pixels.window(side, side, (0, 0, box[1], box[0]), (max(1, scales[0]), max(1, scales[1])))
    image = torch.rand(1, 3, side, side).to(model.device)
    best, made = Work(float("inf"), float("inf")), 0
    for _ in range(2):  # the first time, libraries also set themselves up
        began = time.perf_counter()
        with _Counted() as counted:
            encoded = model.encode(image)
        between = time.perf_counter()
        model.decode(encoded, window).sum().item()
        ended, made = time.perf_counter(), counted.made
        pixels = window.size[0] * window.size[1]
        best = Work(
            min(best.encoded, (between - began) / side**2), min(best.decoded, (ended - between) / pixels)
        )
    return best, made / side**2


class Pace:
    """What is done of an enlargement, told as the share of its time.

    The two halves' times are sampled first, and from then on measured.

    Args:
        model, where, size: as ``sample`` takes them.
        total: all the work.
        progress: told the share done, which never falls; where None, nothing is timed.
    """

    def __init__(
        self, model: Codec, where: Pixels, size: tuple[int, int], total: Work, progress: Progress | None
    ):
        self._progress, self._total, self._told = progress, total, 0.0
        self._done, self._spent = Work(0, 0), Work(0, 0)
        self._rate, self._made = Work(1, 1), 0.0
        if progress is not None and sum(total) > SMALL_PIXELS:
            self._rate, self._made = sample(model, where, size)

    def skip(self, work: Work) -> None:
        """Count work as none: it was done before."""
        self._total = self._total.plus(Work(-work.encoded, -work.decoded))

    @contextmanager
    def encoding(self, pixels: int) -> Iterator[None]:
        """While so many pixels are encoded."""
        if not self._made:
            yield
            self._add(Work(pixels, 0), Work(0, 0))
            return
        began, made = time.perf_counter(), self._made * pixels
        with _Counted(lambda now: self._tell(Work(pixels * min(1.0, now / made), 0))):
            yield
        self._add(Work(pixels, 0), Work(time.perf_counter() - began, 0))

    @contextmanager
    def decoding(self, pixels: int) -> Iterator[Progress]:
        """While so many pixels are decoded, which is told to what is yielded."""
        began = time.perf_counter()
        yield lambda share: self._tell(Work(0, pixels * share))
        self._add(Work(0, pixels), Work(0, time.perf_counter() - began))

    def _add(self, done: Work, spent: Work) -> None:
        self._done, self._spent = self._done.plus(done), self._spent.plus(spent)
        if self._made:
            spent, done, rate = self._spent, self._done, self._rate
            self._rate = Work(
                spent.encoded / done.encoded if done.encoded else rate.encoded,
                spent.decoded / done.decoded if done.decoded else rate.decoded,
            )
        self._tell(Work(0, 0))

    def _tell(self, more: Work) -> None:
        if self._progress is None:
            return
        share = self._done.plus(more).seconds(self._rate) / self._total.seconds(self._rate)
        self._told = max(self._told, min(1.0, share))
        self._progress(self._told)
