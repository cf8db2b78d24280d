"""What a run reports: log.jsonl, and TensorBoard where it is installed."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

LOG_FILE = "log.jsonl"


class Log:
    """Rows of numbers by step.

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
        if self.path.exists():
            _drop_after(self.path, step)
        self._writer: Any = None
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                self.missing = "TensorBoard is not installed (pip install 'clit-zoo[train]'): log.jsonl only"
            else:
                self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def row(self, step: int, **values: Any) -> None:
        """One line of log.jsonl; numbers, also one level down, go to TensorBoard."""
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        if self._writer is not None:
            for key, value in values.items():
                for tail, number in value.items() if isinstance(value, dict) else (("", value),):
                    if isinstance(number, int | float):
                        self._writer.add_scalar(f"{key}/{tail}" if tail else key, number, step)

    def picture(self, step: int, name: str, pixels: np.ndarray) -> None:
        """A picture (H, W, 3) uint8, for TensorBoard."""
        if self._writer is not None:
            self._writer.add_image(name, pixels, step, dataformats="HWC")

    def close(self) -> None:
        """Write what is still held back."""
        if self._writer is not None:
            self._writer.close()


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run's log.jsonl; a line cut short by a kill is passed over."""
    rows = []
    for line in (folder / LOG_FILE).read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


def _drop_after(path: Path, step: int) -> None:
    kept = [row for row in read_log(path.parent) if row["step"] <= step]
    part = path.with_name(f".{path.name}.part")
    part.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
    os.replace(part, path)
