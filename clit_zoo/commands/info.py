"""``clit-zoo info``: one model's settings, size and weights."""

import json
import os
from typing import Any

import click

from ..errors import HubError, WeightsNotFoundError
from ..zoo import hub, registry
from ..zoo.card import CARD_FILE
from ..zoo.config import ModelConfig
from ..zoo.folder import ModelFiles
from ..zoo.skeleton import parameters


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
    entry, note = registry.find(name), None
    if entry is None or entry.folder is not None:
        files = hub.resolve(name)
        config = ModelConfig.from_json(files.config_path)
    else:
        config = entry.config
        try:  # nothing is downloaded to describe a registered model
            files = hub.resolve(name, local_files_only=True)
        except WeightsNotFoundError as error:
            note = str(error)
        except HubError:  # published, but not downloaded yet
            note = f"on the Hub in {entry.repo_id}; downloaded on first use"
    facts: dict[str, Any] = {"name": config.name}
    if entry is not None:
        facts |= {"summary": entry.summary, "status": registry.status(entry.name)}
        facts |= {"repository": entry.repo_id, "revision": entry.revision, "sha256": entry.sha256}
    same = entry is not None and entry.config == config  # then nothing need be built to count
    facts["parameters"] = entry.parameters if entry and same else parameters(config)
    facts["papers"] = list(config.papers)
    if files is None:
        facts |= {"origin": None, "weights": None, "note": note}
    else:
        card = files.config_path.parent / CARD_FILE
        facts |= {
            "origin": files.origin,
            "weights": str(files.weights_path),
            "weights_bytes": files.weights_path.stat().st_size,
            "card": str(card) if os.path.isfile(card) else None,
        }
    return facts | {"config": config.to_dict()}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list):
        return ("; " if value and isinstance(value[0], str) else ", ").join(map(_text, value))
    return str(value)
