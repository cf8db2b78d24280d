"""``clit-zoo convert``: a checkpoint of a paper's code -> a model folder."""

from pathlib import Path

import click

from ..convert import convert_checkpoint
from ..zoo.config import ModelConfig
from ..zoo.skeleton import parameters


@click.command("convert")
@click.argument("checkpoint", type=click.Path(readable=False, path_type=Path))
@click.option(
    "-o",
    "--output",
    "folder",
    required=True,
    metavar="FOLDER",
    type=click.Path(readable=False, path_type=Path),
    help="Where config.json, model.safetensors and README.md go.",
)
@click.option("--name", help="What the model is called. Default: as the registered one like it, else FOLDER.")
@click.option("--overwrite", is_flag=True, help="Replace a model that is there already.")
def command(checkpoint: Path, folder: Path, name: str | None, overwrite: bool) -> None:
    """Turn a CHECKPOINT (.pth) of the training script of CLIT, LIIF, LTE or CiaoSR into a folder that every
    command takes as a model.

    Nothing in the checkpoint is run, and unknown content is refused.
    """
    written = convert_checkpoint(checkpoint, folder, name=name, overwrite=overwrite)
    config = ModelConfig.from_json(written / "config.json")
    click.echo(f"{written}: {config.name}, {parameters(config) / 1e6:.1f} million parameters")
