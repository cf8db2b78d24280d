"""``clit-zoo bench``: how long models take on this machine, each checked before it is timed."""

import json
from importlib import import_module
from itertools import product
from pathlib import Path

import click
import torch

from clit_kernels import BACKENDS

from ..bench.cases import PEERS, Case, Enlargement, Peer, Step
from ..bench.machine import describe
from ..bench.measure import Row, measure
from ..bench.plot import draw, label
from ..evaluation.evaluate import check_scales
from ..pretrained import DTYPES, pick_device
from .eval import SCALES
from .threads import use_free_cores
from .upscale.options import WIDTH_BY_HEIGHT

PEER_SCALES = 2, 3, 4
TABLE = "{:<46}{:>10}{:>10}{:>10}{:>18}{:>6}{:>10}{:>10}{:>9}"


@click.command("bench")
@click.option(
    "-m", "--model", "models", multiple=True, default=["edsr-light-lit"], show_default=True,
    metavar="NAME|FOLDER|REPO", help="May be given several times. Without published weights: random ones.",
)  # fmt: skip
@click.option(
    "--input", "size", type=WIDTH_BY_HEIGHT, default="256x256", show_default=True, help="The picture's."
)
@click.option("-s", "--scales", type=SCALES, default="4", show_default=True, help="Any numbers ≥ 1.")
@click.option(
    "--backend", "backends", type=click.Choice(BACKENDS), multiple=True, default=["auto"], show_default=True,
    help="Who computes the decoder; may be given several times, to compare.",
)  # fmt: skip
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps …")
@click.option("--dtype", type=click.Choice(["auto", *DTYPES]), default="auto", show_default=True)
@click.option("--threads", type=click.IntRange(min=1), help="On a CPU. Default: the cores that are idle.")
@click.option("--seconds", type=click.FloatRange(min=0), default=5.0, show_default=True, help="Of each row.")
@click.option("--peers", is_flag=True, help="Beside them SRVGGNetCompact and SPAN, which spandrel has.")
@click.option(
    "--products", is_flag=True, help="On a CPU, also time the convolutions and matrix products alone."
)
@click.option("--train", is_flag=True, help="Time a training step as well.")
@click.option("--batch", type=click.IntRange(min=1), default=16, show_default=True, help="Patches of a step.")
@click.option("--patch", type=click.IntRange(min=1), default=48, show_default=True, help="Their side.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object instead of a table.")
@click.option(
    "--plot", type=click.Path(path_type=Path, dir_okay=False), help="Draw the rows to this picture."
)
@click.pass_context
def command(
    ctx: click.Context,
    models: tuple[str, ...],
    size: tuple[int, int],
    scales: list[float],
    backends: tuple[str, ...],
    device: str,
    dtype: str,
    threads: int | None,
    seconds: float,
    peers: bool,
    products: bool,
    train: bool,
    batch: int,
    patch: int,
    as_json: bool,
    plot: Path | None,
) -> None:
    """Time models on this machine: encoding a picture, decoding it at a scale, and both.

    A small result is compared with the formula in float64 first: what is wrong there is not timed, and the
    exit code is then 1. Models and backends take turns, so that what else the machine does falls on all of
    them. Memory is the peak of one run, weights aside.
    """
    for name in ["matplotlib"] * (plot is not None) + ["spandrel"] * peers:
        import_module(name)  # which it lacks shows now, and not after all has been timed
    if threads:
        torch.set_num_threads(threads)
    else:
        use_free_cores()
    how = [(name, backend, device, dtype) for name, backend in product(models, backends)]
    groups: list[list[Case]] = [
        [Enlargement(*one, size, scale) for one in how] for scale in check_scales(scales)
    ]
    if peers:
        for scale, group in zip(scales, groups, strict=True):
            if scale in PEER_SCALES:
                group += [Peer(name, "torch", device, dtype, size, scale) for name in PEERS]
    if train:
        groups.append([Step(*one, batch, patch) for one in how])

    machine, rows = describe(pick_device(device)), []
    if not as_json:
        click.echo(", ".join(f"{name} {fact}" for name, fact in machine.items() if fact is not None))
        titles = "encode", "decode", "whole", "20–80 %", "runs", "Mpixel/s", "memory", "error"
        click.echo(TABLE.format("seconds", *titles))
    for group in groups:
        for row in measure(group, seconds, products=products):
            rows.append(row)
            if not as_json:
                click.echo(_line(row))
    if as_json:
        click.echo(json.dumps({"machine": machine, "rows": rows}, indent=1))
    if plot is not None:
        draw(rows, machine, plot)
    if any("failed" in row for row in rows):
        ctx.exit(1)


def _line(row: Row) -> str:
    """A row of the table."""
    if "failed" in row:
        return f"{label(row):<46}  not timed: {row['failed']}"
    whole, speed, memory = row["whole"], row.get("megapixels_per_second"), row["peak_bytes"]
    line = TABLE.format(
        label(row),
        *(f"{row[part]['median']:.3g}" if part in row else "" for part in ("encode", "decode")),
        f"{whole['median']:.3g}",
        f"{whole['p20']:.3g} – {whole['p80']:.3g}",
        row["runs"],
        "" if speed is None else f"{speed:.3g}",
        "" if memory is None else f"{memory / 1e6:.0f} MB",
        f"{row['error']:.0e}",
    )
    if alone := row.get("one_thread"):
        whole, products = alone["whole"], alone["products"]
        line += (
            f"\n  one thread: {whole:.3g} CPU s, {whole / products:.2f} times its products' {products:.3g}"
        )
    return line
