"""`clit-zoo list`: the registered models, and which weights exist today."""

from __future__ import annotations

import json

import click

from ..zoo import registry


@click.command("list")
@click.argument("pattern", default="*", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
def command(pattern: str, as_json: bool) -> None:
    """List the registered models whose name matches PATTERN, such as 'rdn-*', and where their weights are.

    "embedded" weights ship with the library, "hub" weights are downloaded on first use, and a model with
    "no weights yet" can be built, trained and converted into, but not used as it is.
    """
    rows = [_row(name) for name in registry.list_models(pattern)]
    if as_json:
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    if not rows:
        names = ", ".join(registry.REGISTRY)
        click.echo(f"No registered model matches {pattern!r}; there are {names}.", err=True)
        return
    table = [("NAME", "ENCODER", "DECODER", "PARAMETERS", "WEIGHTS", "SUMMARY")]
    table += [
        (row["name"], row["encoder"], _decoder(row), f"{row['parameters'] / 1e6:.1f} M", row["weights"],
         row["summary"])
        for row in rows
    ]  # fmt: skip
    widths = [max(len(line[i]) for line in table) for i in range(5)]
    for line in table:
        cells = [text.ljust(width) for text, width in zip(line, widths)]
        cells[3] = line[3].rjust(widths[3])
        click.echo("  ".join([*cells, line[5]]).rstrip())


def _row(name: str) -> dict:
    entry = registry.get(name)
    decoder = entry.config.decoder
    return {
        "name": name,
        "encoder": entry.config.encoder["name"],
        "decoder": decoder["name"],
        "stages": decoder["stages"],
        "parameters": entry.config.parameters,
        "weights": registry.status(name),
        "summary": entry.summary,
    }


def _decoder(row: dict) -> str:
    """As the paper names them: LIT is CLIT with one stage."""
    return "lit" if row["stages"] == 1 else f"clit, {row['stages']} stages"
