"""``clit-zoo eval``: PSNR and SSIM of a model on benchmark folders, beside published figures."""

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from ..atomic import replacing
from ..errors import ClitZooError
from ..evaluation import Method, Results, bicubic, evaluate, model_method, protocol_for, render
from ..evaluation.dataset import dataset_names, dataset_of, images_in, low_folders
from ..evaluation.degradations import degradation
from ..evaluation.evaluate import check_scales
from .loading import Parsed, load, precision_options

_FORMAT_OF_SUFFIX = {".md": "markdown", ".csv": "csv", ".json": "json"}


SCALES = Parsed(
    "scales",
    "list of numbers such as 2,3,4",
    lambda text: [float(part.strip().lstrip("xX×")) for part in text.split(",")],
)


@click.command("eval")
@click.argument(
    "folders",
    metavar="HR_FOLDER...",
    nargs=-1,
    required=True,
    type=click.Path(readable=False, path_type=Path),
)
@click.option(
    "-m",
    "--model",
    "models",
    multiple=True,
    default=["edsr-light-lit"],
    show_default=True,
    metavar="NAME|FOLDER|REPO|bicubic",
    help="May be given several times.",
)
@click.option("-s", "--scales", type=SCALES, default="2,3,4", show_default=True, help="Any numbers ≥ 1.")
@click.option(
    "--protocol",
    type=click.Choice(["auto", "benchmark", "div2k"]),
    default="auto",
    show_default=True,
    help="benchmark: luminance, shave = scale. div2k: RGB, shave = scale + 6. auto: by the folder's name.",
)
@click.option(
    "--lr",
    "lr_pattern",
    metavar="FOLDER-PATTERN",
    help="Given low-resolution pictures, e.g. 'data/{dataset}/LR_bicubic/X{scale}'. "
    "Without it they are made: MATLAB's bicubic up to ×4, Pillow's above.",
)
@click.option(
    "--degrade",
    default="",
    metavar="WORD",
    help="What happens to the low-resolution pictures first: jpeg:QUALITY, webp:QUALITY, noise:SIGMA, "
    "blur:SIGMA or camera (all of it, mildly).",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "markdown", "csv", "json"]),
    help="Default: by the suffix of --out (.md, .csv, .json), else text.",
)
@click.option(
    "--beside",
    type=click.Choice(["auto", "all", "none"]),
    default="auto",
    show_default=True,
    help="Published rows to print: auto for the same model's, its decoder's, or else CLIT's.",
)
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N images of each folder."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps …")
@precision_options("Compute in float32, on GPUs too.  [default]")
@click.option("--backend", default="auto", show_default=True, help="auto, triton, torch or reference.")
@click.option("--no-ssim", is_flag=True, help="Measure PSNR only.")
@click.option("--no-quantise", is_flag=True, help="Score the output before rounding to 8 bits, as LIIF does.")
@click.option("--gray-as-rgb", is_flag=True, help="Score gray originals as three channels, as LIIF does.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False, readable=False),
    help="Write the table to a new file.",
)
@click.option("--overwrite", is_flag=True, help="Replace --out if it exists.")
@click.option(
    "--resume",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Keep finished scores in this file and go on from it.",
)
@click.pass_context
def command(
    ctx: click.Context,
    folders: tuple[Path, ...],
    models: tuple[str, ...],
    scales: list[float],
    protocol: str,
    lr_pattern: str | None,
    degrade: str,
    form: str | None,
    beside: str,
    limit: int | None,
    device: str,
    dtype: str | None,
    backend: str,
    no_ssim: bool,
    no_quantise: bool,
    gray_as_rgb: bool,
    out: Path | None,
    overwrite: bool,
    resume: Path | None,
) -> None:
    """Measure models on folders of original pictures.

    The originals are shrunk, enlarged by the model, and compared; the table shows published figures beside
    the measured ones. Images that cannot be read are named and skipped, and the exit code is then 1.
    """
    # Whatever can be wrong with the request shows now, and not after hours of work.
    scales = check_scales(scales)
    if degrade:
        degradation(degrade)
        beside = "none" if beside == "auto" else beside  # published figures are for clean pictures
    names = dataset_names(folders)
    for folder, name in zip(folders, names):
        images_in(folder)
        low_folders(lr_pattern, name, scales)
    if out is not None:
        _check_out(out, overwrite)

    methods = [_method(model, device, dtype or "float32", backend) for model in models]
    options: dict[str, Any] = {"limit": limit, "ssim": not no_ssim, "resume_file": resume, "degrade": degrade}
    measured = []
    for method in methods:
        total = Results(method.name)
        for folder, name in zip(folders, names):
            rules = protocol_for(protocol, dataset_of(folder))
            rules = replace(rules, quantise=not no_quantise, gray_as_rgb=gray_as_rgb)
            total += evaluate(method, folder, scales, rules, lr_pattern, dataset=name, **options)
        measured.append(total)

    if form is None:
        form = _FORMAT_OF_SUFFIX.get(out.suffix.lower(), "text") if out else "text"
    table = render(measured, form, beside)
    if out is None:
        click.echo(table, nl=False)
    else:
        _write(out, table)
    if left_out := dict.fromkeys(skipped for total in measured for skipped in total.skipped):
        if form == "csv" or out is not None:  # else the reasons stand under the table
            for skipped in left_out:
                click.echo(f"Skipped {skipped.dataset}/{skipped.image}: {skipped.reason}", err=True)
        count = len({(skipped.dataset, skipped.image) for skipped in left_out})
        images = "1 image" if count == 1 else f"{count} images"
        click.echo(f"{images} could not be scored at every scale.", err=True)
        ctx.exit(1)


def _method(model: str, device: str, dtype: str, backend: str) -> Method:
    """A model by name, folder or repository, or bicubic, which needs no weights."""
    return bicubic if model.lower() == "bicubic" else model_method(load(model, device, dtype, backend))


def _check_out(path: Path, overwrite: bool) -> None:
    """Refuse a --out that could not be written, or would replace what is there unasked."""
    os.stat(path.parent)
    with suppress(FileNotFoundError):
        os.lstat(path)
        if not overwrite:
            raise ClitZooError(f"--out {path} exists: give another name, or --overwrite to replace it.")


def _write(path: Path, table: str) -> None:
    """Write the table, or print it where that fails: it may be the work of hours."""
    try:
        with replacing(path) as part:
            part.write_text(table, encoding="utf-8")
    except OSError:
        click.echo(table, nl=False)
        raise
