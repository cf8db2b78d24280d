"""What one run of ``clit-zoo upscale`` will do, settled before any pixel is computed."""

import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ...choice import choose
from ...errors import ClitZooError, ImageError, is_out_of_memory, said_by_system
from ...geometry import Box, Size, output_size
from ...imaging import check_output, is_picture_name, output_format, probe
from ...imaging.formats import OUTPUTS, Format, why_unreadable

Status = Literal["planned", "done", "skipped", "failed"]


@dataclass(frozen=True)
class Sizing:
    """The size asked for: a scale, a width or a height (the other side follows), or both sides.

    shape: what becomes of a picture whose sides are in another ratio than ``size``: "stretch" makes it that
    size, "fit" the largest of its own ratio within, "fill" crops its longer sides equally.
    """

    scale: float | None = None
    width: int | None = None
    height: int | None = None
    size: Size | None = None
    shape: Literal["stretch", "fit", "fill"] = "stretch"

    def place(self, h: int, w: int) -> tuple[Size, Box | None]:
        """Output size of an h×w picture, and the part of it that is shown where that is not all.

        Raises:
            ScaleError: a model cannot produce it.
        """
        if self.scale is not None:
            return output_size(h, w, scale=self.scale), None
        if self.width is not None:
            return output_size(h, w, size=(round(h * self.width / w), self.width)), None
        if self.height is not None:
            return output_size(h, w, size=(self.height, round(w * self.height / h))), None
        assert self.size is not None
        height, width = self.size
        if self.shape == "stretch":
            return output_size(h, w, size=self.size), None
        ratios = (height / h, width / w)
        scale = min(ratios) if self.shape == "fit" else max(ratios)
        whole = output_size(h, w, size=(round(h * scale), round(w * scale)))
        if self.shape == "fit" or whole == self.size:
            return whole, None
        # whole output pixels are cut off, so that those left are the pixels of the whole
        top, left = (whole[0] - height) // 2, (whole[1] - width) // 2
        y, x = h / whole[0], w / whole[1]
        return self.size, (left * x, top * y, (left + width) * x, (top + height) * y)

    def label(self, h: int, w: int) -> str:
        """The size in a file name: x3.7, or 1920x1080 where both sides were asked for."""
        if self.size is not None:
            return f"{self.size[1]}x{self.size[0]}"
        if self.scale is not None:
            return f"x{self.scale:g}"
        (height, width), _ = self.place(h, w)
        return f"x{width / w if self.width else height / h:.4g}"

    def notices(self, h: int, w: int) -> list[str]:
        """What a person should know of the shape."""
        if self.size is None or self.shape != "stretch":
            return []
        height, width = self.size
        if abs(height - h * width / w) <= 1 or abs(width - w * height / h) <= 1:
            return []
        return [f"{w}×{h} to {width}×{height} changes its shape: --fit keeps it whole, --fill crops it."]


@dataclass(frozen=True)
class Naming:
    """Where outputs go and what they are called.

    out: a folder, or a file if ``single``, or None for beside each input. suffix replaces
    ``_x{scale}_{model}``. tiled: each output is a folder of tiles.
    """

    out: Path | None
    single: bool
    suffix: str | None = None
    format: str | None = None
    tiled: bool = False

    def form(self, input_format: str) -> Format:
        """The output format: as asked, else by the output file's suffix, else the input's, else PNG."""
        if self.format is not None:
            return output_format(self.format)
        if self.single and self.out is not None:
            return output_format(self.out)
        return output_format(input_format if input_format in OUTPUTS else "png")

    def folder(self, item: "Input") -> Path:
        return item.path.parent if self.out is None else self.out / item.below

    def target(self, item: "Input", label: str, model: str, ending: str) -> Path:
        if self.single and self.out is not None:
            return self.out
        model = re.sub(r"[^A-Za-z0-9._-]+", "-", model)
        suffix = f"_{label}_{model}" if self.suffix is None else self.suffix
        return self.folder(item) / f"{item.path.stem}{suffix}{ending}"


@dataclass(frozen=True)
class Input:
    """A file to enlarge. below: its folder within the folder that was named, kept under the output folder."""

    path: Path
    below: Path = Path()


@dataclass
class Job:
    """One picture; sizes are (h, w)."""

    source: Path
    model: str = ""  # what enlarges it: the one place that says so
    why: str | None = None  # this model, where it was chosen for the picture
    target: Path | None = None
    format: str | None = None
    input_size: Size | None = None
    output_size: Size | None = None
    box: Box | None = None  # the part of it that is shown; all where None
    status: Status = "planned"
    reason: str | None = None  # why it failed or was skipped
    notices: list[str] = field(default_factory=list)
    seconds: float | None = None
    pixel_bytes: int = 3  # of a stored pixel
    memory_bytes: int | None = None
    forecast_seconds: float | None = None

    def place(self, sizing: Sizing, h: int, w: int) -> None:
        """Settle its sizes."""
        self.input_size, (self.output_size, self.box) = (h, w), sizing.place(h, w)

    def run(
        self, enlarge: Callable[["Job", Callable[[float], None]], None], progress: Callable[[float], None]
    ) -> None:
        """Let it be done, timed; an error is its own."""
        began = time.monotonic()
        try:
            enlarge(self, progress)
            self.status = "done"
        except Exception as error:  # whatever it is, the next picture may be fine
            self.fail(error)
        self.seconds = round(time.monotonic() - began, 3)

    def fail(self, error: Exception | str) -> None:
        """Let it fail with an error's words, whatever the error is: the next picture may be fine."""
        reason = str(error)
        if isinstance(error, Exception) and not isinstance(error, ClitZooError):
            logging.getLogger("clit_zoo").debug("%s failed", self.source, exc_info=error)
            reason = self._explained(error)
        self.status = "failed"
        self.reason = reason if str(self.source) in reason else f"{self.source}: {reason}"

    def _explained(self, error: Exception) -> str:
        if is_out_of_memory(error):
            height, width = self.output_size or (0, 0)
            return (
                f"not enough memory for {width}×{height}; take a light model, close other programs, or give "
                "another --device."
            )
        if isinstance(error, OSError) and error.strerror:
            return said_by_system(error, self.source)
        first = next(iter(str(error).strip().splitlines()), "")
        return f"{type(error).__name__}: {first}"

    def skip(self, reason: str) -> None:
        self.status, self.reason = "skipped", reason


def find_inputs(paths: Sequence[Path], recursive: bool, out: Path | None) -> Iterator[Input | Job]:
    """The files named and the pictures in the folders named, each once; a failed Job for what is not there.

    Folders are searched for picture suffixes, sorted, hidden names and the output folder left out; subfolders
    only if ``recursive``. A folder that may not be read is a failed Job; a photograph in a format that cannot
    be read is a skipped one, unless its folder holds nothing else, which is a failed one.
    """
    seen: set[str] = set()
    for path in paths:
        found = list(_in_folder(path, recursive, out)) if os.path.isdir(path) else [Input(path)]
        if all(isinstance(item, Job) and item.status == "skipped" for item in found):
            yield _without_pictures(path, [item for item in found if isinstance(item, Job)], recursive)
            continue
        for item in found:
            real = os.path.realpath(item.source if isinstance(item, Job) else item.path)
            if real not in seen:
                seen.add(real)
                yield item


def _without_pictures(folder: Path, unreadable: list[Job], recursive: bool) -> Job:
    only = ""
    if unreadable:
        names = ", ".join(str(job.source.relative_to(folder)) for job in unreadable[:3])
        more = f" and {len(unreadable) - 3} more" if len(unreadable) > 3 else ""
        only = f" that can be read, only {names}{more}: {unreadable[0].reason}"
    job = Job(folder)
    job.fail(f"the folder {folder} holds no pictures{only}" + ("." if recursive else "; -r searches deeper."))
    return job


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
        for name in sorted(name for name in names if not name.startswith(".")):
            if is_picture_name(name):
                yield Input(Path(here, name), Path(here).relative_to(folder))
            elif reason := why_unreadable(name):
                yield Job(Path(here, name), status="skipped", reason=reason)
    for error in unread:
        job = Job(Path(error.filename))
        job.fail(f"the folder {error.filename} cannot be read ({error.strerror}), nor what is in it.")
        yield job


def plan(
    inputs: Sequence[Input | Job],
    model: str | None,
    sizing: Sizing,
    naming: Naming,
    *,
    flatten: bool = False,
    skip_existing: bool = False,
    overwrite: bool = False,
    shard: tuple[int, int] = (0, 1),
) -> list[Job]:
    """A Job for each input of a shard (R, N), with the model that suits it where ``model`` is None.

    It has failed already where it cannot end well: unreadable, too large for its format, a name taken by
    another input's output or by a file that may not be replaced.
    """
    sources = {os.path.realpath(item.path) for item in inputs if isinstance(item, Input)}
    taken: dict[str, Path] = {}
    jobs = []
    for item in _of_shard(inputs, naming, *shard):
        if isinstance(item, Job):
            jobs.append(item)
            continue
        job = Job(item.path, model or "")
        jobs.append(job)
        try:
            if model is None:
                job.model, job.why = choose(item.path)
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
        except Exception as error:
            job.fail(error)
    return jobs


def _of_shard(
    inputs: Sequence[Input | Job], naming: Naming, shard: int, shards: int
) -> Iterator[Input | Job]:
    """Every Nth of the inputs. Those whose outputs may get one name go together, so that a clash is seen."""
    turns: dict[str, int] = {}
    for item in inputs:
        if isinstance(item, Job):
            key = str(item.source)
        else:
            key = os.path.join(os.path.realpath(naming.folder(item)), item.path.stem)
        if turns.setdefault(key.casefold(), len(turns)) % shards == shard:
            yield item


def _settle(job: Job, item: Input, sizing: Sizing, naming: Naming, flatten: bool) -> None:
    header = probe(item.path)
    size = (header.height, header.width)
    job.place(sizing, *size)
    job.pixel_bytes = ((1 if header.gray else 3) + header.alpha) * header.bits // 8
    assert job.output_size is not None
    job.notices, label = sizing.notices(*size), sizing.label(*size)
    if naming.tiled:
        job.format, job.target = "iiif", naming.target(item, label, job.model, "")
        return
    form = naming.form(header.format)
    job.format = form.name
    job.notices += check_output(
        form.name, job.output_size, alpha=header.alpha, bits=header.bits, flatten=flatten
    )
    job.target = naming.target(item, label, job.model, form.suffixes[0])


def check_target(target: Path, overwrite: bool, skip_existing: bool = False) -> None:
    """Refuse to write onto something that is there, a link to nowhere too, or where nothing can be."""
    try:
        os.lstat(target)
    except FileNotFoundError:
        return
    except OSError as error:  # a name that is too long, say, which the enlargement must not be wasted on
        raise ImageError(
            f"its output {target} cannot be made ({error.strerror}); give another -o or --suffix."
        ) from error
    if os.path.isdir(target) and not (skip_existing and os.path.isfile(target / "info.json")):
        raise ImageError(f"its output {target} is a folder; give another -o.")
    if not overwrite and not skip_existing:
        raise ImageError(f"{target} exists; --overwrite replaces it, --skip-existing leaves it.")


def _same_file(target: Path, source: Path) -> bool:
    return os.path.exists(target) and os.path.samefile(target, source)
