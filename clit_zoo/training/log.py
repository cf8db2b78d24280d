"""What a run reports: its pace, log.jsonl, and TensorBoard where it is installed."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ..atomic import replacing

LOG_FILE = "log.jsonl"


class Pace:
    """How fast a run is, and how much of its time it waits for data; validating and saving do not count."""

    def __init__(self) -> None:
        self.steps, self.seconds, self.waited, self._first = 0, 0.0, 0.0, 0.0

    def add(self, seconds: float, waited: float) -> None:
        """Count a step that took ``seconds``, of which it waited ``waited`` for data."""
        if not self.steps:
            self._first = seconds
        self.steps += 1
        self.seconds += seconds
        self.waited += waited

    @property
    def speed(self) -> float:
        """Steps a second."""
        return self.steps / self.seconds if self.seconds else 0.0

    @property
    def waiting(self) -> float:
        """Share of the time spent waiting for data."""
        return self.waited / self.seconds if self.seconds else 0.0

    def forecast(self, steps: int) -> str:
        """How long ``steps`` more will take, in words; from two steps on."""
        each = (self.seconds - self._first) / (self.steps - 1)  # the first compiles and fills caches
        end = datetime.now() + timedelta(seconds=each * steps)
        return (
            f"{each:.2g} s a step: the {steps:,} left take about {duration(each * steps)}, until "
            f"{end:%a %H:%M}; validation comes on top"
        )


def duration(seconds: float) -> str:
    """In words, with two digits or more."""
    if seconds < 100:
        return f"{seconds:.0f} seconds"
    if seconds < 6000:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours" if seconds < 172800 else f"{seconds / 86400:.1f} days"


class Log:
    """Rows of numbers by step.

    A log that cannot be written, on a full disk, say, is no reason to stop training: one warning is printed,
    and rows are written again as soon as that is possible; TensorBoard's files end there.

    Args:
        folder: of the run; rows are appended to its log.jsonl.
        step: the run goes on from here: rows of later steps, which will be computed again, are dropped.
        tensorboard: also write TensorBoard's files, to ``folder``/tensorboard.

    Attributes:
        missing: what could not be had, in words, or None.
    """

    def __init__(self, folder: Path, step: int, tensorboard: bool = True):
        self.path = folder / LOG_FILE
        self.missing: str | None = None
        self._warned = self._torn = False
        self._writer: Any = None
        with self._forgiving():
            _drop_after(self.path, step)
        if tensorboard and not find_spec("tensorboard"):
            self.missing = "TensorBoard is not installed (pip install 'clit-zoo[train]'): log.jsonl only"
        elif tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            with self._forgiving():
                self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def row(self, step: int, **values: Any) -> None:
        """One line of log.jsonl; numbers, also one level down, go to TensorBoard."""
        with self._forgiving():
            self._append(json.dumps({"step": step, **values}) + "\n")
        with self._forgiving(tensorboard=True) as writer:
            for key, value in values.items():
                for tail, number in value.items() if isinstance(value, dict) else (("", value),):
                    if writer is not None and isinstance(number, int | float):
                        writer.add_scalar(f"{key}/{tail}" if tail else key, number, step)

    def picture(self, step: int, name: str, pixels: np.ndarray) -> None:
        """A picture (H, W, 3) uint8, for TensorBoard."""
        with self._forgiving(tensorboard=True) as writer:
            if writer is not None:
                writer.add_image(name, pixels, step, dataformats="HWC")

    def close(self) -> None:
        """Write what is still held back."""
        with self._forgiving(tensorboard=True) as writer:
            if writer is not None:
                writer.close()

    def _append(self, line: str) -> None:
        # the line before may have been cut short: end it, lest this one become part of it
        line, self._torn = "\n" * self._torn + line, True
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(line)
        self._torn = False

    @contextmanager
    def _forgiving(self, tensorboard: bool = False) -> Iterator[Any]:
        """Warn where the disk refuses for the first time, and go on; gives TensorBoard's writer."""
        try:
            yield self._writer
        except OSError as error:
            if tensorboard:
                self._writer = None  # its thread ends with the first error
            if not self._warned:
                self._warned = True
                reason = error.strerror or error
                tqdm.write(
                    f"Warning: the log {self.path} cannot be written ({reason}); training goes on: make room",
                    file=sys.stderr,
                )


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run's log.jsonl; a line cut short by a kill is passed over."""
    rows = []
    for line in (folder / LOG_FILE).read_text(encoding="utf-8", errors="replace").splitlines():
        with suppress(ValueError):
            row = json.loads(line)
            if isinstance(row, dict) and isinstance(row.get("step"), int):
                rows.append(row)
    return rows


def _drop_after(path: Path, step: int) -> None:
    if not path.exists():
        return
    kept = [row for row in read_log(path.parent) if row["step"] <= step]
    with replacing(path) as part:
        part.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
