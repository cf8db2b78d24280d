"""Results as text, Markdown, CSV and JSON, beside published ones."""

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from .. import __version__
from ..zoo.schema import require
from . import published
from .dataset import plain_name
from .results import Mean, Results

FORMATS = ("text", "markdown", "csv", "json")

# How many images the published averages are taken over.
_IMAGES = {"Set5": 5, "Set14": 14, "B100": 100, "Urban100": 100, "Manga109": 109, "DIV2K": 100}


def render(results: Results | Sequence[Results], form: str = "text", beside: str = "auto") -> str:
    """A table of the results.

    Args:
        results: of one model or of several, measured alike.
        form: "text", "markdown", "csv" (one line per figure) or "json" (with every image's scores).
        beside: the published rows to show: "auto" (``published.rows_beside``), "all" or "none".
    """
    every = [results] if isinstance(results, Results) else list(results)
    if form == "json":
        return _json(every, beside)
    if form == "csv":
        return _csv(every, beside)
    require(form in FORMATS, "format", form, f"one of {', '.join(FORMATS)}")
    datasets = dict.fromkeys(mean.dataset for one in every for mean in one.means())
    blocks = [_block(every, name, beside, form) for name in datasets]
    if not blocks:
        blocks.append("Nothing could be scored.")
    if left_out := dict.fromkeys(skipped for one in every for skipped in one.skipped):
        lines = [f"Skipped {_count(len(left_out), 'image')}:"]
        for skipped in left_out:
            where = f"{skipped.dataset}/{skipped.image}" + (f" ×{skipped.scale:g}" if skipped.scale else "")
            lines.append(f"- {where}: {skipped.reason}")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def published_rows(dataset: str, model: str, beside: str = "auto") -> list[published.Row]:
    """The published rows to show beside a model's figures on a dataset."""
    if beside == "none":
        return []
    dataset = plain_name(dataset)
    return published.rows(dataset) if beside == "all" else published.rows_beside(model, dataset)


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _figure(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _block(every: list[Results], dataset: str, beside: str, form: str) -> str:
    """One dataset: a heading, the figures, published ones, and what to know before comparing them."""
    of = [(one.model, {mean.scale: mean for mean in one.means() if mean.dataset == dataset}) for one in every]
    means = [mean for _, found in of for mean in found.values()]
    scales = list(dict.fromkeys(mean.scale for mean in means))
    rows = [["", *(f"×{scale:g}" for scale in scales)]]
    printed: list[published.Row] = []
    for model, found in of:
        at = [found.get(scale) for scale in scales]
        rows.append([f"{model}, PSNR", *(_figure(mean.psnr if mean else None, 2) for mean in at)])
        if any(mean and mean.ssim is not None for mean in at):
            rows.append([f"{model}, SSIM", *(_figure(mean.ssim if mean else None, 4) for mean in at)])
        printed += [row for row in published_rows(dataset, model, beside) if row not in printed]
    for row in printed:
        figures = [row.psnr.get(scale) for scale in scales]
        if any(figure is not None for figure in figures):
            rows.append([f"{row.method} ({row.source})", *(_figure(figure, 2) for figure in figures)])
    protocol = next((one.protocols[dataset] for one in every if dataset in one.protocols), "")
    counts = sorted({mean.images for mean in means})
    heading = f"{dataset}: {' to '.join(map(str, (counts[0], counts[-1])[: len(counts)]))} images"
    heading = heading.replace(": 1 images", ": 1 image") + f", {protocol}"
    notes = [*_notes(dataset, means)]
    if form == "markdown":
        return "\n\n".join([f"**{heading}**", _markdown(rows), *notes])
    return "\n".join([heading, _text(rows), *notes])


def _notes(dataset: str, means: list[Mean]) -> list[str]:
    notes = []
    sources: dict[str, list[str]] = {}
    for mean in means:
        sources.setdefault(mean.lr, []).append(f"×{mean.scale:g}")
    if len(sources) > 1:
        parts = "; ".join(f"{source} at {' '.join(dict.fromkeys(at))}" for source, at in sources.items())
        notes.append(f"Low-resolution pictures: {parts}. Figures on the two kinds are not one series.")
    else:
        notes.append(f"Low-resolution pictures: {next(iter(sources))}.")
    count = _IMAGES.get(published.dataset_name(plain_name(dataset)) or "")
    if count and any(mean.images != count for mean in means):
        notes.append(f"Published figures are averages over {count} images: these are not comparable.")
    return notes


def _text(rows: list[list[str]]) -> str:
    first = max(len(row[0]) for row in rows)
    width = max(len(cell) for row in rows for cell in row[1:]) + 2
    return "\n".join(f"  {row[0]:<{first}}" + "".join(f"{cell:>{width}}" for cell in row[1:]) for row in rows)


def _markdown(rows: list[list[str]]) -> str:
    head, *body = rows
    ruler = ["---", *("---:" for _ in head[1:])]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ruler, *body])


def _csv(every: list[Results], beside: str) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["dataset", "method", "source", "protocol", "scale", "lr", "images", "skipped", "psnr", "ssim"]
    )
    for results in every:
        for mean in results.means():
            ssim = "" if mean.ssim is None else f"{mean.ssim:.6f}"
            at = [mean.protocol, f"{mean.scale:g}"]
            figures = [*at, mean.lr, mean.images, _skipped_at(results, mean), f"{mean.psnr:.4f}", ssim]
            writer.writerow([mean.dataset, results.model, "measured", *figures])
            for row in published_rows(mean.dataset, results.model, beside):
                if mean.scale in row.psnr:
                    figures = [*at, "", "", "", f"{row.psnr[mean.scale]:.2f}", ""]
                    writer.writerow([mean.dataset, row.method, row.source, *figures])
    return out.getvalue()


def _skipped_at(results: Results, mean: Mean) -> int:
    return sum(s.dataset == mean.dataset and s.scale in (None, mean.scale) for s in results.skipped)


def _json(every: list[Results], beside: str) -> str:
    rows = []
    for results in every:
        for mean in results.means():
            found = published_rows(mean.dataset, results.model, beside)
            printed = {row.method: row.psnr[mean.scale] for row in found if mean.scale in row.psnr}
            more = {"skipped": _skipped_at(results, mean), "published": printed}
            rows.append({"model": results.model, **_finite(asdict(mean)), **more})
    content = {
        "clit_zoo": __version__,
        "protocols": {name: words for results in every for name, words in results.protocols.items()},
        "rows": rows,
        "images": [{"model": one.model, **_finite(asdict(score))} for one in every for score in one.scores],
        "skipped": [{"model": one.model, **asdict(skipped)} for one in every for skipped in one.skipped],
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinity: the PSNR of an exact output is null there."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
