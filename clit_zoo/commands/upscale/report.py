"""What ``clit-zoo upscale`` tells: a line for each picture and a summary, or one JSON object."""

import json
import time
from typing import Any

import click

from .plan import Job


class Report:
    """Lines while the run goes on, or one JSON object at its end."""

    def __init__(
        self, jobs: list[Job], *, as_json: bool, dry_run: bool, explain: bool, started: float
    ) -> None:
        self.jobs, self.as_json = jobs, as_json
        self.dry_run, self.explain, self.started = dry_run, explain, started

    def finished(self, job: Job) -> None:
        for notice in job.notices:
            named = str(job.source) in notice
            click.echo(f"Note: {notice}" if named else f"Note: {job.source}: {notice}", err=True)
        if job.status == "failed":
            click.echo(f"Error: {job.reason}", err=True)
        elif not self.as_json:
            click.echo(_line(job))
            if self.explain and job.why:
                click.echo(f"  {job.model}: {job.why}")

    def end(self) -> None:
        counts = {status: sum(job.status == status for job in self.jobs) for status in _WORDS}
        seconds = round(time.monotonic() - self.started, 3)
        if self.as_json:
            report: dict[str, Any] = {"dry_run": self.dry_run, "seconds": seconds, **counts}
            report["pictures"] = [_record(job) for job in self.jobs]
            click.echo(json.dumps(report, indent=2))
            return
        words = _WORDS | ({"planned": "to be enlarged"} if self.dry_run else {})
        parts = [f"{number} {words[status]}" for status, number in counts.items() if number]
        click.echo(f"{', '.join(parts) or 'nothing done'} in {seconds:.1f} s")


_WORDS = {"done": "enlarged", "planned": "not done", "skipped": "skipped", "failed": "failed"}


def _line(job: Job) -> str:
    if job.status == "skipped":
        return f"{job.source}: skipped, {job.reason}"
    (h, w), (height, width) = job.input_size or (0, 0), job.output_size or (0, 0)
    end = f", {job.model}" if job.why else ""
    if job.seconds is not None:
        end += f" ({job.seconds:.1f} s)"
    elif job.memory_bytes is not None:
        end += f", about {job.memory_bytes / 1e9:.1f} GB of memory and {_duration(job.forecast_seconds or 0)}"
    return f"{job.source} {w}×{h} -> {job.target} {width}×{height}{end}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _record(job: Job) -> dict[str, Any]:
    return {
        "input": str(job.source),
        "output": None if job.target is None else str(job.target),
        "status": job.status,
        "reason": job.reason,
        "model": job.model,
        "why": job.why,
        "format": job.format,
        "input_size": job.input_size and job.input_size[::-1],  # width and height, as in all that is printed
        "output_size": job.output_size and job.output_size[::-1],
        "memory_bytes": job.memory_bytes,
        "forecast_seconds": job.forecast_seconds,
        "seconds": job.seconds,
        "notices": job.notices,
    }
