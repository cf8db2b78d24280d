"""`clit-zoo info`: one model's settings, size and weights."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click

from ..errors import HubError, WeightsNotFoundError
from ..zoo import hub, registry
from ..zoo.config import ModelConfig
from ..zoo.folder import CARD_FILE, ModelFiles


@click.command("info")
@click.argument("name", metavar="NAME|FOLDER|REPO")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def command(name: str, as_json: bool) -> None:
    """Show a model's configuration, parameters, weights and model card.

    A registered model is shown whether or not its weights exist; a Hub repository is downloaded.
    """
    facts = _facts(name)
    if as_json:
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    config = facts.pop("config")
    lines = [(key.replace("_", " "), _text(value)) for key, value in facts.items() if value is not None]
    for part in ("encoder", "decoder"):
        settings = dict(config[part])
        kind = settings.pop("name")
        lines.append(
            (part, f"{kind}: " + ", ".join(f"{key} {_text(value)}" for key, value in settings.items()))
        )
    width = max(len(key) for key, _ in lines)
    for key, value in lines:
        click.echo(f"{key.ljust(width)}  {value}")


def _facts(name: str) -> dict[str, Any]:
    files: ModelFiles | None = None
    reason = None
    if name in registry.REGISTRY and registry.status(name) != "embedded":
        # Nothing is downloaded to describe a registered model.
        config = registry.get(name).config
        try:
            files = hub.resolve(name, local_files_only=True)
        except WeightsNotFoundError as error:
            reason = str(error)
        except HubError:  # published, but not downloaded yet
            reason = f"on the Hub in {registry.get(name).repo_id}; downloaded on first use"
    else:
        files = hub.resolve(name)
        config = ModelConfig.from_json(files.config_path)
    facts: dict[str, Any] = {"name": config.name}
    if name in registry.REGISTRY:
        entry = registry.get(name)
        facts |= {"summary": entry.summary, "status": registry.status(name)}
        facts |= {"repository": entry.repo_id, "revision": entry.revision, "sha256": entry.sha256}
    facts |= {"parameters": config.parameters, "papers": list(config.papers)}
    if files is not None:
        card = files.config_path.parent / CARD_FILE
        facts |= {
            "origin": files.origin,
            "weights": str(files.weights_path),
            "weights_bytes": Path(files.weights_path).stat().st_size,
            "card": str(card) if os.path.isfile(card) else None,
        }
    else:
        facts |= {"origin": None, "weights": None, "note": reason}
    return facts | {"config": config.to_dict()}


def _text(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return ", ".join(map(_text, value)) if isinstance(value, list) else str(value)
