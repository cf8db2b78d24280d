"""Results as text, Markdown, CSV and JSON, beside published ones."""

import csv
import io
import json
import math
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


def render(results: Results, form: str = "text", beside: str = "auto") -> str:
    """A table of the results.

    Args:
        form: "text", "markdown", "csv" (one line per figure) or "json" (with every image's scores).
        beside: the published rows to show: "auto" (``published.rows_beside``), "all" or "none".
    """
    if form == "json":
        return _json(results, beside)
    if form == "csv":
        return _csv(results, beside)
    require(form in FORMATS, "format", form, f"one of {', '.join(FORMATS)}")
    blocks = [_block(results, name, means, beside, form) for name, means in _by_dataset(results).items()]
    if not blocks:
        blocks.append("Nothing could be scored.")
    if results.skipped:
        lines = [f"Skipped {_count(len(results.skipped), 'image')}:"]
        for skipped in results.skipped:
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


def _by_dataset(results: Results) -> dict[str, list[Mean]]:
    groups: dict[str, list[Mean]] = {}
    for mean in results.means():
        groups.setdefault(mean.dataset, []).append(mean)
    return groups


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _figure(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _block(results: Results, dataset: str, means: list[Mean], beside: str, form: str) -> str:
    """One dataset: a heading, the figures, published ones, and what to know before comparing them."""
    rows = [["", *(f"×{mean.scale:g}" for mean in means)]]
    rows.append([f"{results.model}, PSNR", *(_figure(mean.psnr, 2) for mean in means)])
    if any(mean.ssim is not None for mean in means):
        rows.append([f"{results.model}, SSIM", *(_figure(mean.ssim, 4) for mean in means)])
    for row in published_rows(dataset, results.model, beside):
        figures = [row.psnr.get(mean.scale) for mean in means]
        if any(figure is not None for figure in figures):
            rows.append([f"{row.method} ({row.source})", *(_figure(figure, 2) for figure in figures)])
    counts = sorted({mean.images for mean in means})
    heading = f"{dataset}: {' to '.join(map(str, (counts[0], counts[-1])[: len(counts)]))} images"
    heading = heading.replace(": 1 images", ": 1 image") + f", {results.protocols.get(dataset, '')}"
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
        parts = "; ".join(f"{source} at {' '.join(scales)}" for source, scales in sources.items())
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


def _csv(results: Results, beside: str) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["dataset", "method", "source", "protocol", "scale", "lr", "images", "skipped", "psnr", "ssim"]
    )
    for dataset, means in _by_dataset(results).items():
        rows = published_rows(dataset, results.model, beside)
        for mean in means:
            ssim = "" if mean.ssim is None else f"{mean.ssim:.6f}"
            skipped = _skipped_at(results, mean)
            at = [mean.protocol, f"{mean.scale:g}"]
            figures = [*at, mean.lr, mean.images, skipped, f"{mean.psnr:.4f}", ssim]
            writer.writerow([dataset, results.model, "measured", *figures])
            for row in rows:
                if mean.scale in row.psnr:
                    figures = [*at, "", "", "", f"{row.psnr[mean.scale]:.2f}", ""]
                    writer.writerow([dataset, row.method, row.source, *figures])
    return out.getvalue()


def _skipped_at(results: Results, mean: Mean) -> int:
    return sum(s.dataset == mean.dataset and s.scale in (None, mean.scale) for s in results.skipped)


def _json(results: Results, beside: str) -> str:
    rows = []
    for mean in results.means():
        found = published_rows(mean.dataset, results.model, beside)
        printed = {row.method: row.psnr[mean.scale] for row in found if mean.scale in row.psnr}
        rows.append({**_finite(asdict(mean)), "skipped": _skipped_at(results, mean), "published": printed})
    content = {
        "model": results.model,
        "clit_zoo": __version__,
        "protocols": results.protocols,
        "rows": rows,
        "images": [_finite(asdict(score)) for score in results.scores],
        "skipped": [asdict(skipped) for skipped in results.skipped],
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinity: the PSNR of an exact output is null there."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
