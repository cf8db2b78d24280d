"""The settings of every encoder and decoder: types, ranges, defaults (the papers'), rules, size, paper.

A new encoder is its file in encoders/, its row in ENCODERS here and its models' rows in registry.py.
Nothing here imports torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ..errors import ConfigError

# ---------------------------------------------------------------------------------------------------------
# One setting: its default, its range, and how a value is checked.


@dataclass(frozen=True)
class Int:
    default: int
    low: int
    high: int

    def check(self, value: Any, where: str) -> int:
        # bool is an int to Python: `true` must not pass for 1.
        if isinstance(value, bool) or not isinstance(value, int):
            raise ConfigError(
                f"{where} must be a whole number from {self.low} to {self.high}, not {show(value)}."
            )
        if not self.low <= value <= self.high:
            raise ConfigError(f"{where} is {show(value)}; the allowed range is {self.low} to {self.high}.")
        return value


@dataclass(frozen=True)
class Number:
    default: float
    low: float
    high: float

    def check(self, value: Any, where: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(
                f"{where} must be a number from {self.low:g} to {self.high:g}, not {show(value)}."
            )
        if not self.low <= value <= self.high:  # NaN fails this too
            raise ConfigError(
                f"{where} is {show(value)}; the allowed range is {self.low:g} to {self.high:g}."
            )
        return float(value)  # 2 and 2.0 are one setting


@dataclass(frozen=True)
class Ints:
    default: tuple[int, ...]
    entries: tuple[int, int]
    low: int
    high: int

    def check(self, value: Any, where: str) -> list[int]:
        fewest, most = self.entries
        if not isinstance(value, list | tuple):
            raise ConfigError(
                f"{where} must be a list of {fewest} to {most} whole numbers, not {show(value)}."
            )
        if not fewest <= len(value) <= most:
            raise ConfigError(f"{where} has {len(value)} entries; {fewest} to {most} are allowed.")
        entry = Int(self.low, self.low, self.high)
        return [entry.check(item, f"{where}[{i}]") for i, item in enumerate(value)]


@dataclass(frozen=True)
class Bool:
    default: bool

    def check(self, value: Any, where: str) -> bool:
        if not isinstance(value, bool):
            raise ConfigError(f"{where} must be true or false, not {show(value)}.")
        return value


Setting = Int | Number | Ints | Bool


# ---------------------------------------------------------------------------------------------------------
# One part (an encoder or a decoder): its settings, what must hold between them, its size.


@dataclass(frozen=True)
class Part:
    """One encoder or decoder: its paper and settings. `rule` raises ConfigError, `count` gives parameters."""

    paper: str
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


def _count_liif(s: dict, channels: int) -> int:
    inputs = channels * (9 if s["feat_unfold"] else 1) + 2 + 2 * s["cell_decode"]
    return sum(_linear(a, b) for a, b in pairwise([inputs, *s["hidden_dims"], 3]))


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


ENCODERS: dict[str, Part] = {
    "edsr": Part(
        'Lim et al., "Enhanced Deep Residual Networks for Single Image Super-Resolution", CVPRW 2017',
        {"channels": Int(64, 1, 512), "blocks": Int(16, 1, 64)},
        out_channels=lambda s: s["channels"],
        count=_count_edsr,
    ),
    "rdn": Part(
        'Zhang et al., "Residual Dense Network for Image Super-Resolution", CVPR 2018',
        {
            "channels": Int(64, 1, 512),
            "blocks": Int(16, 1, 64),
            "layers": Int(8, 1, 32),
            "growth": Int(64, 1, 512),
        },
        out_channels=lambda s: s["channels"],
        count=_count_rdn,
    ),
    "swinir": Part(
        'Liang et al., "SwinIR: Image Restoration Using Swin Transformer", ICCVW 2021',
        {
            "channels": Int(180, 1, 512),
            "depths": Ints((6,) * 6, (1, 16), 1, 32),
            "heads": Ints((6,) * 6, (1, 16), 1, 64),
            "window": Int(8, 2, 32),
            "mlp_ratio": Number(2.0, 0.5, 8.0),
            "out_channels": Int(64, 1, 512),
        },
        out_channels=lambda s: s["out_channels"],
        count=_count_swinir,
        rule=_rule_swinir,
    ),
}

DECODERS: dict[str, Part] = {
    "clit": Part(
        'Chen et al., "Cascaded Local Implicit Transformer for Arbitrary-Scale Super-Resolution", '
        "CVPR 2023 (arXiv:2303.16513)",
        {
            "dim": Int(256, 8, 1024),
            "heads": Int(8, 1, 64),
            "radius": Int(3, 0, 12),
            "stages": Int(1, 1, 4),
            "hidden_dims": Ints((256,) * 4, (1, 8), 8, 2048),
        },
        out_channels=lambda s: 3,
        count=_count_clit,
        rule=_rule_clit,
    ),
    "liif": Part(
        'Chen et al., "Learning Continuous Image Representation with Local Implicit Image Function", '
        "CVPR 2021 (arXiv:2012.09161)",
        {
            "hidden_dims": Ints((256,) * 4, (1, 8), 8, 2048),
            "feat_unfold": Bool(True),
            "local_ensemble": Bool(True),
            "cell_decode": Bool(True),
        },
        out_channels=lambda s: 3,
        count=_count_liif,
    ),
}


def show(value: Any) -> str:
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
