"""What one run of `clit-zoo upscale` will do, settled before any pixel is computed: inputs, sizes, names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ...errors import ClitZooError, ImageError
from ...imaging import check_output, format_of, is_picture_name, probe
from ...imaging.formats import (
    OUTPUT_FORMATS,
    UNREADABLE,
    WEB_ADDRESS,
    OutputFormat,
    is_unreadable_name,
    web_address,
)

Status = Literal["planned", "done", "skipped", "failed"]


@dataclass(frozen=True)
class Sizing:
    """The size asked for: a scale, a width or a height (the other side follows), or both sides exactly."""

    scale: float | None = None
    width: int | None = None
    height: int | None = None
    size: tuple[int, int] | None = None  # (width, height)

    def target(self, h: int, w: int) -> tuple[int, int]:
        """Output (H, W) of an h×w picture. Raises ScaleError where a model cannot produce it."""
        from ...geometry import output_size

        if self.scale is not None:
            return output_size(h, w, scale=self.scale)
        if self.size is not None:
            return output_size(h, w, size=(self.size[1], self.size[0]))
        if self.width is not None:
            return output_size(h, w, size=(round(h * self.width / w), self.width))
        assert self.height is not None
        return output_size(h, w, size=(self.height, round(w * self.height / h)))

    def label(self, h: int, w: int) -> str:
        """The size in a file name: x3.7, or 1920x1080 where both sides were asked for."""
        if self.size is not None:
            return f"{self.size[0]}x{self.size[1]}"
        height, width = self.target(h, w)
        ratio = self.scale or (width / w if self.width else height / h)
        return f"x{ratio:g}" if self.scale else f"x{ratio:.4g}"


@dataclass(frozen=True)
class Naming:
    """Where outputs go and what they are called.

    out: a folder, or a file if `single`, or None for beside each input. model: of all pictures, or None to
    choose one for each. suffix replaces `_x{scale}_{model}`.
    """

    out: Path | None
    single: bool
    model: str | None
    suffix: str | None = None
    format: str | None = None

    def form(self, input_format: str) -> OutputFormat:
        """The output format: as asked, else by the output file's extension, else the input's, else PNG."""
        if self.format is not None:
            return format_of(self.format)
        if self.single and self.out is not None:
            return format_of(self.out)
        return OUTPUT_FORMATS.get(input_format, OUTPUT_FORMATS["png"])

    def target(self, item: Input, label: str, model: str, form: OutputFormat) -> Path:
        if self.single and self.out is not None:
            return self.out
        model = re.sub(r"[^A-Za-z0-9._-]+", "-", model)
        suffix = f"_{label}_{model}" if self.suffix is None else self.suffix
        folder = item.path.parent if self.out is None else self.out / item.below
        return folder / f"{item.path.stem}{suffix}.{form.extensions[0]}"


@dataclass(frozen=True)
class Input:
    """A file to enlarge. below: its folder within the folder that was named, kept under the output folder."""

    path: Path
    below: Path = Path()


@dataclass
class Job:
    """One picture: sizes are (width, height) in pixels."""

    source: Path
    target: Path | None = None
    format: str | None = None
    input_size: tuple[int, int] | None = None
    output_size: tuple[int, int] | None = None
    model: str | None = None
    why: str | None = None  # this model, where it was chosen for the picture
    status: Status = "planned"
    reason: str | None = None  # why it failed or was skipped
    notices: list[str] = field(default_factory=list)
    seconds: float | None = None
    memory_bytes: int | None = None

    def fail(self, reason: str) -> None:
        named = str(self.source) in reason
        self.status, self.reason = "failed", reason if named else f"{self.source}: {reason}"

    def skip(self, reason: str) -> None:
        self.status, self.reason = "skipped", reason


def find_inputs(paths: Sequence[Path], recursive: bool, out: Path | None) -> Iterator[Input | Job]:
    """The files named and the pictures in the folders named, each once; a failed Job for what is not there.

    Folders are searched for picture extensions, sorted, hidden names and the output folder left out;
    subfolders only if `recursive`. A folder that may not be read is a failed Job; a photograph in a format
    that cannot be read is a skipped one, unless its folder holds nothing else, which is a failed one.
    """
    seen: set[str] = set()
    for path in paths:
        if (address := web_address(path)) and not os.path.lexists(path):
            yield Job(path, status="failed", reason=f"{address} {WEB_ADDRESS}")
            continue
        found = list(_in_folder(path, recursive, out)) if os.path.isdir(path) else [Input(path)]
        if all(isinstance(item, Job) and item.status == "skipped" for item in found):
            job = Job(path)
            job.fail(
                f"the folder {path} holds no pictures"
                + _only([str(item.source.relative_to(path)) for item in found if isinstance(item, Job)])
                + ("." if recursive else "; -r searches its subfolders.")
            )
            yield job
            continue
        for item in found:
            real = os.path.realpath(item.source if isinstance(item, Job) else item.path)
            if real not in seen:
                seen.add(real)
                yield item


def _only(names: list[str]) -> str:
    """What is there instead of pictures that can be read."""
    if not names:
        return ""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (
        f" in a format that can be read, only {', '.join(names[:3])}{more}: save as JPEG, PNG or TIFF first"
    )


def _in_folder(folder: Path, recursive: bool, out: Path | None) -> Iterator[Input | Job]:
    left_out = os.path.realpath(out) if out is not None else None
    unread: list[OSError] = []
    for here, subfolders, names in os.walk(folder, onerror=unread.append):
        subfolders[:] = sorted(
            name
            for name in subfolders
            if recursive
            and not name.startswith(".")
            and os.path.realpath(os.path.join(here, name)) != left_out
        )
        below = Path(here).relative_to(folder)
        for name in sorted(names):
            if name.startswith("."):
                continue
            if is_picture_name(name):
                yield Input(Path(here, name), below)
            elif is_unreadable_name(name):
                job = Job(Path(here, name))
                job.skip(UNREADABLE)
                yield job
    for error in unread:
        job = Job(Path(error.filename))
        job.fail(
            f"the folder {error.filename} cannot be read ({error.strerror}), nor what is in it; check its "
            "permissions."
        )
        yield job


def plan(
    inputs: Sequence[Input | Job],
    sizing: Sizing,
    naming: Naming,
    *,
    flatten: bool = False,
    skip_existing: bool = False,
    overwrite: bool = False,
) -> list[Job]:
    """A Job for each input, failed already where it cannot end well: unreadable, too large for its format,
    a name taken by another input's output or by a file that may not be replaced."""
    sources = {os.path.realpath(item.path) for item in inputs if isinstance(item, Input)}
    taken: dict[str, Path] = {}
    jobs = []
    for item in inputs:
        if isinstance(item, Job):
            jobs.append(item)
            continue
        job = Job(item.path)
        jobs.append(job)
        try:
            _settle(job, item, sizing, naming, flatten)
            assert job.target is not None
            real = os.path.normcase(os.path.realpath(job.target))
            if real in sources or _same_file(job.target, job.source):
                raise ImageError(
                    f"its output {job.target} would replace an input; give another -o or --suffix."
                )
            if real in taken:
                raise ImageError(
                    f"its output {job.target} is already that of {taken[real]}; enlarge them into different "
                    "folders, or one by one with another --suffix."
                )
            taken[real] = job.source
            check_target(job.target, overwrite, skip_existing)
            if skip_existing and os.path.lexists(job.target):
                job.skip(f"{job.target} exists")
        except ClitZooError as error:
            job.fail(str(error))
        except OSError as error:
            job.fail(f"{error.filename or job.source} cannot be used ({error.strerror or error}).")
    return jobs


def check_target(target: Path, overwrite: bool, skip_existing: bool = False) -> None:
    """Refuse to write onto something that is there, a link to nowhere too, or where nothing can be."""
    _check_names(target)
    try:
        os.lstat(target)
    except FileNotFoundError:
        return
    except OSError as error:
        raise ImageError(
            f"its output {target} cannot be made ({error.strerror}); give another -o."
        ) from error
    if os.path.isdir(target):
        raise ImageError(f"its output {target} is a folder; give another -o.")
    if not overwrite and not skip_existing:
        raise ImageError(f"{target} exists; --overwrite replaces it, --skip-existing leaves it.")


def _check_names(target: Path) -> None:
    """Refuse a name longer than its file system takes: writing would say so only after the enlargement."""
    names, folder = [target.name], target.parent
    while not os.path.isdir(folder) and folder != folder.parent:
        names.append(folder.name)
        folder = folder.parent
    try:
        most = os.pathconf(folder, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):  # not POSIX, or the file system does not say
        most = 255
    for name in names:
        if len(os.fsencode(name)) > most:
            raise ImageError(
                f"its output's name {name[:40]}… is too long ({len(os.fsencode(name))} bytes of at most "
                f"{most}); give a shorter --suffix or -o."
            )


def _settle(job: Job, item: Input, sizing: Sizing, naming: Naming, flatten: bool) -> None:
    header = probe(item.path)
    job.input_size = (header.width, header.height)
    height, width = sizing.target(header.height, header.width)
    job.output_size = (width, height)
    form = naming.form(header.format)
    job.format = form.name
    job.notices = check_output(
        form.name, width, height, alpha=header.alpha, bits=header.bits, flatten=flatten
    )
    if naming.model is None:
        from ...choice import choose

        job.model, job.why = choose(item.path)
    else:
        job.model = naming.model
    job.target = naming.target(item, sizing.label(header.height, header.width), job.model, form)


def _same_file(target: Path, source: Path) -> bool:
    return os.path.exists(target) and os.path.samefile(target, source)
