"""`clit-zoo convert`: a checkpoint of the CLIT authors' code -> a model folder."""

from pathlib import Path

import click


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
@click.option("--overwrite", is_flag=True, help="Write into a folder that is not empty.")
def convert(checkpoint: Path, folder: Path, name: str | None, overwrite: bool) -> None:
    """Turn a CHECKPOINT of the CLIT authors' training script (.pth) into a folder that every command takes
    as a model.

    Nothing in the checkpoint is run, and unknown content is refused.
    """
    # torch takes a second to import, which --help must not.
    from ..convert import convert_checkpoint
    from ..zoo.config import ModelConfig

    written = convert_checkpoint(checkpoint, folder, name=name, overwrite=overwrite)
    config = ModelConfig.from_json(written / "config.json")
    click.echo(f"{written}: {config.name}, {config.parameters / 1e6:.1f} million parameters")


command = convert
