"""Model name -> settings, size, and where the weights are. Nothing here imports torch.

The rows say what exists today: a row without ``repo_id`` and without a folder under weights/ has no weights,
and ``status`` says so. After ``clit-zoo push``, what it prints goes into ``_PUBLISHED``.
"""

import difflib
import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..errors import ModelNotFoundError
from .config import ModelConfig

Status = Literal["embedded", "hub", "no weights yet"]


@dataclass(frozen=True)
class Entry:
    """One registered model.

    Attributes:
        name: lower case.
        config: its settings, of the same name.
        parameters: how many it has.
        summary: one line for ``clit-zoo list``.
        repo_id, revision, sha256: the Hub repository, the commit (40 hex digits) and the SHA-256 of its
            model.safetensors, pinned together; None where nothing has been published.
    """

    name: str
    config: ModelConfig
    parameters: int
    summary: str
    repo_id: str | None = None
    revision: str | None = None
    sha256: str | None = None

    @property
    def folder(self) -> Path | None:
        """The folder with the weights that ship with the library, or None where there are none."""
        return embedded_folder(self.name)


@dataclass(frozen=True)
class System:
    """A decoder's rows: with every encoder in the papers' sizes, and light.

    Attributes:
        title: as the papers call it.
        decoder, parameters: its settings in the paper's size, and how many parameters they make.
        light, light_parameters: the same behind the light encoder; None where there is no such row.
        status: what the summary says of its numbers.
        encoders: those that its paper has.
        others: of these, the ones of other settings, with the parameters of the whole model.
    """

    title: str
    decoder: dict[str, Any]
    parameters: int
    light: dict[str, Any] | None = None
    light_parameters: int = 0
    status: str = "as in the paper"
    encoders: tuple[str, ...] = ("edsr", "rdn", "swinir")
    others: dict[str, tuple[dict[str, Any], int]] = field(default_factory=dict)


# name -> repository, commit and SHA-256 of model.safetensors
_PUBLISHED: dict[str, tuple[str, str, str]] = {}

# These put out 64 channels, so a model has its encoder's parameters and its decoder's.
_ENCODERS = {
    "edsr": ("EDSR-baseline", 1_220_416),
    "rdn": ("RDN", 21_973_952),
    "swinir": ("SwinIR", 11_603_044),
}
_LIGHT_ENCODER = ({"name": "edsr", "blocks": 12}, 924_992)
_LIGHT_MLP = [128, 64, 64, 64]
_LIGHT_STAGE = {"dim": 64, "heads": 4, "radius": 1, "hidden_dims": _LIGHT_MLP}
_LIGHT_CLIT = {"name": "clit", **_LIGHT_STAGE}
_ABLATED = "as in CLIT's Tables 3 and 4; the branch's width is a guess"
_LIGHT_LTE = {"name": "lte", "dim": 128, "hidden_dims": [64, 64, 64]}
_SYSTEMS = {
    "lit": System("LIT", {"name": "clit"}, 5_328_651, {**_LIGHT_CLIT, "stages": 1}, 238_855),
    "clit": System("CLIT", {"name": "clit", "stages": 3}, 15_689_489, {**_LIGHT_CLIT, "stages": 3}, 642_189),
    "lit-f": System(
        "LIT with a frequency branch", {"name": "lit"}, 4_675_115, status=_ABLATED, encoders=("edsr",)
    ),
    "lit-fe": System(
        "LIT with a frequency branch and corners",
        {"name": "lit", "local_ensemble": True},
        4_675_115,
        status=_ABLATED,
        encoders=("edsr",),
    ),
    "liif": System("LIIF", {"name": "liif"}, 346_883, {"name": "liif", "hidden_dims": _LIGHT_MLP}, 91_139),
    "metasr": System(
        "Meta-SR", {"name": "metasr"}, 445_120, {"name": "metasr", "hidden_dims": [64]}, 112_576
    ),
    "metasr-original": System(
        "the original Meta-SR", {"name": "metasr", "original": True}, 445_144, encoders=("rdn",)
    ),
    "itsrn": System(
        "ITSRN",
        {"name": "itsrn"},
        645_314,
        {"name": "itsrn", "hidden_dims": [64, 64, 64], "merge_dim": 64},
        121_602,
        encoders=("rdn", "swinir"),
    ),
    "msit": System(
        "MSIT",
        {"name": "msit"},
        6_903_563,
        {"name": "msit", **_LIGHT_STAGE, "kernels": 4, "query_kernels": 2},
        245_255,
        encoders=("edsr", "rdn"),
    ),
    "ciaosr": System(
        "CiaoSR",
        {"name": "ciaosr"},
        1_428_614,
        # the non-local part then looks as far as in training's patches of 48x48
        {"name": "ciaosr", "hidden_dims": [64, 64, 64], "tile": 48},
        268_934,
        others={"swinir": ({"out_channels": 0}, 14_667_218)},
    ),
    "lte": System("LTE", {"name": "lte"}, 493_827, _LIGHT_LTE, 164_611),
    "lte-plus": System("LTE+", {"name": "lte", "plus": True}, 493_827, encoders=("edsr",)),
    "ultrasr": System(
        "UltraSR",
        {"name": "ultrasr"},
        397_721,
        {"name": "ultrasr", "hidden_dims": _LIGHT_MLP},
        107_033,
        "reconstructed",
        ("edsr", "rdn"),
    ),
    "ipe": System(
        "IPE",
        {"name": "ipe"},
        356_611,
        {"name": "ipe", "hidden_dims": _LIGHT_MLP},
        96_003,
        "reconstructed",
        ("edsr", "rdn"),
    ),
}


def _rows() -> Iterator[Entry]:
    def row(name: str, encoder: dict[str, Any], decoder: dict[str, Any], parameters: int, says: str) -> Entry:
        pins = _PUBLISHED.get(name, ())
        return Entry(name, ModelConfig(name, encoder, decoder), parameters, says, *pins)

    encoder, size = _LIGHT_ENCODER
    for suffix, system in _SYSTEMS.items():
        if system.light is not None:
            says = f"{system.title} of 64 channels behind a 12-block EDSR"
            says += f", {system.status}" * (system.status != System.status)
            yield row(f"edsr-light-{suffix}", encoder, system.light, size + system.light_parameters, says)
    lit = _SYSTEMS["lit"]
    assert lit.light is not None
    says = "edsr-light-lit for JPEGs, noise and blur"
    yield row("edsr-light-lit-photo", encoder, lit.light, size + lit.light_parameters, says)
    for suffix, system in _SYSTEMS.items():
        for name in system.encoders:
            title, encoder_size = _ENCODERS[name]
            settings, size = system.others.get(name, ({}, encoder_size + system.parameters))
            says = f"{title} with {system.title}, {system.status}"
            yield row(f"{name}-{suffix}", {"name": name, **settings}, system.decoder, size, says)


REGISTRY: dict[str, Entry] = {entry.name: entry for entry in _rows()}


def list_models(pattern: str = "*") -> list[str]:
    """The names of the registered models.

    Args:
        pattern: a shell pattern such as "rdn-*"; letter case is ignored.

    Returns:
        The names that match it, in the registry's order, weights or none (``clit-zoo list`` tells).
    """
    return [name for name in REGISTRY if fnmatch.fnmatchcase(name, pattern.lower())]


def find(name: str) -> Entry | None:
    """The row of a registered model, whatever the letter case of ``name``; None if there is none."""
    return REGISTRY.get(str(name).lower())


def get(name: str) -> Entry:
    """The row of a registered model, whatever the letter case of ``name``.

    Raises:
        ModelNotFoundError: there is none.
    """
    if entry := find(name):
        return entry
    raise unknown(name)


def unknown(name: str) -> ModelNotFoundError:
    """The error for a name that is none, with close names, those that have weights first."""
    close = difflib.get_close_matches(str(name)[:100].lower(), REGISTRY, n=3, cutoff=0.5)
    close.sort(key=lambda other: status(other) == "no weights yet")
    hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
    ready = with_weights()
    rest = [other for other in REGISTRY if other not in ready]
    return ModelNotFoundError(
        f"There is no model called {str(name)[:100]!r}.{hint} With weights: {', '.join(ready) or 'none'}. To "
        f"be trained: {', '.join(rest) or 'none'}. A folder with config.json and model.safetensors or a Hub "
        "repository ('organisation/name') will also do."
    )


def name_of(config: ModelConfig) -> str | None:
    """The registered model that has these settings, whatever ``config`` calls itself."""
    for name, entry in REGISTRY.items():
        if (entry.config.encoder, entry.config.decoder) == (config.encoder, config.decoder):
            return name
    return None


def status(name: str) -> Status:
    """Where the weights of a registered model are today."""
    entry = get(name)
    if entry.folder is not None:
        return "embedded"
    return "hub" if entry.repo_id else "no weights yet"


def with_weights() -> list[str]:
    """The registered models that can be used as they are."""
    return [name for name in REGISTRY if status(name) != "no weights yet"]


def embedded_folder(name: str) -> Path | None:
    """weights/<name> if the library came with it: inside the package when installed, else in the checkout.

    A package has the light models; a checkout has all that there are.
    """
    package = Path(__file__).resolve().parents[1]
    places = [package / "weights"]
    # Beside an installed package there may be someone else's folder of that name.
    if (package.parent / "pyproject.toml").is_file():
        places.append(package.parent / "weights")
    for place in places:
        folder = place / name
        if (folder / "config.json").is_file() and (folder / "model.safetensors").is_file():
            return folder
    return None
