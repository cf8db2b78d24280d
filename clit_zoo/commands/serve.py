"""``clit-zoo serve``: the page on which one zooms into a photograph."""

import warnings
from pathlib import Path

import click

from .loading import load, precision_options


@click.command("serve")
@click.argument(
    "photographs", metavar="[PHOTO...]", nargs=-1, type=click.Path(readable=False, path_type=Path)
)
@click.option(
    "-m", "--model", metavar="NAME|FOLDER|REPO", help="Show all in this one.  [default: chosen for each]"
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Another asks for a token.")
@click.option("--port", type=click.IntRange(0, 65535), help="[default: 8765, or a free one]")
@click.option("--no-browser", is_flag=True, help="Do not open the page in a browser.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps …")
@precision_options("Compute in float32.")
@click.option("--backend", default="auto", show_default=True, help="auto, torch, triton or reference.")
def command(
    photographs: tuple[Path, ...],
    model: str | None,
    host: str,
    port: int | None,
    no_browser: bool,
    device: str,
    dtype: str | None,
    backend: str,
) -> None:
    """Show photographs in the browser: each part is decoded for exactly the scale one looks at.

    Only this machine can reach the page, unless --host says otherwise. Any viewer of the IIIF Image API can
    show the pictures too; /api/openapi.json describes the rest. Ctrl-C ends it.
    """
    from ..page.pictures import MAX_PICTURES, Models, Pictures
    from ..page.server import serve

    warnings.filterwarnings("ignore", module="PIL")  # remarks on odd metadata; ours say what matters
    if len(photographs) > MAX_PICTURES:
        raise click.UsageError(f"{len(photographs)} photographs, and {MAX_PICTURES} can be open at once.")
    models = Models(lambda name: load(name, device, dtype, backend), model)
    pictures = Pictures(models.own)
    for path in photographs:
        pictures.add(path, path.name)
    serve(pictures, models, host=host, port=port, say=click.echo, browser=not no_browser)
