"""`clit-zoo upscale`: pictures in, larger pictures out; one bad picture never stops the others."""

from __future__ import annotations

import logging
import math
import os
import re
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...errors import ClitZooError, ImageError, is_out_of_memory
from ..loading import load, precision_options

if TYPE_CHECKING:
    from ...model import SuperResolver
    from .plan import Job, Sizing
    from .report import Report

DEFAULT_SCALE = 4.0


class Scale(click.ParamType):
    """A finite number of at least 1, such as 3.7."""

    name = "scale"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not (math.isfinite(number) and number >= 1):
            self.fail(f"{value!r} is no number of at least 1, such as 3.7.", param, ctx)
        return number


class Size(click.ParamType):
    """Width and height in pixels, such as 1920x1080."""

    name = "WxH"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"([1-9]\d{0,8})[xX×]([1-9]\d{0,8})", value.strip())
        if match is None:
            self.fail(f"{value!r} is no width and height in pixels, such as 1920x1080.", param, ctx)
        return int(match[1]), int(match[2])


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
    type=click.Path(readable=False, path_type=Path),
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
@click.option("-s", "--scale", type=Scale(), help="Any number from 1.  [default: 4]")
@click.option("--width", type=click.IntRange(min=1), help="Output width in pixels; the height follows.")
@click.option("--height", type=click.IntRange(min=1), help="Output height in pixels; the width follows.")
@click.option("--size", type=Size(), metavar="WxH", help="Output width and height, such as 1920x1080.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps …")
@precision_options("Compute in float32.")
@click.option("--backend", default="auto", show_default=True, help="auto, triton, torch or reference.")
@click.option(
    "--format",
    type=click.Choice(["png", "jpeg", "jpg", "webp", "tiff", "tif"], case_sensitive=False),
    help="Output format.  [default: that of -o FILE, else the input's, else png]",
)
@click.option(
    "--quality", type=click.IntRange(1, 100), help="Of JPEG and WebP; WebP at 100 is lossless.  [default: 95]"
)
@click.option("--flatten", metavar="COLOUR", help="Lay transparent pictures on white, #202020 …")
@click.option("--suffix", help="Ends output names instead of _x{scale}_{model}.")
@click.option("--skip-existing", is_flag=True, help="Leave out pictures whose output exists.")
@click.option("--overwrite", is_flag=True, help="Replace outputs that exist.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of lines.")
@click.option("--dry-run", is_flag=True, help="Show names, sizes and memory, and compute nothing.")
def command(
    inputs: tuple[Path, ...],
    out: Path | None,
    recursive: bool,
    model: str | None,
    strength: float | None,
    explain: bool,
    scale: float | None,
    width: int | None,
    height: int | None,
    size: tuple[int, int] | None,
    device: str,
    dtype: str | None,
    backend: str,
    format: str | None,
    quality: int | None,
    flatten: str | None,
    suffix: str | None,
    skip_existing: bool,
    overwrite: bool,
    as_json: bool,
    dry_run: bool,
) -> int:
    """Enlarge the pictures IN (files or folders) by any factor.

    JPEGs, lossy WebP and noisy pictures are also cleaned, by a model of their own; -m or --strength decides
    otherwise. Outputs are called {name}_x{scale}_{model}.{ext}. Transparency, gray, 16 bits, ICC profile,
    EXIF and resolution survive. A picture that fails is named, and the others go on; the exit code is 0 only
    if all is done.

    \b
    clit-zoo upscale photo.jpg -s 3.7
    clit-zoo upscale holiday/ -r -o large/ --width 3840 --format webp
    """
    if sum(choice is not None for choice in (scale, width, height, size)) > 1:
        raise click.UsageError("Give one of --scale, --width, --height and --size.")
    if model is not None and strength is not None:
        raise click.UsageError("Give one of --model and --strength, which mixes two models.")
    if skip_existing and overwrite:
        raise click.UsageError("Give one of --skip-existing and --overwrite.")
    if suffix is not None and re.search(r"[/\\\0]", suffix):
        raise click.BadParameter("it ends a file name and cannot hold a folder.", param_hint="'--suffix'")

    started = time.monotonic()
    # These import torch, for which --help has no time.
    from .plan import Naming, Sizing, find_inputs, plan
    from .report import Report

    _quieten()
    single = _is_single_file(inputs, out, format)
    _check_colour(flatten)
    name = _model_name(model, strength)
    sizing = Sizing(scale, width, height, size)
    if scale is None and width is None and height is None and size is None:
        sizing = Sizing(DEFAULT_SCALE)
    jobs = plan(
        list(find_inputs(inputs, recursive, out)),
        sizing,
        Naming(out, single, name, suffix, format),
        flatten=flatten is not None,
        skip_existing=skip_existing,
        overwrite=overwrite,
    )
    report = Report(jobs, as_json=as_json, dry_run=dry_run, explain=explain, started=started)
    for job in jobs:
        if job.status != "planned":
            report.finished(job)
    try:
        planned = [job for job in jobs if job.status == "planned"]
        if dry_run:
            _estimate(planned, model, dtype, report)
        elif planned:
            names = dict.fromkeys(str(job.model) for job in planned)
            models = {name: load(model or name, device, dtype, backend, strength) for name in names}
            _enlarge_all(planned, models, sizing, report, quality, flatten, overwrite)
    finally:  # after an interruption too, what has been done is told
        report.end()
    return int(any(job.status == "failed" for job in jobs))


def _enlarge_all(
    jobs: list[Job],
    models: dict[str, SuperResolver],
    sizing: Sizing,
    report: Report,
    quality: int | None,
    flatten: str | None,
    overwrite: bool,
) -> None:
    from tqdm import tqdm

    megapixels = [math.prod(job.output_size or ()) / 1e6 for job in jobs]
    # disable=None: no bar where nobody watches
    with tqdm(total=sum(megapixels), unit="Mpx", disable=None, bar_format=_BAR, dynamic_ncols=True) as bar:
        done = 0.0
        for job, share in zip(jobs, megapixels):
            bar.set_description(job.source.name[:30])

            def progress(fraction: float, before: float = done, share: float = share) -> None:
                bar.update(before + share * fraction - bar.n)

            began = time.monotonic()
            try:
                _enlarge(job, models[str(job.model)], sizing, progress, quality, flatten, overwrite)
                job.status = "done"
            except ClitZooError as error:
                job.fail(str(error))
            except Exception as error:  # whatever it is, the next picture may be fine
                logging.getLogger("clit_zoo").debug("%s failed", job.source, exc_info=True)
                job.fail(_explained(error, job))
            job.seconds = round(time.monotonic() - began, 3)
            progress(1.0)
            done += share
            with bar.external_write_mode():
                report.finished(job)


_BAR = "{desc}{percentage:3.0f}%|{bar}| {n:.1f}/{total:.1f} Mpx [{elapsed}<{remaining}]"


def _enlarge(
    job: Job,
    resolver: SuperResolver,
    sizing: Sizing,
    progress: Any,
    quality: int | None,
    flatten: str | None,
    overwrite: bool,
) -> None:
    from ... import imaging
    from .plan import check_target

    assert job.target is not None and job.format is not None
    picture = imaging.read(job.source)
    job.notices = list(picture.notices)
    height, width = sizing.target(picture.height, picture.width)
    if (width, height) != job.output_size:  # the header had an orientation that only decoding shows
        job.input_size, job.output_size = (picture.width, picture.height), (width, height)
    if flatten is not None:
        picture = imaging.flattened(picture, flatten)
    imaging.check_output(job.format, width, height, alpha=picture.alpha is not None, bits=picture.bits)

    output = resolver.open(picture).render(size=(height, width), progress=progress)
    _make_folder(job.target.parent)
    check_target(job.target, overwrite)  # it may have come into being since the plan
    job.notices += imaging.write(output, job.target, job.format, quality)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImageError(f"cannot make the folder {folder}: {error.strerror}; give another -o.") from error


def _explained(error: Exception, job: Job) -> str:
    if is_out_of_memory(error):
        width, height = job.output_size or (0, 0)
        return f"not enough memory for {width}×{height}; take a smaller scale, or another --device."
    text = str(error).strip().splitlines()[0] if str(error).strip() else ""
    return f"{type(error).__name__}: {text}"


def _is_single_file(inputs: tuple[Path, ...], out: Path | None, format: str | None) -> bool:
    """Whether -o names a file rather than a folder; UsageError where it fits the inputs in neither way."""
    from ...imaging.formats import OUTPUT_FORMATS, format_of

    folders = [path for path in inputs if os.path.isdir(path)]
    if out is None:
        if folders:
            raise click.UsageError(f"{folders[0]} is a folder: give -o FOLDER for the outputs.")
        return False
    for folder in folders:
        if os.path.exists(out) and os.path.samefile(out, folder):
            raise click.UsageError(
                f"-o {out} is an input folder, and the next run would enlarge its outputs: give another one."
            )
    if os.path.isdir(out) or str(out).endswith(("/", "\\")):
        return False
    suffix = out.suffix.lower().lstrip(".")
    known = {extension for form in OUTPUT_FORMATS.values() for extension in form.extensions}
    if suffix not in known:
        if suffix in _FOREIGN:
            raise click.UsageError(f"cannot write .{suffix}; the formats are {', '.join(OUTPUT_FORMATS)}.")
        if os.path.lexists(out):
            raise click.UsageError(f"-o {out} is a file that is no picture: give a folder.")
        return False
    if folders or len(inputs) > 1:
        raise click.UsageError(f"-o {out} is one file, and there are several inputs: give a folder.")
    if format is not None and format_of(format) is not format_of(out):
        raise click.UsageError(f"--format {format} contradicts -o {out}: leave out one of them.")
    return True


# Picture formats that are read or well known, but not written.
_FOREIGN = {
    "gif",
    "bmp",
    "avif",
    "heic",
    "heif",
    "jp2",
    "jxl",
    "ppm",
    "pgm",
    "tga",
    "ico",
    "psd",
    "svg",
    "exr",
    "pdf",
}


def _check_colour(flatten: str | None) -> None:
    from PIL import ImageColor

    if flatten is not None:
        try:
            ImageColor.getrgb(flatten)
        except ValueError as error:
            raise click.BadParameter(
                f"{flatten!r} is no colour: give a name such as white, or a code such as #202020.",
                param_hint="'--flatten'",
            ) from error


def _model_name(model: str | None, strength: float | None) -> str | None:
    """What output names call the model, None where each picture has its own.

    Raises:
        ModelNotFoundError: the name can be nothing.
    """
    from ...zoo import registry
    from ...zoo.config import ModelConfig
    from ...zoo.folder import CONFIG_FILE

    if strength is not None:
        from ...choice import name_at

        return name_at(strength)
    if model is None:
        return None
    if model not in registry.REGISTRY:
        folder = Path(model).expanduser()
        if os.path.isfile(folder / CONFIG_FILE):
            return ModelConfig.from_json(folder / CONFIG_FILE).name
        if not re.search(r"[/\\]", model) and not os.path.isdir(folder):
            registry.get(model)  # raises, with close matches
    return model.rstrip("/\\").replace("\\", "/").rsplit("/", 1)[-1]


def _estimate(jobs: list[Job], model: str | None, dtype: str | None, report: Report) -> None:
    """Fill in what each job would take; nothing is downloaded for it."""
    from ...choice import CLEAN
    from ...zoo import hub, registry
    from ...zoo.config import ModelConfig
    from .memory import estimate_bytes

    model = model or CLEAN  # the others that may be chosen are as large
    config = None
    if model in registry.REGISTRY:
        config = registry.get(model).config
        if registry.status(model) == "no weights yet":
            hub.resolve(model)  # raises, saying what to do
    elif os.path.isdir(Path(model).expanduser()):
        config = ModelConfig.from_json(hub.resolve(model).config_path)
    for job in jobs:
        if config is not None and job.input_size and job.output_size:
            (w, h), (width, height) = job.input_size, job.output_size
            half = dtype in ("float16", "bfloat16")
            job.memory_bytes = estimate_bytes(config, h, w, (height, width), 2 if half else 4)
        report.finished(job)


def _quieten() -> None:
    """Decoders remark on odd metadata in ways of their own; what matters is in our notices and errors."""
    warnings.filterwarnings("ignore", module="PIL")
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
