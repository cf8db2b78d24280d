"""``clit-zoo upscale``: pictures in, larger pictures out; one bad picture never stops the others."""

import functools
import math
import os
import re
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch
from tqdm import tqdm

from ...atomic import remove_stale
from ...choice import CLEAN, name_at
from ...geometry import Size
from ...imaging.formats import OUTPUTS, by_suffix, output_format
from ...page.static import check_address
from ...pretrained import pick_device
from ...zoo import hub, registry
from ...zoo.config import ModelConfig
from ...zoo.folder import CONFIG_FILE
from .. import threads
from ..loading import load, one_of, precision_options
from .enlarge import Enlarging, in_rows
from .memory import Estimate
from .options import COLOUR, SCALE, SHARD, SUFFIX, WIDTH_BY_HEIGHT
from .plan import Job, Naming, Sizing, find_inputs, plan
from .report import Report
from .workers import share_out

DEFAULT_SCALE = 4.0


FORMAT_NAMES = list(dict.fromkeys(n for f in OUTPUTS for n in (f, output_format(f).suffixes[0].lstrip("."))))


@click.command("upscale")
# readable=False: a file that may not be read is a failed picture, and the others go on.
@click.argument(
    "inputs", metavar="IN...", nargs=-1, required=True, type=click.Path(readable=False, path_type=Path)
)
@click.option(
    "-o",
    "--output",
    "out",
    metavar="FILE|FOLDER",
    type=click.Path(readable=False),  # a Path would lose the slash at its end
    help="A folder, made if need be; or, for one input, a file.  [default: beside each input]",
)
@click.option("-r", "--recursive", is_flag=True, help="Search the subfolders of folders too.")
@click.option(
    "-m",
    "--model",
    metavar="NAME|FOLDER|REPO",
    help="See clit-zoo list.  [default: chosen for each picture]",
)
@click.option(
    "--strength",
    type=click.FloatRange(0, 1),
    metavar="0-1",
    help="How much to clean, from 0, for clean pictures, to 1, for JPEGs and noise.  [default: chosen]",
)
@click.option("--explain", is_flag=True, help="Say why a picture's model was chosen.")
@click.option("-s", "--scale", type=SCALE, help="Any number from 1.  [default: 4]")
@click.option("--width", type=click.IntRange(min=1), help="Output width in pixels; the height follows.")
@click.option("--height", type=click.IntRange(min=1), help="Output height in pixels; the width follows.")
@click.option("--size", type=WIDTH_BY_HEIGHT, help="Output width and height, such as 1920x1080.")
@click.option("--fit", is_flag=True, help="Keep the shape: the largest picture within --size.")
@click.option("--fill", is_flag=True, help="Keep the shape: crop what goes beyond --size.")
@click.option(
    "--device",
    default="auto",
    show_default=True,
    help="auto, cpu, cuda, cuda:1, mps …; all GPUs, or those named with commas, share the pictures.",
)
@precision_options("Compute in float32.")
@click.option("--backend", default="auto", show_default=True, help="auto, torch, triton or reference.")
@click.option(
    "--format",
    type=click.Choice(FORMAT_NAMES, case_sensitive=False),
    help="Output format.  [default: that of -o FILE, else the input's, else png]",
)
@click.option(
    "--quality", type=click.IntRange(1, 100), help="Of JPEG and WebP; WebP at 100 is lossless.  [default: 95]"
)
@click.option(
    "--iiif", metavar="URL", help="Write folders of tiles for web servers; URL is where -o will be."
)
@click.option("--flatten", type=COLOUR, help="Lay transparent pictures on white, #202020 …")
@click.option("--suffix", type=SUFFIX, help="Ends output names instead of _x{scale}_{model}.")
@click.option("--skip-existing", is_flag=True, help="Leave out pictures whose output exists.")
@click.option("--overwrite", is_flag=True, help="Replace outputs that exist.")
@click.option(
    "--shard",
    type=SHARD,
    default="0/1",
    help="Enlarge only part R, from 0, of N: each run of N on the same inputs takes another.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of lines.")
@click.option("--dry-run", is_flag=True, help="Show names, sizes, memory and time, and write nothing.")
def command(
    inputs: tuple[Path, ...],
    out: str | None,
    recursive: bool,
    model: str | None,
    strength: float | None,
    explain: bool,
    scale: float | None,
    width: int | None,
    height: int | None,
    size: Size | None,
    fit: bool,
    fill: bool,
    device: str,
    dtype: str | None,
    backend: str,
    format: str | None,
    quality: int | None,
    iiif: str | None,
    flatten: str | None,
    suffix: str | None,
    skip_existing: bool,
    overwrite: bool,
    shard: tuple[int, int],
    as_json: bool,
    dry_run: bool,
) -> int:
    """Enlarge the pictures IN (files or folders) by any factor.

    JPEGs, lossy WebP and noisy pictures are also cleaned, by a model of their own; -m or --strength decides
    otherwise. Outputs are called {name}_x{scale}_{model}.{ext}. Transparency, gray, 16 bits, ICC profile,
    EXIF, XMP and resolution survive. A picture that fails is named, and the others go on; the exit code is 0
    only if all is done.

    \b
    clit-zoo upscale photo.jpg -s 3.7
    clit-zoo upscale holiday/ -r -o large/ --width 3840 --format webp
    """
    one_of(scale=scale, width=width, height=height, size=size)
    one_of(model=model, strength=strength)
    one_of(skip_existing=skip_existing, overwrite=overwrite)
    if fit + fill > (size is not None):
        raise click.UsageError("Give --fit or --fill, and the --size that it is for.")
    if (scale, width, height, size) == (None, None, None, None):
        scale = DEFAULT_SCALE

    if iiif is not None:
        one_of(iiif=iiif, format=format, quality=quality, fill=fill, overwrite=overwrite)
        iiif = check_address(iiif)

    started = time.monotonic()
    _quiet()
    single = _is_single_file(inputs, out, format)
    sizing = Sizing(scale, width, height, size, "fit" if fit else "fill" if fill else "stretch")
    name = _model_name(model) if strength is None else name_at(strength)
    place = None if out is None else Path(out)
    jobs = plan(
        list(find_inputs(inputs, recursive, place)),
        name,
        sizing,
        Naming(place, single, suffix, format, tiled=iiif is not None),
        flatten=flatten is not None,
        skip_existing=skip_existing,
        overwrite=overwrite,
        shard=shard,
    )
    report = Report(jobs, as_json=as_json, dry_run=dry_run, explain=explain, started=started)
    planned = [job for job in jobs if job.status == "planned"]
    for job in jobs:
        if job.status != "planned":
            report.finished(job)
    try:
        if dry_run:
            _estimate(planned, model, dtype, "auto" if device == "all" else device, report)
        elif planned:
            names = list(dict.fromkeys(job.model for job in planned))
            given = {
                "sizing": sizing, "quality": quality, "flatten": flatten, "overwrite": overwrite,
                "iiif": iiif, "out": place,
            }  # fmt: skip
            ready = functools.partial(_ready, names, model, dtype, backend, strength, given)
            _enlarge_all(planned, _devices(device)[: len(planned)], ready, report)
    finally:  # after an interruption too, what has been done is told
        report.end()
    return int(any(job.status == "failed" for job in jobs))


_BAR = "{desc}{percentage:3.0f}%|{bar}| {n:.1f}/{total:.1f} Mpx [{elapsed}<{remaining}]"


def _ready(
    names: list[str],
    model: str | None,
    dtype: str | None,
    backend: str,
    strength: float | None,
    given: dict[str, Any],
    device: str,
) -> Enlarging:
    """What enlarges on a device, its models loaded there."""
    _quiet()
    models = {name: load(model or name, device, dtype, backend, strength) for name in names}
    return Enlarging(models, **given)


def _quiet() -> None:
    warnings.filterwarnings("ignore", module="PIL")  # remarks on odd metadata; ours say what matters


def _devices(device: str) -> list[str]:
    """The devices that share the pictures.

    Raises:
        ConfigError: one of them is not here.
    """
    if device == "all":
        return [f"cuda:{index}" for index in range(torch.cuda.device_count())] or ["auto"]
    names = device.split(",")
    for name in names:
        pick_device(name)
    return names


def _enlarge_all(
    jobs: list[Job], devices: list[str], ready: Callable[[str], Enlarging], report: Report
) -> None:
    for folder in {job.target.parent for job in jobs if job.target is not None}:
        remove_stale(folder)
    enlarge = ready(devices[0]) if len(devices) == 1 else None  # before a bar is shown
    megapixels = {id(job): math.prod(job.output_size or ()) / 1e6 for job in jobs}
    done = dict.fromkeys(megapixels, 0.0)
    # disable=None: no bar where nobody watches
    with tqdm(
        total=sum(megapixels.values()),
        unit="Mpx",
        disable=None,
        bar_format=_BAR,
        dynamic_ncols=True,
        smoothing=0,
    ) as bar:  # fmt: skip

        def progress(job: Job, fraction: float) -> None:
            bar.set_description(job.source.name[:30], refresh=False)
            before, done[id(job)] = done[id(job)], megapixels[id(job)] * fraction
            bar.update(done[id(job)] - before)

        def finished(job: Job) -> None:
            progress(job, 1.0)
            with bar.external_write_mode():
                report.finished(job)

        if enlarge is None:
            cores = threads.use_free_cores()
            share_out(jobs, devices, ready, progress, finished, max(1, cores // len(devices)))
            return
        for job in jobs:
            job.run(enlarge, functools.partial(progress, job))
            finished(job)


def _is_single_file(inputs: tuple[Path, ...], out: str | None, format: str | None) -> bool:
    """Whether -o names a file rather than a folder; UsageError where it fits the inputs in neither way."""
    folders = [path for path in inputs if os.path.isdir(path)]
    several = bool(folders) or len(inputs) > 1
    form = None if out is None else by_suffix(out)
    wrong = ""
    if out is None:
        if folders:
            wrong = f"{folders[0]} is a folder: give -o FOLDER for the outputs."
    elif any(os.path.realpath(out) == os.path.realpath(folder) for folder in folders):
        wrong = f"-o {out} is an input folder, and the next run would enlarge its outputs: give another one."
    elif os.path.isdir(out) or out.endswith(("/", os.sep)):
        return False
    elif form is None and os.path.lexists(out):
        wrong = f"-o {out} is a file that is no picture: give a folder."
    elif form is None and (several or not Path(out).suffix):
        return False
    elif form is None or form.output is None:
        as_folder = f"; for a folder give {out}/" if form is None else ""
        wrong = f"cannot write {Path(out).suffix.lower()}: the formats are {', '.join(OUTPUTS)}{as_folder}."
    elif several:
        wrong = f"-o {out} is one file, and there are several inputs: give a folder."
    elif format is not None and output_format(format) is not form:
        wrong = f"--format {format} contradicts -o {out}: leave out one of them."
    else:
        return True
    if wrong:
        raise click.UsageError(wrong)
    return False


def _model_name(model: str | None) -> str | None:
    """What output names call the model; None where each picture has its own.

    Raises:
        ModelNotFoundError: the name can be nothing.
    """
    if model is None:
        return None
    if model not in registry.REGISTRY:
        folder = Path(model).expanduser()
        if os.path.isfile(folder / CONFIG_FILE):
            return ModelConfig.from_json(folder / CONFIG_FILE).name
        if not re.search(r"[/\\]", model) and not os.path.isdir(folder):
            registry.get(model)  # raises, with close matches
    return model.rstrip("/\\").replace("\\", "/").rsplit("/", 1)[-1]


def _estimate(jobs: list[Job], model: str | None, dtype: str | None, device: str, report: Report) -> None:
    """Fill in what each job would take; nothing is downloaded for it."""
    model = model or CLEAN  # the others that may be chosen are as large
    config = None
    if model in registry.REGISTRY:
        config = registry.get(model).config
        if registry.status(model) == "no weights yet":
            hub.resolve(model)  # raises, saying what to do
    elif os.path.isdir(Path(model).expanduser()):
        config = ModelConfig.from_json(hub.resolve(model).config_path)
    if config is None:
        for job in jobs:
            report.finished(job)
        return
    threads.use_free_cores()
    estimate = Estimate(config, getattr(torch, dtype or "float32"), pick_device(device.split(",")[0]))
    for job in jobs:
        if job.input_size and job.output_size:
            sizes = (job.input_size, job.output_size, job.box, job.pixel_bytes)
            job.memory_bytes = estimate.memory(*sizes, in_rows=in_rows(job))
            job.forecast_seconds = round(estimate.seconds(*sizes), 1)
        report.finished(job)
