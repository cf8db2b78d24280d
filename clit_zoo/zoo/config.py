"""The settings of a model: what `config.json` holds, checked before anything is built from it.

A configuration may come from a stranger's repository, so every key is known, every value has a type and a
range, and the number of parameters it asks for is bounded. Nothing here imports torch.

    {"format": "clit_zoo/1", "name": "edsr-light-lit",
     "encoder": {"name": "edsr", "channels": 64, "blocks": 12},
     "decoder": {"name": "clit", "dim": 64, "heads": 4, "radius": 1, "stages": 1,
                 "hidden_dims": [128, 64, 64, 64]}}
"""

from __future__ import annotations

import copy
import difflib
import json
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .schema import DECODERS, ENCODERS, Part, show

FORMAT = "clit_zoo/1"
MAX_JSON_BYTES = 64 * 1024
# 0.8 GB in float32. The largest model of the paper, RDN-CLIT, has a fifth of it.
MAX_PARAMETERS = 200_000_000

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")


@dataclass(frozen=True)
class ModelConfig:
    """The settings of one model, complete and checked: defaults are filled in, so equal models compare equal.

    name: what the model is called, also in output file names: letters, digits, '.', '_' and '-'.
    encoder, decoder: {"name": …, setting: value, …}; see ENCODERS and DECODERS for settings and ranges.

    Raises ConfigError naming the key, the value and what is allowed.
    """

    name: str
    encoder: dict[str, Any]
    decoder: dict[str, Any]

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise ConfigError(
                f"name is {show(self.name)}; it must be 1 to 96 letters, digits, '.', '_' or '-', "
                "the first a letter or digit."
            )
        object.__setattr__(self, "encoder", _checked_part(self.encoder, "encoder", ENCODERS))
        object.__setattr__(self, "decoder", _checked_part(self.decoder, "decoder", DECODERS))
        if self.parameters > MAX_PARAMETERS:
            raise ConfigError(
                f"this configuration asks for {self.parameters:,} parameters; at most {MAX_PARAMETERS:,} are "
                "allowed. Lower the sizes in 'encoder' and 'decoder'."
            )

    @property
    def parameters(self) -> int:
        """How many parameters a model of this configuration has (computed; nothing is built)."""
        encoder, decoder = ENCODERS[self.encoder["name"]], DECODERS[self.decoder["name"]]
        return encoder.count(self.encoder, 3) + decoder.count(
            self.decoder, encoder.out_channels(self.encoder)
        )

    @property
    def papers(self) -> tuple[str, ...]:
        """The papers of the encoder and the decoder."""
        return ENCODERS[self.encoder["name"]].paper, DECODERS[self.decoder["name"]].paper

    def __hash__(self) -> int:
        return hash(json.dumps(self.to_dict(), sort_keys=True))

    def with_overrides(self, **overrides: Any) -> ModelConfig:
        """A copy with other settings: `with_overrides(decoder={"radius": 1}, name="mine")`.

        `encoder` and `decoder` take the settings to change; naming another encoder there (a string will do)
        starts from that one's defaults.
        """
        changed: dict[str, Any] = {"name": self.name, "encoder": self.encoder, "decoder": self.decoder}
        _refuse_unknown(overrides, changed, "")
        for key, value in overrides.items():
            if key != "name":
                value = {"name": value} if isinstance(value, str) else value
                _require_mapping(value, key)
                same = value.get("name", changed[key]["name"]) == changed[key]["name"]
                value = {**changed[key], **value} if same else dict(value)
            changed[key] = value
        return ModelConfig(**changed)

    def to_dict(self) -> dict[str, Any]:
        """A new dict, complete, that JSON can hold and `from_dict` reads back."""
        return {
            "format": FORMAT,
            "name": self.name,
            "encoder": copy.deepcopy(self.encoder),
            "decoder": copy.deepcopy(self.decoder),
        }

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2) + "\n"

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ModelConfig:
        """Checks `data`, the content of a config.json, and fills in the defaults."""
        _require_mapping(data, "the configuration")
        if data.get("format") != FORMAT:
            given = f"says {show(data['format'])}" if "format" in data else "is missing"
            raise ConfigError(
                f'"format" {given}; it must be "{FORMAT}". This is not a clit_zoo model, or one made for '
                "another version of the library."
            )
        _refuse_unknown(data, ("format", "name", "encoder", "decoder"), "")
        for key in ("name", "encoder", "decoder"):
            if key not in data:
                raise ConfigError(f'"{key}" is missing.')
        return cls(data["name"], data["encoder"], data["decoder"])

    @classmethod
    def from_json(cls, path: str | Path) -> ModelConfig:
        """Reads and checks a config.json. ConfigError names the file and what is wrong in it."""
        try:
            return cls.from_dict(_read_json(Path(path)))
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error


def _checked_part(given: Any, where: str, parts: dict[str, Part]) -> dict[str, Any]:
    _require_mapping(given, where)
    name = given.get("name")
    if not isinstance(name, str) or name not in parts:
        said = f"is {show(name)}" if "name" in given else "is missing"
        raise ConfigError(f"{where}.name {said}{_close(name, parts)}; the {where}s are: {', '.join(parts)}.")
    part = parts[name]
    _refuse_unknown(given, ("name", *part.settings), f"{where}.")
    checked: dict[str, Any] = {"name": name}
    for key, setting in part.settings.items():
        checked[key] = setting.check(given.get(key, setting.default), f"{where}.{key}")
    part.rule(checked, where)
    return checked


def _require_mapping(value: Any, where: str) -> None:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where} must be an object of settings, not {show(value)}.")


def _refuse_unknown(given: Mapping[str, Any], allowed: Iterable[str], where: str) -> None:
    for key in given:
        if key not in allowed:
            raise ConfigError(
                f"{show(key) if not isinstance(key, str) else where + key[:60]} is not a setting"
                f"{_close(key, allowed)}; allowed: {', '.join(allowed)}."
            )


def _close(value: Any, allowed: Iterable[str]) -> str:
    matches = difflib.get_close_matches(value[:100], list(allowed), n=1) if isinstance(value, str) else []
    return f" (did you mean {matches[0]!r}?)" if matches else ""


def _read_json(path: Path) -> Any:
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode):
            raise ConfigError("it is not a file.")
        if info.st_size > MAX_JSON_BYTES:
            raise ConfigError(
                f"it has {info.st_size:,} bytes; a configuration has at most {MAX_JSON_BYTES:,}."
            )
        text = path.read_bytes().decode("utf-8")
        return json.loads(text, object_pairs_hook=_pairs, parse_constant=_refuse_constant)
    except ConfigError:
        raise
    except OSError as error:
        raise ConfigError(f"it cannot be read ({error.strerror or error}).") from error
    except (ValueError, RecursionError) as error:  # bad UTF-8, bad JSON, a number of 5,000 digits
        raise ConfigError(f"it is not valid JSON ({error}).") from error


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # JSON readers differ in which of two equal keys they keep: two readers must not see two models.
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        double = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ConfigError(f'"{double[:60]}" is there twice.')
    return found


def _refuse_constant(constant: str) -> Any:
    raise ConfigError(f"it holds {constant}, which is no JSON number.")
