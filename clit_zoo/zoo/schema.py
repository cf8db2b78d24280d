"""The settings of every encoder and decoder: types, ranges, defaults (the papers'), rules, papers.

A configuration may come from a stranger, and what passes here is built without memory to count its parameters
(``skeleton.py``). So the ranges bound the number of modules too: the most they allow take 1.3 s and 15 MB.
"""

import json
import math
from collections.abc import Mapping
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
        # bool is an int to Python: `true` must not pass for 1; NaN is in no range
        number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        allowed = f"a{' whole' * whole} number from {self.low:g} to {self.high:g}"
        require(number and self.low <= value <= self.high, where, value, allowed)
        return value if whole else float(value)  # 2 and 2.0 are one setting


@dataclass(frozen=True)
class Bool:
    """true or false."""

    default: bool

    def check(self, value: Any, where: str) -> bool:
        require(isinstance(value, bool), where, value, "true or false")
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
        fits = isinstance(value, list | tuple) and fewest <= len(value) <= most
        require(fits, where, value, f"a list of {fewest} to {most} whole numbers")
        entry = Number(self.low, self.low, self.high)
        return [entry.check(item, f"{where}[{i}]") for i, item in enumerate(value)]


Setting = Number | Bool | Numbers


@dataclass(frozen=True)
class Part:
    """One encoder or decoder.

    Attributes:
        paper: authors, title, venue.
        settings: the keyword arguments of its class.
        multiples: a setting, and what it must be a multiple of: a number, or each number of another setting.
        alike: settings with as many entries each.
    """

    paper: str
    settings: dict[str, Setting]
    multiples: tuple[tuple[str, str | int], ...] = ()
    alike: tuple[str, str] | None = None

    def check(self, given: Mapping[str, Any], where: str) -> dict[str, Any]:
        """All settings, those not given at their defaults; ConfigError where one is not allowed."""
        checked: dict[str, Any] = {
            key: setting.check(given.get(key, setting.default), f"{where}.{key}")
            for key, setting in self.settings.items()
        }
        if self.alike is not None:
            one, other = (f"{where}.{key}" for key in self.alike)
            same = len({len(checked[key]) for key in self.alike}) == 1
            require(same, one, checked[self.alike[0]], f"as many entries as {other}")
        for key, by in self.multiples:
            divisors = checked[by] if isinstance(by, str) else by
            named = f"{where}.{by}, {divisors}" if isinstance(by, str) else str(by)
            fits = not any(checked[key] % n for n in (divisors if isinstance(divisors, list) else [divisors]))
            require(fits, f"{where}.{key}", checked[key], f"a multiple of {named}")
        return checked


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
        (("channels", "heads"),),
        ("depths", "heads"),
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
        (("dim", "heads"),),
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
        (("dim", "heads"), ("freq_dims", 4)),
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
        # FEM deals out its patterns to the channels in eights
        (("dim", "heads"), ("dim", "kernels"), ("dim", "query_kernels"), ("dim", 8)),
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
        (("dim", 2),),  # every wave has a cosine and a sine
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


def require(fits: Any, where: str, value: Any, allowed: str) -> None:
    """Raise ConfigError unless ``fits``.

    Args:
        where: what ``value`` is, in the configuration or among the options.
        allowed: what may be there, in words.
    """
    if not fits:
        raise ConfigError(f"{where} is {show(value)}; allowed is {allowed}.")


def show(value: Any) -> str:
    """``value`` as JSON would write it, cut short: a hostile one may be very long."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 100:
        return f"a number of {value.bit_length()} bits"
    if isinstance(value, list | tuple | dict):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if not isinstance(value, str | float | int | None):
        return f"a {type(value).__name__}"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"
