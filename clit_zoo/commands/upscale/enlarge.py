"""One picture from file to file: by way of memory, or row by row where its output is large."""

import functools
import hashlib
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
import numpy as np

from ... import imaging
from ...choice import CLEAN
from ...errors import ImageError
from ...imaging.formats import output_format, stored_bits
from ...imaging.large import is_large, write_large
from ...imaging.picture import SAMPLE_TYPES, Picture
from ...imaging.spool import spool_path
from ...imaging.write import kept_by
from ...model import SuperResolver
from ...page.static import write_static
from ...zoo import registry
from .memory import Estimate, free_bytes, resident_bytes
from .plan import Job, Sizing, check_target

SMALL_PIXELS = 1 << 20
"""An output of fewer is not asked whether it fits: any machine has room for it."""


@dataclass(frozen=True)
class Enlarging:
    """What all pictures of a run have in common."""

    models: dict[str, SuperResolver]
    sizing: Sizing
    quality: int | None
    flatten: str | None
    overwrite: bool
    iiif: str | None = None
    out: Path | None = None
    identities: dict[str, str] = field(default_factory=dict)

    def __call__(self, job: Job, progress: Callable[[float], None]) -> None:
        """Enlarge one picture from file to file."""
        assert job.target is not None and job.format is not None
        picture = imaging.read(job.source)
        job.notices = [*self.sizing.notices(picture.height, picture.width), *picture.notices]
        job.place(self.sizing, picture.height, picture.width)  # an orientation may show only in decoding
        assert job.output_size is not None
        if self.flatten is not None:
            picture = imaging.flattened(picture, self.flatten)
        if self.iiif is not None:
            place = job.target.relative_to(self.out or job.target.parent).as_posix()
            address, model = f"{self.iiif}/{quote(place)}", self.models[job.model]
            write_static(picture, model, job.output_size, job.target, address, progress=progress)
            return
        lost = imaging.check_output(job.format, job.output_size, alpha=picture.transparent, bits=picture.bits)
        job.target.parent.mkdir(parents=True, exist_ok=True)
        check_target(job.target, self.overwrite)  # of a name that is too long it shows only now
        changes = job.output_size != job.input_size or job.box is not None  # ×1 is the picture as it is
        model = self.models[job.model]
        if changes and isinstance(model, SuperResolver):
            check_memory(model, job)
            if in_rows(job):
                job.notices += lost + self._in_rows(model, picture, job, progress)
                return
        if changes:
            picture = model.upscale(picture, size=job.output_size, box=job.box, progress=progress)
        check_target(job.target, self.overwrite)  # it may have come into being since the plan
        job.notices += imaging.write(picture, job.target, job.format, self.quality)

    def _in_rows(
        self, model: SuperResolver, picture: Picture, job: Job, progress: Callable[[float], None]
    ) -> list[str]:
        """Write the output row by row; notices of what it could not hold."""
        assert job.target is not None and job.format is not None and job.output_size is not None
        form = output_format(job.format)
        assert form.output is not None
        bits = stored_bits(form.output, picture.bits)
        dtype = np.dtype(str(SAMPLE_TYPES[bits]).removeprefix("torch."))
        kept, notices = kept_by(form.name, picture, job.output_size)
        view = model.open(picture)
        rows = functools.partial(view.rows, size=job.output_size, box=job.box, progress=progress, bits=bits)
        shape = (*job.output_size, picture.channels)
        try:
            write_large(
                lambda first: rows(first=first), shape, dtype, kept, job.target, form, self.quality,
                self._identity(model, picture, job),
            )  # fmt: skip
        except (KeyboardInterrupt, SystemExit):
            if os.path.exists(spool_path(job.target)):
                click.echo(
                    f"{job.source}: what is finished stands in {spool_path(job.target)}; the same command "
                    "goes on from there, or delete it.",
                    err=True,
                )
            raise
        return notices

    def _identity(self, model: SuperResolver, picture: Picture, job: Job) -> str:
        """What the output's rows are made of: of others nothing may be kept."""
        if job.model not in self.identities:
            weights = hashlib.sha256(model.config.to_json().encode())
            for tensor in model.state_dict().values():
                weights.update(np.ascontiguousarray(tensor.float().cpu().numpy()).data)
            self.identities[job.model] = f"{weights.hexdigest()} {model.dtype} {model.backend}"
        status = os.stat(job.source)
        source: tuple[Any, ...] = (os.path.realpath(job.source), status.st_size, status.st_mtime_ns)
        made = repr((source, self.identities[job.model], job.output_size, job.box, picture.ground))
        return hashlib.sha256(made.encode()).hexdigest()


def in_rows(job: Job) -> bool:
    """Whether the output is written row by row."""
    assert job.format is not None and job.output_size is not None
    return is_large(output_format(job.format), math.prod(job.output_size) * job.pixel_bytes, job.output_size)


def check_memory(model: SuperResolver, job: Job) -> None:
    """Refuse a picture that does not fit into free memory, with the remedy that works.

    Raises:
        ImageError: it does not.
    """
    assert job.input_size is not None and job.output_size is not None
    free = free_bytes()
    if free is None or math.prod(job.output_size) < SMALL_PIXELS or model.device.type != "cpu":
        return
    room, sizes = free + resident_bytes(), (job.input_size, job.output_size, job.box, job.pixel_bytes)
    estimate, rows = Estimate(model.config, model.dtype), in_rows(job)
    needed = estimate.memory(*sizes, rows)
    if needed <= room:
        return
    light = Estimate(registry.get(CLEAN).config, model.dtype)
    remedy = "close other programs, or take a machine with more"
    if not rows and (less := estimate.memory(*sizes, True)) <= room:
        how = "--format tiff" if job.format == "webp" else "--format tiff, or pip install 'clit_zoo[large]',"
        remedy = f"{how} writes it row by row, in about {less / 1e9:.1f} GB"
    elif (less := light.memory(*sizes, rows)) <= room and light.memory(*sizes, rows) < needed:
        remedy = f"-m {CLEAN} takes about {less / 1e9:.1f} GB"
    height, width = job.output_size
    raise ImageError(
        f"{width}×{height} takes about {needed / 1e9:.1f} GB of memory, and {room / 1e9:.1f} GB are free: "
        f"{remedy}."
    )
