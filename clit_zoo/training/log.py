"""What a run reports: log.jsonl, and TensorBoard where it is installed."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ..atomic import replacing

LOG_FILE = "log.jsonl"


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
        if self.path.exists():
            self._try(lambda: _drop_after(self.path, step))
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                self.missing = "TensorBoard is not installed (pip install 'clit-zoo[train]'): log.jsonl only"
            else:
                self._try(lambda: self._open(SummaryWriter, folder / "tensorboard", step + 1))

    def row(self, step: int, **values: Any) -> None:
        """One line of log.jsonl; numbers, also one level down, go to TensorBoard."""
        written = self._try(lambda: self._append(json.dumps({"step": step, **values}) + "\n"))
        self._torn = not written
        self._try(lambda: self._add_scalars(step, values), tensorboard=True)

    def picture(self, step: int, name: str, pixels: np.ndarray) -> None:
        """A picture (H, W, 3) uint8, for TensorBoard."""
        self._try(lambda: self._add_image(step, name, pixels), tensorboard=True)

    def close(self) -> None:
        """Write what is still held back."""
        if self._writer is not None:
            self._try(self._writer.close, tensorboard=True)

    def _append(self, line: str) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            # the line before may have been cut short: end it, lest this one become part of it
            file.write("\n" * self._torn + line)

    def _open(self, writer: Any, folder: Path, purge_step: int) -> None:
        self._writer = writer(str(folder), purge_step=purge_step)

    def _add_scalars(self, step: int, values: dict[str, Any]) -> None:
        if self._writer is not None:
            for key, value in values.items():
                for tail, number in value.items() if isinstance(value, dict) else (("", value),):
                    if isinstance(number, int | float):
                        self._writer.add_scalar(f"{key}/{tail}" if tail else key, number, step)

    def _add_image(self, step: int, name: str, pixels: np.ndarray) -> None:
        if self._writer is not None:
            self._writer.add_image(name, pixels, step, dataformats="HWC")

    def _try(self, write: Callable[[], None], tensorboard: bool = False) -> bool:
        """Call ``write``; False, with a warning the first time, where the disk refuses."""
        try:
            write()
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
            return False
        return True


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run's log.jsonl; a line cut short by a kill is passed over."""
    rows = []
    for line in (folder / LOG_FILE).read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


def _drop_after(path: Path, step: int) -> None:
    kept = [row for row in read_log(path.parent) if row["step"] <= step]
    with replacing(path) as part:
        part.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
