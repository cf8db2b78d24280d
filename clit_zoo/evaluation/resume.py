"""A file of finished scores, so that an evaluation that was cut off goes on where it stopped."""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ClitZooError

FIRST = '{"question": '


class ResumeFile:
    """Figures by what was asked, one JSON object a line, on the disk as soon as each is found.

    Args:
        path: made where it does not exist. A line cut short by a kill is passed over.

    Raises:
        ClitZooError: the file holds something else, to which nothing is added.
        OSError: it cannot be read or written.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.figures: dict[str, dict[str, Any]] = {}
        text = self.path.read_text(encoding="utf-8", errors="replace") if self.path.is_file() else ""
        if text and not text.startswith(FIRST[: len(text)]):
            raise ClitZooError(f"{path} holds no scores of an evaluation: give another --resume file.")
        for line in text.splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                entry = json.loads(line)
                self.figures[entry["question"]] = entry["figures"]
        self._add("" if text.endswith("\n") or not text else "\n")  # a file that cannot be written shows now

    def lookup(self, question: list[Any], find: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The figures of a question, from the file or found now and kept.

        Args:
            question: arrays and texts that the figures depend on.
            find: gives numbers by name.
        """
        digest = hashlib.sha256()
        for part in question:
            array = isinstance(part, np.ndarray)
            digest.update(f"{part.shape if array else part}\n".encode())
            digest.update(part.tobytes() if array else b"")
        key = digest.hexdigest()
        if key not in self.figures:
            self.figures[key] = find()
            self._add(json.dumps({"question": key, "figures": self.figures[key]}) + "\n")
        return self.figures[key]

    def _add(self, text: str) -> None:
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            error.filename = str(self.path)  # a full disk does not name the file
            raise
