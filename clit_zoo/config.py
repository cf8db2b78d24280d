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
import math
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from .errors import ConfigError

FORMAT = "clit_zoo/1"
MAX_JSON_BYTES = 64 * 1024
# 0.8 GB in float32. The largest model of the paper, RDN-CLIT, has a fifth of it.
MAX_PARAMETERS = 200_000_000

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")


# ---------------------------------------------------------------------------------------------------------
# One setting: its default, its range, and how a value is checked.


@dataclass(frozen=True)
class _Int:
    default: int
    low: int
    high: int

    def check(self, value: Any, where: str) -> int:
        # bool is an int to Python: `true` must not pass for 1.
        if isinstance(value, bool) or not isinstance(value, int):
            raise ConfigError(
                f"{where} must be a whole number from {self.low} to {self.high}, not {_show(value)}."
            )
        if not self.low <= value <= self.high:
            raise ConfigError(f"{where} is {_show(value)}; the allowed range is {self.low} to {self.high}.")
        return value


@dataclass(frozen=True)
class _Number:
    default: float
    low: float
    high: float

    def check(self, value: Any, where: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(
                f"{where} must be a number from {self.low:g} to {self.high:g}, not {_show(value)}."
            )
        if not self.low <= value <= self.high:  # NaN fails this too
            raise ConfigError(
                f"{where} is {_show(value)}; the allowed range is {self.low:g} to {self.high:g}."
            )
        return float(value)  # 2 and 2.0 are one setting


@dataclass(frozen=True)
class _Ints:
    default: tuple[int, ...]
    entries: tuple[int, int]
    low: int
    high: int

    def check(self, value: Any, where: str) -> list[int]:
        fewest, most = self.entries
        if not isinstance(value, list | tuple):
            raise ConfigError(
                f"{where} must be a list of {fewest} to {most} whole numbers, not {_show(value)}."
            )
        if not fewest <= len(value) <= most:
            raise ConfigError(f"{where} has {len(value)} entries; {fewest} to {most} are allowed.")
        entry = _Int(self.low, self.low, self.high)
        return [entry.check(item, f"{where}[{i}]") for i, item in enumerate(value)]


Setting = _Int | _Number | _Ints


# ---------------------------------------------------------------------------------------------------------
# One part (an encoder or a decoder): its settings, what must hold between them, its size.


@dataclass(frozen=True)
class Part:
    """The settings of one encoder or decoder. `rule` raises ConfigError; `count` gives the parameters."""

    settings: dict[str, Setting]
    out_channels: Callable[[dict], int]
    count: Callable[[dict, int], int]  # (settings, channels coming in) -> parameters
    rule: Callable[[dict, str], None] = lambda settings, where: None


def _conv(inputs: int, outputs: int, kernel: int = 3) -> int:
    return inputs * outputs * kernel * kernel + outputs


def _linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def _count_edsr(s: dict, colours: int) -> int:
    c = s["channels"]
    return _conv(colours, c) + (2 * s["blocks"] + 1) * _conv(c, c)


def _count_rdn(s: dict, colours: int) -> int:
    c, growth, layers, blocks = s["channels"], s["growth"], s["layers"], s["blocks"]
    dense = sum(_conv(c + i * growth, growth) for i in range(layers)) + _conv(c + layers * growth, c, 1)
    return _conv(colours, c) + _conv(c, c) + blocks * dense + _conv(blocks * c, c, 1) + _conv(c, c)


def _count_swinir(s: dict, colours: int) -> int:
    c, hidden, norm = s["channels"], int(s["channels"] * s["mlp_ratio"]), 2 * s["channels"]
    total = _conv(colours, c) + norm
    for depth, heads in zip(s["depths"], s["heads"]):
        attention = _linear(c, 3 * c) + _linear(c, c) + heads * (2 * s["window"] - 1) ** 2
        total += depth * (2 * norm + attention + _linear(c, hidden) + _linear(hidden, c)) + _conv(c, c)
    return total + norm + _conv(c, c) + _conv(c, s["out_channels"])


def _count_clit(s: dict, channels: int) -> int:
    dim, taps = s["dim"], (2 * s["radius"] + 1) ** 2
    widths = [taps * dim + 2, *s["hidden_dims"], 3]
    mlp = sum(_linear(a, b) for a, b in pairwise(widths))
    return _conv(channels, dim) + _linear(64, s["heads"]) + s["stages"] * (3 * _conv(dim, dim) + mlp)


def _rule_swinir(s: dict, where: str) -> None:
    if len(s["depths"]) != len(s["heads"]):
        raise ConfigError(
            f"{where}.depths has {len(s['depths'])} entries and {where}.heads {len(s['heads'])}: "
            "each group of blocks needs one of both."
        )
    for i, heads in enumerate(s["heads"]):
        if s["channels"] % heads:
            raise ConfigError(
                f"{where}.channels ({s['channels']}) must divide by {where}.heads[{i}] ({heads})."
            )


def _rule_clit(s: dict, where: str) -> None:
    if s["dim"] % s["heads"]:
        raise ConfigError(f"{where}.dim ({s['dim']}) must divide by {where}.heads ({s['heads']}).")


# Adding an encoder: its file in encoders/, its row here (defaults are its paper's), its row in registry.py.
ENCODERS: dict[str, Part] = {
    "edsr": Part(
        {"channels": _Int(64, 1, 512), "blocks": _Int(16, 1, 64)},
        out_channels=lambda s: s["channels"],
        count=_count_edsr,
    ),
    "rdn": Part(
        {
            "channels": _Int(64, 1, 512),
            "blocks": _Int(16, 1, 64),
            "layers": _Int(8, 1, 32),
            "growth": _Int(64, 1, 512),
        },
        out_channels=lambda s: s["channels"],
        count=_count_rdn,
    ),
    "swinir": Part(
        {
            "channels": _Int(180, 1, 512),
            "depths": _Ints((6,) * 6, (1, 16), 1, 32),
            "heads": _Ints((6,) * 6, (1, 16), 1, 64),
            "window": _Int(8, 2, 32),
            "mlp_ratio": _Number(2.0, 0.5, 8.0),
            "out_channels": _Int(64, 1, 512),
        },
        out_channels=lambda s: s["out_channels"],
        count=_count_swinir,
        rule=_rule_swinir,
    ),
}

DECODERS: dict[str, Part] = {
    "clit": Part(
        {
            "dim": _Int(256, 8, 1024),
            "heads": _Int(8, 1, 64),
            "radius": _Int(3, 0, 12),
            "stages": _Int(1, 1, 4),
            "hidden_dims": _Ints((256,) * 4, (1, 8), 8, 2048),
        },
        out_channels=lambda s: 3,
        count=_count_clit,
        rule=_rule_clit,
    ),
}


# ---------------------------------------------------------------------------------------------------------


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
                f"name is {_show(self.name)}; it must be 1 to 96 letters, digits, '.', '_' or '-', "
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
            given = f"says {_show(data['format'])}" if "format" in data else "is missing"
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
        said = f"is {_show(name)}" if "name" in given else "is missing"
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
        raise ConfigError(f"{where} must be an object of settings, not {_show(value)}.")


def _refuse_unknown(given: Mapping[str, Any], allowed: Iterable[str], where: str) -> None:
    for key in given:
        if key not in allowed:
            raise ConfigError(
                f"{_show(key) if not isinstance(key, str) else where + key[:60]} is not a setting"
                f"{_close(key, allowed)}; allowed: {', '.join(allowed)}."
            )


def _close(value: Any, allowed: Iterable[str]) -> str:
    matches = difflib.get_close_matches(value[:100], list(allowed), n=1) if isinstance(value, str) else []
    return f" (did you mean {matches[0]!r}?)" if matches else ""


def _show(value: Any) -> str:
    """`value` as JSON would write it, cut short: a hostile one may be very long."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 100:
        return f"a number of {value.bit_length()} bits"
    if isinstance(value, list | tuple | dict):
        return f"a {'list' if not isinstance(value, dict) else 'object'} of {len(value)}"
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "…"


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
