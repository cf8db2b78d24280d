"""The settings of every encoder and decoder: types, ranges, defaults (the papers'), rules, papers.

A configuration may come from a stranger, and what passes here is built without memory to count its parameters
(``skeleton.py``). So the ranges bound the number of modules too: the most they allow take 1.3 s and 15 MB.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError


@dataclass(frozen=True)
class Number:
    """A number from ``low`` to ``high``; a whole one if its default is."""

    default: float
    low: float
    high: float

    def check(self, value: Any, where: str) -> float:
        whole = isinstance(self.default, int)
        # bool is an int to Python: `true` must not pass for 1
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
            kind = f"a{' whole' * whole} number from {self.low:g} to {self.high:g}"
            raise ConfigError(f"{where} must be {kind}, not {show(value)}.")
        if not self.low <= value <= self.high:  # NaN fails this too
            raise ConfigError(f"{where} is {show(value)}; allowed is {self.low:g} to {self.high:g}.")
        return value if whole else float(value)  # 2 and 2.0 are one setting


@dataclass(frozen=True)
class Bool:
    """true or false."""

    default: bool

    def check(self, value: Any, where: str) -> bool:
        if not isinstance(value, bool):
            raise ConfigError(f"{where} must be true or false, not {show(value)}.")
        return value


@dataclass(frozen=True)
class Numbers:
    """A list of ``entries`` (fewest, most) whole numbers from ``low`` to ``high``."""

    default: tuple[int, ...]
    entries: tuple[int, int]
    low: int
    high: int

    def check(self, value: Any, where: str) -> list[float]:
        fewest, most = self.entries
        if not isinstance(value, list | tuple):
            raise ConfigError(
                f"{where} must be a list of {fewest} to {most} whole numbers, not {show(value)}."
            )
        if not fewest <= len(value) <= most:
            raise ConfigError(f"{where} has {len(value)} entries; {fewest} to {most} are allowed.")
        entry = Number(self.low, self.low, self.high)
        return [entry.check(item, f"{where}[{i}]") for i, item in enumerate(value)]


Setting = Number | Bool | Numbers


@dataclass(frozen=True)
class Part:
    """One encoder or decoder.

    Attributes:
        paper: authors, title, venue.
        settings: the keyword arguments of its class.
        rule: called with checked settings and their place in the configuration; raises ConfigError where they
            do not go together.
    """

    paper: str
    settings: dict[str, Setting]
    rule: Callable[[dict[str, Any], str], None] = lambda settings, where: None


def _rule_swinir(s: dict[str, Any], where: str) -> None:
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


def _rule_clit(s: dict[str, Any], where: str) -> None:
    if s["dim"] % s["heads"]:
        raise ConfigError(f"{where}.dim ({s['dim']}) must divide by {where}.heads ({s['heads']}).")


def _rule_lit(s: dict[str, Any], where: str) -> None:
    _rule_clit(s, where)
    if s["freq_dims"] % 4:
        raise ConfigError(f"{where}.freq_dims ({s['freq_dims']}) must divide by 4.")


def _rule_msit(s: dict[str, Any], where: str) -> None:
    for key in ("heads", "kernels", "query_kernels"):
        if s["dim"] % s[key]:
            raise ConfigError(f"{where}.dim ({s['dim']}) must divide by {where}.{key} ({s[key]}).")
    if s["fem"] and s["dim"] % 8:
        raise ConfigError(f"{where}.dim ({s['dim']}) must divide by 8, or {where}.fem be false.")


def _rule_lte(s: dict[str, Any], where: str) -> None:
    if s["dim"] % 2:
        raise ConfigError(f"{where}.dim ({s['dim']}) must be even: every wave has a cosine and a sine.")


ENCODERS: dict[str, Part] = {
    "edsr": Part(
        'Lim et al., "Enhanced Deep Residual Networks for Single Image Super-Resolution", CVPRW 2017',
        {"channels": Number(64, 1, 512), "blocks": Number(16, 1, 64)},
    ),
    "rdn": Part(
        'Zhang et al., "Residual Dense Network for Image Super-Resolution", CVPR 2018',
        {
            "channels": Number(64, 1, 512),
            "blocks": Number(16, 1, 64),
            "layers": Number(8, 1, 32),
            "growth": Number(64, 1, 512),
        },
    ),
    "swinir": Part(
        'Liang et al., "SwinIR: Image Restoration Using Swin Transformer", ICCVW 2021',
        {
            "channels": Number(180, 1, 512),
            "depths": Numbers((6,) * 6, (1, 12), 1, 12),
            "heads": Numbers((6,) * 6, (1, 12), 1, 64),
            # Each block has an index of window⁴ entries beside its parameters: 75 MB of them at most.
            "window": Number(8, 2, 16),
            "mlp_ratio": Number(2.0, 0.5, 8.0),
            "out_channels": Number(64, 0, 512),
        },
        _rule_swinir,
    ),
}

DECODERS: dict[str, Part] = {
    "clit": Part(
        'Chen et al., "Cascaded Local Implicit Transformer for Arbitrary-Scale Super-Resolution", '
        "CVPR 2023 (arXiv:2303.16513)",
        {
            "dim": Number(256, 8, 1024),
            "heads": Number(8, 1, 64),
            "radius": Number(3, 0, 12),
            "stages": Number(1, 1, 4),
            "hidden_dims": Numbers((256,) * 4, (1, 8), 8, 2048),
        },
        _rule_clit,
    ),
    "lit": Part(
        'Chen et al., "Cascaded Local Implicit Transformer for Arbitrary-Scale Super-Resolution", '
        "CVPR 2023 (arXiv:2303.16513), Tables 3 and 4",
        {
            "dim": Number(256, 8, 1024),
            "heads": Number(8, 1, 64),
            "radius": Number(3, 0, 12),
            "freq_dims": Number(64, 0, 1024),
            "local_ensemble": Bool(False),
            "cell_decode": Bool(True),
            "hidden_dims": Numbers((256,) * 4, (1, 8), 8, 2048),
        },
        _rule_lit,
    ),
    "liif": Part(
        'Chen et al., "Learning Continuous Image Representation with Local Implicit Image Function", '
        "CVPR 2021 (arXiv:2012.09161)",
        {
            "hidden_dims": Numbers((256,) * 4, (1, 8), 8, 2048),
            "feat_unfold": Bool(True),
            "local_ensemble": Bool(True),
            "cell_decode": Bool(True),
        },
    ),
    "metasr": Part(
        'Hu et al., "Meta-SR: A Magnification-Arbitrary Network for Super-Resolution", CVPR 2019 '
        "(arXiv:1903.00875)",
        {"hidden_dims": Numbers((256,), (1, 8), 8, 2048), "original": Bool(False)},
    ),
    "itsrn": Part(
        'Yang et al., "Implicit Transformer Network for Screen Content Image Continuous Super-Resolution", '
        "NeurIPS 2021 (arXiv:2112.06174)",
        {"hidden_dims": Numbers((256,) * 4, (1, 8), 8, 2048), "merge_dim": Number(256, 8, 2048)},
    ),
    "ciaosr": Part(
        'Cao et al., "CiaoSR: Continuous Implicit Attention-in-Attention Network for Arbitrary-Scale Image '
        'Super-Resolution", CVPR 2023 (arXiv:2212.04362)',
        {
            "hidden_dims": Numbers((256,) * 4, (1, 8), 8, 2048),
            "tile": Number(192, 16, 1024),
        },
    ),
    "msit": Part(
        'Zhu et al., "Multi-Scale Implicit Transformer with Re-parameterize for Arbitrary-Scale '
        'Super-Resolution", 2024 (arXiv:2403.06536)',
        {
            "dim": Number(256, 8, 1024),
            "heads": Number(8, 1, 64),
            "radius": Number(3, 0, 12),
            "kernels": Number(16, 1, 16),
            "query_kernels": Number(4, 1, 16),
            "fem": Bool(True),
            "hidden_dims": Numbers((256,) * 4, (1, 8), 8, 2048),
        },
        _rule_msit,
    ),
    "lte": Part(
        'Lee and Jin, "Local Texture Estimator for Implicit Representation Function", CVPR 2022 '
        "(arXiv:2111.08918)",
        {
            "dim": Number(256, 2, 1024),
            "hidden_dims": Numbers((256,) * 3, (1, 8), 8, 2048),
            "plus": Bool(False),
            "max_scale_cell": Number(4.0, 1.0, 1000.0),
        },
        _rule_lte,
    ),
    "ultrasr": Part(
        'Xu et al., "UltraSR: Spatial Encoding is a Missing Key for Implicit Image Function-based '
        'Arbitrary-Scale Super-Resolution", 2021 (arXiv:2103.12716); reconstructed, as there is no code',
        {
            "bands": Number(12, 1, 32),
            "hidden_dims": Numbers((256,) * 4, (1, 8), 8, 2048),
            "feat_unfold": Bool(True),
            "local_ensemble": Bool(True),
            "cell_decode": Bool(True),
        },
    ),
    "ipe": Part(
        'Liu et al., "Enhancing Multi-Scale Implicit Learning in Image Super-Resolution with Integrated '
        'Positional Encoding", 2021 (arXiv:2112.05756); reconstructed, as there is no code',
        {
            "bands": Number(10, 1, 16),
            "hidden_dims": Numbers((256,) * 4, (1, 8), 8, 2048),
            "feat_unfold": Bool(True),
            "local_ensemble": Bool(True),
        },
    ),
}


def show(value: Any) -> str:
    """``value`` as JSON would write it, cut short: a hostile one may be very long."""
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
