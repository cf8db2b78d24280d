"""Draw a results file: how long each backend takes, how many times faster it is, and where the orders cross.

    python kernels/benchmarks/plot.py kernels/benchmarks/results/cpu.jsonl        # writes cpu.png beside it

Of several rows for one case and backend the last counts. Needs matplotlib (`pip install clit-zoo[viz]`).
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]

COLORS = {
    "reference": "#8c8c8c", "compiled reference": "#c4c4c4", "torch": "#1f77b4",
    "compiled torch": "#9ecae1", "triton": "#d95f02", "hoisted": "#1f77b4",
    "direct": "#7b3294",
    "auto": "#000000",
}  # fmt: skip
"""Of the backends, in the order in which they are drawn."""

BAR = 0.26
"""Inches that a bar takes."""


def main() -> int:
    """Draw; 2 where there is nothing to draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, help="a file of JSON lines that bench.py wrote")
    parser.add_argument("--out", type=Path, help="default: the same name with .png")
    given = parser.parse_args()
    rows = latest(read(given.results))
    if not rows:
        print(f"{given.results}: no timings to draw; bench.py writes them", file=sys.stderr)
        return 2
    draw(rows, given.out or given.results.with_suffix(".png"))
    return 0


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a results file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def latest(rows: Sequence[Row]) -> list[Row]:
    """The last timing of every case and backend, cases in the order in which they first came."""
    found: dict[tuple[str, str], Row] = {}
    for row in rows:
        if "median_s" in row:
            found[row["case"], row["backend"]] = row
    return list(found.values())


def draw(rows: Sequence[Row], path: Path) -> None:
    """Write the picture, whole or not at all: bars for the backends, lines for the orders of work."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    backends = [row for row in rows if "queries_per_pixel" not in row]
    orders = [row for row in rows if "queries_per_pixel" in row]
    groups = sorted({(row["shape"], row["op"]) for row in orders})
    tall = BAR * (len(backends) + len({row["case"] for row in backends})) + 1.2 if backends else 0
    low = 2.6 * -(-len(groups) // 2)
    figure = plt.figure(figsize=(11, tall + low + 0.6), layout="constrained")
    heights = [max(tall, 0.01), max(low, 0.01)]
    parts: Any = figure.subfigures(2, 1, height_ratios=heights) if groups else [figure]
    if backends:
        _bars(parts[0], backends)
    if groups:
        _orders(parts[-1], orders, groups)
    figure.suptitle(title(rows), fontsize=9)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".png", delete=False) as file:
        figure.savefig(file, format="png", dpi=110)
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)
    plt.close(figure)


def title(rows: Sequence[Row]) -> str:
    """What the rows were measured on."""
    last = rows[-1]
    numbers = sorted({row["threads"] for row in rows})
    threads = "" if "capability" in last else f", threads: {' or '.join(map(str, numbers))}"
    commits = ", ".join(dict.fromkeys(str(row["commit"]) for row in rows))
    text = f"{last['device']}{threads}, torch {last['torch']}, triton {last['triton']}, {last['date'][:10]}"
    return f"{text}, commit {commits}"


def _bars(figure: Any, rows: Sequence[Row]) -> None:
    times, gains = figure.subplots(1, 2, sharey=True, width_ratios=[1.3, 1])
    cases = list(dict.fromkeys(row["case"] for row in rows))
    position, ticks = 0.0, []
    for case in cases:
        own = sorted((r for r in rows if r["case"] == case), key=lambda r: list(COLORS).index(r["backend"]))
        ticks.append(position + (len(own) - 1) / 2)
        for row in own:
            color, median = COLORS[row["backend"]], row["median_s"]
            error = [[median - row["p20_s"]], [row["p80_s"] - median]]
            times.barh(position, median, color=color, height=0.9)
            times.errorbar(median, position, xerr=error, color="black", linewidth=0.8, capsize=2)
            times.text(row["p80_s"], position, f"  {_seconds(median)}", va="center", fontsize=7)
            gain = row.get("speed_up")
            if gain is not None:
                gains.barh(position, gain, color=color, height=0.9)
                gains.text(gain, position, f" {gain:.3g}×", va="center", fontsize=7)
            position += 1
        position += 1
    times.set_yticks(ticks, cases, fontsize=8)
    times.set_ylim(position - 1, -1)
    for axes, label in ((times, "time, s (median, 20–80 %)"), (gains, "times faster than reference")):
        axes.set_xscale("log")
        axes.set_xlabel(label, fontsize=8)
        axes.tick_params(axis="x", labelsize=7)
        axes.margins(x=0.18)
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
    gains.axvline(1, color="black", linewidth=0.8)
    used = [name for name in COLORS if any(row["backend"] == name for row in rows)]
    handles = [figure.add_artist(_patch(COLORS[name], name)) for name in used]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(used), fontsize=8, frameon=False)


def _patch(color: str, label: str) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((0, 0), 0, 0, color=color, label=label)


def _orders(figure: Any, rows: Sequence[Row], groups: Sequence[tuple[str, str]]) -> None:
    grid = figure.subplots(-(-len(groups) // 2), 2, squeeze=False)
    for axes, (shape, op) in zip(grid.flat, groups, strict=False):
        own = [row for row in rows if (row["shape"], row["op"]) == (shape, op)]
        for order in ("direct", "hoisted", "auto"):
            line = sorted((r["queries_per_pixel"], r["median_s"] * 1e3) for r in own if r["backend"] == order)
            dots = {"marker": "o", "markersize": 11, "fillstyle": "none", "linestyle": "none"}
            style = dots if order == "auto" else {"marker": "o"}
            axes.plot(*zip(*line, strict=True), color=COLORS[order], label=order, **style)
        axes.set_title(f"{op}, {shape}", fontsize=8)
        axes.set_xlabel("queries per feature pixel", fontsize=8)
        axes.set_ylabel("ms", fontsize=8)
        axes.set_ylim(bottom=0)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    for axes in grid.flat[len(groups) :]:
        axes.remove()


def _seconds(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


if __name__ == "__main__":
    sys.exit(main())
