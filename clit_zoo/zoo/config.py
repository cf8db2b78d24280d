"""The settings of a model: what ``config.json`` holds, checked before anything is built from it.

A configuration may come from a stranger's repository, so every key is known, and every value has a type and a
range. Nothing here imports torch.

    {"format": "clit_zoo/1", "name": "edsr-light-lit",
     "encoder": {"name": "edsr", "channels": 64, "blocks": 12},
     "decoder": {"name": "clit", "dim": 64, "heads": 4, "radius": 1, "stages": 1,
                 "hidden_dims": [128, 64, 64, 64]}}
"""

import copy
import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ..errors import ConfigError
from .schema import DECODERS, ENCODERS, Part, require, show

FORMAT = "clit_zoo/1"
MAX_JSON_BYTES = 64 * 1024

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")


@dataclass(frozen=True)
class ModelConfig:
    """The settings of one model, complete and checked: defaults are filled in, so equal models compare equal.

    Attributes:
        name: what the model is called, also in output file names: letters, digits, '.', '_' and '-'.
        encoder: {"name": …, setting: value, …}; ``schema.ENCODERS`` has the settings and their ranges.
        decoder: the same, of ``schema.DECODERS``.

    Raises:
        ConfigError: the message names the key, the value and what is allowed.
    """

    name: str
    encoder: dict[str, Any]
    decoder: dict[str, Any]

    def __post_init__(self) -> None:
        allowed = "1 to 96 letters, digits, '.', '_' or '-', the first a letter or digit"
        require(isinstance(self.name, str) and _NAME.fullmatch(self.name), "name", self.name, allowed)
        object.__setattr__(self, "encoder", _checked_part(self.encoder, "encoder", ENCODERS))
        object.__setattr__(self, "decoder", _checked_part(self.decoder, "decoder", DECODERS))

    @property
    def papers(self) -> tuple[str, ...]:
        """The papers of the encoder and the decoder."""
        return ENCODERS[self.encoder["name"]].paper, DECODERS[self.decoder["name"]].paper

    def __hash__(self) -> int:
        return hash(json.dumps(self.to_dict(), sort_keys=True))

    def with_overrides(self, **overrides: Any) -> Self:
        """A copy with other settings: ``with_overrides(decoder={"radius": 1}, name="mine")``.

        ``encoder`` and ``decoder`` take the settings to change; naming another encoder there (a string will
        do) starts from that one's defaults.
        """
        changed: dict[str, Any] = {"name": self.name, "encoder": self.encoder, "decoder": self.decoder}
        fields(overrides, "", (), changed)
        for key, value in overrides.items():
            if key != "name":
                value = {"name": value} if isinstance(value, str) else value
                fields(value, key, (), value)
                same = value.get("name", changed[key]["name"]) == changed[key]["name"]
                value = {**changed[key], **value} if same else dict(value)
            changed[key] = value
        return type(self)(**changed)

    def to_dict(self) -> dict[str, Any]:
        """A new dict, complete, that JSON can hold and ``from_dict`` reads back."""
        return {
            "format": FORMAT,
            "name": self.name,
            "encoder": copy.deepcopy(self.encoder),
            "decoder": copy.deepcopy(self.decoder),
        }

    def to_json(self) -> str:
        """The text of a config.json."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Check ``data``, the content of a config.json, and fill in the defaults."""
        if isinstance(data, Mapping) and data.get("format") != FORMAT:
            given = f"says {show(data['format'])}" if "format" in data else "is missing"
            raise ConfigError(
                f'"format" {given}; it must be "{FORMAT}". This is not a clit_zoo model, or one made for '
                "another version of the library."
            )
        fields(data, "", ("format", "name", "encoder", "decoder"))
        return cls(data["name"], data["encoder"], data["decoder"])

    @classmethod
    def from_json(cls, path: str | Path) -> Self:
        """Read and check a config.json. ConfigError names the file and what is wrong in it.

        Raises:
            OSError: it cannot be read.
        """
        with open(path, "rb") as file:
            text = file.read(MAX_JSON_BYTES + 1)
        try:
            if len(text) > MAX_JSON_BYTES:
                raise ConfigError(f"it has more bytes than a configuration may have, {MAX_JSON_BYTES:,}.")
            return cls.from_dict(json.loads(text.decode()))
        except (ValueError, RecursionError) as error:  # ours, too
            raise ConfigError(f"{path}: {error}") from error


def fields(given: Any, where: str, needed: Iterable[str], allowed: Iterable[str] = ()) -> Mapping[str, Any]:
    """``given``, if it has all the ``needed`` keys and otherwise only ``allowed`` ones; else ConfigError.

    ``where`` is its place in the configuration, "" for the whole.
    """
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where or 'the configuration'} must be an object of settings, not {show(given)}.")
    known, dot = (*needed, *allowed), "." if where else ""
    wrong = [
        f"{where}{dot}{key[:60] if isinstance(key, str) else show(key)} is unknown{_close(key, known)}; "
        f"known: {', '.join(known)}."
        for key in given
        if key not in known
    ] or [f"{where}{dot}{key} is missing." for key in needed if key not in given]
    if wrong:
        raise ConfigError(wrong[0])
    return given


def _checked_part(given: Any, where: str, parts: dict[str, Part]) -> dict[str, Any]:
    name = fields(given, where, ("name",), given if isinstance(given, Mapping) else ())["name"]
    known = isinstance(name, str) and name in parts
    require(known, f"{where}.name", name, f"one of {', '.join(parts)}{_close(name, parts)}")
    fields(given, where, ("name",), parts[name].settings)
    return {"name": name, **parts[name].check(given, where)}


def _close(value: Any, allowed: Iterable[str]) -> str:
    matches = difflib.get_close_matches(value[:100], list(allowed), n=1) if isinstance(value, str) else []
    return f" (did you mean {matches[0]!r}?)" if matches else ""
