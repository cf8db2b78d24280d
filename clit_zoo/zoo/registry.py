"""Model name -> settings and where the weights are. One row per model; nothing here imports torch.

The rows say what exists *today*: a row without `repo_id` and without a folder under weights/ has no weights,
and `status` says so. Publishing a model means filling in its `repo_id`, `revision` and `sha256`.
"""

from __future__ import annotations

import difflib
import fnmatch
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import ModelNotFoundError
from .config import ModelConfig

Status = Literal["embedded", "hub", "no weights yet"]


@dataclass(frozen=True)
class Entry:
    """One registered model.

    repo_id, revision, sha256: the Hub repository, the commit (40 hex digits) and the SHA-256 of its
    model.safetensors, pinned together; None where nothing has been published.
    """

    name: str
    config: ModelConfig
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

    @property
    def embedded(self) -> bool:
        return self.folder is not None


def _row(name: str, encoder: dict, decoder: dict, summary: str, **pinned: str) -> Entry:
    return Entry(name, ModelConfig(name, encoder, {"name": "clit", **decoder}), summary, **pinned)


_ROWS = (
    _row(
        "edsr-light-lit",
        {"name": "edsr", "blocks": 12},
        {"dim": 64, "heads": 4, "radius": 1, "stages": 1, "hidden_dims": [128, 64, 64, 64]},
        "light: 12-block EDSR with a 3×3 local implicit transformer; ships with the library",
    ),
    _row(
        "edsr-light-clit",
        {"name": "edsr", "blocks": 12},
        {"dim": 64, "heads": 4, "radius": 1, "stages": 3, "hidden_dims": [128, 64, 64, 64]},
        "light: edsr-light-lit as a cascade of three stages, for large factors; ships with the library",
    ),
    _row("edsr-lit", {"name": "edsr"}, {"stages": 1}, "EDSR-baseline with LIT, as in the paper"),
    _row("edsr-clit", {"name": "edsr"}, {"stages": 3}, "EDSR-baseline with CLIT, as in the paper"),
    _row("rdn-lit", {"name": "rdn"}, {"stages": 1}, "RDN with LIT, as in the paper"),
    _row("rdn-clit", {"name": "rdn"}, {"stages": 3}, "RDN with CLIT, as in the paper"),
    _row("swinir-lit", {"name": "swinir"}, {"stages": 1}, "SwinIR with LIT, as in the paper"),
    _row("swinir-clit", {"name": "swinir"}, {"stages": 3}, "SwinIR with CLIT, as in the paper"),
    _row(
        "edsr-light-lit-photo",
        {"name": "edsr", "blocks": 12},
        {"dim": 64, "heads": 4, "radius": 1, "stages": 1, "hidden_dims": [128, 64, 64, 64]},
        "light: edsr-light-lit trained on JPEGs, noise and blur, which it cleans; ships with the library",
    ),
)

REGISTRY: dict[str, Entry] = {entry.name: entry for entry in _ROWS}


def list_models(pattern: str = "*") -> list[str]:
    """The registered names that match a shell pattern such as "rdn-*" (letter case is ignored), in order."""
    return [name for name in REGISTRY if fnmatch.fnmatchcase(name, pattern.lower())]


def get(name: str) -> Entry:
    """The row of a registered model. Raises ModelNotFoundError with the closest names and the list."""
    if name in REGISTRY:
        return REGISTRY[name]
    close = difflib.get_close_matches(str(name)[:100].lower(), REGISTRY, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
    raise ModelNotFoundError(
        f"There is no model called {str(name)[:100]!r}.{hint} Registered: {', '.join(REGISTRY)}. A folder "
        "with config.json and model.safetensors or a Hub repository ('organisation/name') will also do."
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
    if entry.embedded:
        return "embedded"
    return "hub" if entry.repo_id else "no weights yet"


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
