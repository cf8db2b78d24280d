"""``clit-zoo push``: a model folder -> a repository on the Hub."""

from pathlib import Path

import click

from ..zoo import hub


@click.command("push")
@click.argument("folder", type=click.Path(readable=False, path_type=Path))
@click.argument("repo_id", metavar="OWNER/NAME")
@click.option("--private", is_flag=True, help="Make a repository that only its owners see.")
@click.option("--message", default="Upload a clit_zoo model", show_default=True, help="Title of the commit.")
def command(folder: Path, repo_id: str, private: bool, message: str) -> None:
    """Publish the model in FOLDER (config.json, model.safetensors, README.md) as OWNER/NAME on the Hub, with
    the account of `hf auth login` or HF_TOKEN.

    The model is loaded first, and its card must name a licence. The lines printed are what a row of the
    registry pins.
    """
    published = hub.push(folder, repo_id, private=private, message=message)
    click.echo(f"address     {published.address}")
    click.echo(f"repository  {repo_id}")
    click.echo(f"revision    {published.revision}")
    click.echo(f"sha256      {published.sha256}")
