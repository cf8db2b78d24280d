"""Rows as words and as bars: seconds to encode and to decode, or of a training step."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..atomic import replacing
from .measure import Row

PARTS = {"encode": "#1f77b4", "decode": "#d95f02", "step": "#7b3294"}


def label(row: Row) -> str:
    """What a row is of."""
    if "batch" in row:
        what = f"step, {row['batch']} × {row['patch']}²"
    else:
        what = f"{row['size'][1]}×{row['size'][0]} ×{row['scale']:g}"
    return f"{row['name']} {row['backend']} {row['dtype']} {what}"


def draw(rows: Sequence[Row], machine: Mapping[str, Any], path: Path) -> None:
    """Write a picture of the rows that were timed, whole or not at all. Needs matplotlib."""
    from matplotlib.figure import Figure  # an extra

    timed = [row for row in rows if "failed" not in row]
    figure = Figure(figsize=(9, 1.4 + 0.4 * len(timed)), layout="constrained")
    axes = figure.add_subplot()
    for place, row in enumerate(timed):
        left = 0.0
        for part in (part for part in PARTS if part in row):
            axes.barh(place, row[part]["median"], left=left, color=PARTS[part], height=0.7)
            left += row[part]["median"]
        low, high = row["whole"]["p20"], row["whole"]["p80"]
        axes.plot((low, high), (place, place), color="black", linewidth=1, marker="|")
        axes.text(max(left, high), place, f"  {row['whole']['median']:.3g} s", va="center", fontsize=8)
    axes.set_yticks(range(len(timed)), [label(row) for row in timed], fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlim(left=0)
    axes.set_xlabel("seconds, median and 20–80 %", fontsize=8)
    axes.set_title("{device}, threads {threads}, torch {torch}, {date}".format(**machine), fontsize=8)
    for part, color in PARTS.items():
        if any(part in row for row in timed):
            axes.bar(0, 0, color=color, label=part)
    if timed:
        axes.legend(fontsize=8, frameon=False)
    with replacing(path) as new:
        figure.savefig(new, format=path.suffix.lstrip(".").lower() or "png", dpi=130)
