"""A file of finished scores, so that an evaluation that was cut off goes on where it stopped.

One JSON object per line, appended and flushed as each image is done. A line is used again only if model,
both pictures, scale and protocol are the same; a line cut short by a kill is passed over.
"""

import contextlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ClitZooError

if TYPE_CHECKING:
    from .results import Results

KEYS = ("model", "image", "lr", "scale", "protocol")


class ResumeError(ClitZooError):
    """A finished score could not be kept. ``results`` holds what was scored until then."""

    results: "Results | None" = None


class ResumeFile:
    """Finished scores by key (see ``KEYS``): fingerprint, file hash, hash or recipe, scale, protocol."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._done: dict[tuple[Any, ...], dict[str, Any]] = {}
        text = ""
        try:
            if os.path.exists(path) and not stat.S_ISREG(os.stat(path).st_mode):
                raise ClitZooError(f"The resume file {path} is not a regular file: give another one.")
            if os.path.exists(path):
                text = path.read_text(encoding="utf-8", errors="replace")
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise ClitZooError(
                f"The resume file {path} cannot be used ({error.strerror or error})."
            ) from error
        for line in text.splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                entry = json.loads(line)
                entry["psnr"] = float(entry["psnr"])
                self._done[tuple(entry[key] for key in KEYS)] = entry
        if text.strip() and not text.startswith('{"model"'):
            self._file.close()
            raise ClitZooError(f"{path} holds no scores of an evaluation: give another --resume file.")
        if text and not text.endswith("\n"):
            self._file.write("\n")

    def __contains__(self, key: tuple[Any, ...]) -> bool:
        return key in self._done

    def get(self, *key: Any) -> dict[str, Any] | None:
        return self._done.get(key)

    def add(self, *key: Any, **values: Any) -> None:
        entry = {**dict(zip(KEYS, key, strict=True)), **values}
        self._done[key] = entry
        with self._named_failure():
            self._file.write(json.dumps(entry) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        with self._named_failure():
            self._file.close()

    @contextlib.contextmanager
    def _named_failure(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ResumeError(
                f"The resume file {self.path} cannot be written ({error.strerror or error}): make room and "
                "run the same command again; it goes on from the scores kept."
            ) from error

    def __enter__(self) -> "ResumeFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
