"""Model name -> settings, size, and where the weights are. Nothing here imports torch.

The rows say what exists today: a row without ``repo_id`` and without a folder under weights/ has no weights,
and ``status`` says so. To publish a model, fill in its ``repo_id``, ``revision`` and ``sha256``.
"""

import difflib
import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass
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

    def __post_init__(self) -> None:
        pinned = [self.repo_id, self.revision, self.sha256]
        if any(pinned) and not all(pinned):
            raise ValueError(f"{self.name}: repo_id, revision and sha256 are pinned together or not at all")

    @property
    def folder(self) -> Path | None:
        """The folder with the weights that ship with the library, or None where there are none."""
        return embedded_folder(self.name)


# The papers' models: every encoder with every decoder, in the papers' sizes. All three encoders put out 64
# channels, so a model has its encoder's parameters and its decoder's.
_ENCODERS = {
    "edsr": ("EDSR-baseline", 1_220_416),
    "rdn": ("RDN", 21_973_952),
    "swinir": ("SwinIR", 11_603_044),
}
_DECODERS: dict[str, tuple[str, dict[str, Any], int]] = {
    "lit": ("LIT", {"name": "clit", "stages": 1}, 5_328_651),
    "clit": ("CLIT", {"name": "clit", "stages": 3}, 15_689_489),
    "liif": ("LIIF", {"name": "liif"}, 346_883),
}


def _rows() -> Iterator[Entry]:
    def row(name: str, encoder: dict[str, Any], decoder: dict[str, Any], parameters: int, says: str) -> Entry:
        return Entry(name, ModelConfig(name, encoder, decoder), parameters, says)

    small = {"name": "edsr", "blocks": 12}
    light = {"name": "clit", "dim": 64, "heads": 4, "radius": 1, "hidden_dims": [128, 64, 64, 64]}
    lit, clit = {**light, "stages": 1}, {**light, "stages": 3}
    yield row("edsr-light-lit", small, lit, 1_163_847, "12-block EDSR with a 3×3 local implicit transformer")
    yield row("edsr-light-clit", small, clit, 1_567_181, "edsr-light-lit as a cascade of three stages")
    yield row("edsr-light-lit-photo", small, lit, 1_163_847, "edsr-light-lit for JPEGs, noise and blur")
    for suffix, (decoder_title, decoder, decoder_size) in _DECODERS.items():
        for encoder, (encoder_title, encoder_size) in _ENCODERS.items():
            size = encoder_size + decoder_size
            says = f"{encoder_title} with {decoder_title}, as in the paper"
            yield row(f"{encoder}-{suffix}", {"name": encoder}, decoder, size, says)


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
    """weights/<name> if the library came with it: inside the package when installed, else in the checkout."""
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
