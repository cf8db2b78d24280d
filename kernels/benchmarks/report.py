"""Prints rows as they come, and appends them to a file of JSON lines with what they were measured on."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from environment import describe
from measure import Row

WIDE = 56
COLUMNS = (("backend", 19), ("median", 9), ("20 - 80 %", 20), ("runs", 5), ("speed-up", 9), ("error", 7))
GPU_COLUMNS = (("TFLOP/s", 9), ("of peak", 8), ("memory", 9))


class Report:
    """A table on the screen and a file of rows.

    Args:
        results: JSON lines are appended to it.
        device: the one that is measured.
        note: for readers of the rows: other load on the machine, say.
        commit: of the code, where there is no git to ask.
    """

    def __init__(self, results: Path, device: torch.device, note: str = "", commit: str | None = None):
        self.results, self.device, self.note = results, device, note
        self.commit = commit or describe(device)["commit"]  # now: the code that runs was read now
        self.failed = 0
        self.broken: list[str] = []
        results.parent.mkdir(parents=True, exist_ok=True)
        print(", ".join(f"{key} {value}" for key, value in self._here().items()))
        columns = COLUMNS + (GPU_COLUMNS if device.type == "cuda" else ())
        print(f"{'case':<{WIDE}}" + "".join(f"{name:>{width}}" for name, width in columns), flush=True)

    def add(self, rows: Sequence[Row]) -> None:
        """Print and keep rows."""
        here = self._here()
        with open(self.results, "a", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps(row | here) + "\n")
        for row in rows:
            print(f"{row['case']:<{WIDE}}{table_row(row)}", flush=True)
            self.failed += bool(row.get("failed"))
            self.broken += [f"{row['case']}: {w}" for w, kept in row.get("promises", {}).items() if not kept]

    def _here(self) -> dict[str, Any]:
        here = describe(self.device) | {"commit": self.commit}
        return here | ({"note": self.note} if self.note else {})


def table_row(row: Row) -> str:
    """A timing in the table's columns."""
    text = f"{row['backend']:>19}"
    if "median_s" not in row:
        return f"{text}   not timed: {row['skipped']}"
    gain, error, part = row.get("speed_up"), row.get("error"), row.get("share", 1)
    spread = f"{duration(row['p20_s'])} - {duration(row['p80_s'])}"
    text += f"{duration(row['median_s']):>9}{spread:>20}{row['runs']:>5}"
    text += f"{'' if gain is None else f'{gain:.1f}x':>9}{'' if error is None else f'{error:.0e}':>7}"
    if "share_of_peak" in row:
        text += f"{row['tflops']:>9.1f}{row['share_of_peak']:>8.1%}"
    if "peak_bytes" in row:
        text += f"{row['peak_bytes'] / 1e9:>6.2f} GB"
    if part < 1:
        text += f"   from {part:.2%} of it"
    return text + "".join(
        f"   {words}: {'yes' if kept else 'NO'}" for words, kept in row.get("promises", {}).items()
    )


def duration(seconds: float) -> str:
    """Seconds in three digits."""
    if seconds >= 1:
        return f"{seconds:.3g} s"
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} us"
