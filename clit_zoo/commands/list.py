"""``clit-zoo list``: the registered models, and which weights exist today."""

import itertools
import json
from typing import Any

import click

from ..errors import ModelNotFoundError
from ..zoo import card, registry
from ..zoo.schema import DECODERS


@click.command("list")
@click.argument("pattern", default="*", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
def command(pattern: str, as_json: bool) -> None:
    """List the registered models whose name matches PATTERN, such as 'rdn-*', where their weights are and for
    how long they were trained.

    "embedded" weights came with the library (the light models with a package, all with a checkout), "hub"
    weights are downloaded on first use, and a model with "no weights yet" can be built, trained and converted
    into, but not used as it is.
    """
    rows = [_row(registry.get(name)) for name in registry.list_models(pattern)]
    if not rows:
        known = ", ".join(registry.REGISTRY)
        raise ModelNotFoundError(f"no registered model matches {pattern!r}; there are {known}.")
    if as_json:
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    names, weights = (max(len(row[key]) for row in rows) for key in ("name", "weights"))
    gap = ""
    rows.sort(key=lambda row: [*DECODERS].index(row["decoder"]))
    for decoder, models in itertools.groupby(rows, lambda row: row["decoder"]):
        click.echo(f"{gap}{decoder}: {DECODERS[decoder].paper}")
        gap = "\n"
        for row in models:
            size = f"{row['parameters'] / 1e6:.1f} M"
            says = row["summary"] + (f"; trained for {row['trained']}" if row["trained"] else "")
            click.echo(f"  {row['name']:{names}}  {size:>7}  {row['weights']:{weights}}  {says}")


def _row(entry: registry.Entry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "encoder": entry.config.encoder["name"],
        "decoder": entry.config.decoder["name"],
        "parameters": entry.parameters,
        "weights": registry.status(entry.name),
        "trained": card.trained(entry.folder),
        "summary": entry.summary,
    }
