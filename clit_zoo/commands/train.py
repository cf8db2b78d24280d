"""`clit-zoo train`: fine-tune a model on a folder of photographs, or train one from random weights."""

import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import torch

from clit_kernels import BACKENDS

from ..training import Recipe, Validation, train
from ..training.cascade import NEW_STAGES
from ..training.degrade import DEGRADATIONS
from ..training.losses import LOSSES
from ..training.optim import OPTIMIZERS, SCHEDULES
from ..training.strategies import QUERIES, STRATEGIES
from .eval import SCALES

COUNT = click.IntRange(min=1)
FOLDER = click.Path(readable=False, path_type=Path)
RECIPE = [field.name for field in fields(Recipe)]
SPEED = ["device", "backend", "bf16", "compile", "channels_last", "threads", "workers", "cache"]
REPORTS = [
    "val", "val_scales", "val_every", "val_limit", "save_every", "log_every", "tensorboard", "data_name",
    "license", "datasets",
]  # fmt: skip


class _Train(click.Command):
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.obj = tuple(args)  # as typed, for the model card
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        named = {"Recipe": [name for name in RECIPE if name not in SPEED], "Speed": SPEED, "Reports": REPORTS}
        grouped = {name for names in named.values() for name in names}
        params = self.get_params(ctx)
        groups = {"What": [p.name for p in params if p.name not in grouped], **named}
        for title, names in groups.items():
            with formatter.section(title):
                records = [p.get_help_record(ctx) for p in params if p.name in names]
                formatter.write_dl([record for record in records if record is not None])


@click.command("train", cls=_Train, context_settings={"show_default": True})
@click.option("--model", required=True, metavar="NAME|FOLDER|REPO", help="See clit-zoo list.")
@click.option("--data", type=FOLDER, required=True, help="Folder of photographs, searched recursively.")
@click.option("--out", type=FOLDER, required=True, help="Folder of the run.")
@click.option("--from-scratch", is_flag=True, help="Start from random weights.")
@click.option(
    "--grow-from", metavar="NAME|FOLDER|REPO", help="Start from a model with a smaller encoder of its kind."
)
@click.option("--stages", type=int, help="Make the model a cascade of so many stages.")
@click.option(
    "--new-stages", type=click.Choice(NEW_STAGES), default="copy", help="random is what the authors do."
)
@click.option("--name", help="What the result is called.")
@click.option("--minutes", type=click.FloatRange(min=0), help="Stop after so many, with the state saved.")
@click.option("--steps", type=int, default=10_000, help="The papers': 1,000,000.")
@click.option("--batch", type=int, default=Recipe.batch, help="Patches a step, over all processes.")
@click.option("--accumulate", type=int, default=Recipe.accumulate, help="Compute the batch in so many parts.")
@click.option("--patch", type=int, default=Recipe.patch, help="Low-resolution side of a patch in pixels.")
@click.option(
    "--strategy", type=click.Choice(list(STRATEGIES)), default=Recipe.strategy, help="Scales; see Table 5."
)
@click.option(
    "--queries", type=click.Choice(QUERIES), default=Recipe.queries, help="Positions; the authors': uniform."
)
@click.option("--degrade", type=click.Choice(list(DEGRADATIONS)), help="What happens to patches, by chance.")
@click.option(
    "--drawings", type=float, default=Recipe.drawings, help="Share of patches of made-up text and lines."
)
@click.option("--loss", type=click.Choice(list(LOSSES)), default=Recipe.loss)
@click.option("--optimizer", type=click.Choice(list(OPTIMIZERS)), default=Recipe.optimizer)
@click.option("--lr", type=float, default=Recipe.lr)
@click.option("--schedule", type=click.Choice(list(SCHEDULES)), default=Recipe.schedule)
@click.option("--warmup", type=int, default=Recipe.warmup, help="Steps.")
@click.option("--clip", type=float, default=Recipe.clip, help="Largest gradient norm; 0 for none.")
@click.option("--ema", type=float, default=Recipe.ema, help="Decay of the averaged weights; 0 for none.")
@click.option("--freeze-encoder", is_flag=True, help="Train the decoder only.")
@click.option(
    "--freeze-stages", type=int, default=Recipe.freeze_stages, help="Train the stages after so many only."
)
@click.option("--seed", type=int, default=Recipe.seed)
@click.option("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps …")
@click.option("--backend", type=click.Choice(BACKENDS), default="auto", help="Who computes the decoder.")
@click.option("--bf16/--no-bf16", default=None, help="Compute in bfloat16.  [default: on GPUs that can]")
@click.option("--compile", is_flag=True, help="Compile the encoder.")
@click.option("--channels-last", is_flag=True, help="Store convolution kernels in that order.")
@click.option("--threads", type=COUNT, help="CPU threads that compute.")
@click.option("--workers", type=COUNT, help="Threads that draw patches.")
@click.option("--cache", type=FOLDER, help="Folder for decoded pictures, mapped instead of held in memory.")
@click.option("--val", type=FOLDER, multiple=True, help="Folder of originals to measure on; may be repeated.")
@click.option("--val-scales", type=SCALES, default="2,3,4")
@click.option("--val-every", type=COUNT, default=Validation.every, help="Steps.")
@click.option("--val-limit", type=COUNT, help="Measure on the first so many pictures of each folder.")
@click.option("--save-every", type=COUNT, default=500, help="Steps.")
@click.option("--log-every", type=COUNT, default=50, help="Steps.")
@click.option("--tensorboard/--no-tensorboard", default=True)
@click.option("--data-name", help="Of the photographs, for the model card.")
@click.option("--license", help="Of the weights, for the model card, such as apache-2.0.")
@click.option("--datasets", multiple=True, help="Hub identifier, for the model card; may be repeated.")
@click.pass_obj
def command(
    words: tuple[str, ...],
    threads: int | None,
    val: tuple[Path, ...],
    val_scales: list[float],
    val_every: int,
    val_limit: int | None,
    **options: Any,
) -> None:
    """Fine-tune a model on a folder of photographs, or train one from random weights.

    Started again with the same --out, it goes on where it stopped, also after a kill. It writes OUT/model,
    which from_pretrained, `clit-zoo upscale -m` and push_to_hub take, OUT/best (the best by --val),
    OUT/log.jsonl, OUT/samples and OUT/checkpoint.pt.

    After ten steps it says how long the rest will take. A step of 8 patches of an edsr-light model takes
    1.1 to 1.5 s on one CPU core; the papers' million steps of 32 patches are for GPUs. Within the hour on a
    CPU:

    \b
    clit-zoo train --model edsr-light-lit --data photographs/ --out run/ --steps 1500 \\
        --batch 8 --optimizer muon --lr 4e-4 --schedule trapezoid --warmup 50
    """
    recipe = Recipe(**{name: options.pop(name) for name in RECIPE})
    validation = Validation(val, tuple(val_scales), val_every, val_limit) if val else None
    if threads:
        torch.set_num_threads(threads)
    program = "clit-zoo train"
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        program = f"torchrun --nproc-per-node {os.environ['LOCAL_WORLD_SIZE']} -m clit_zoo train"
    train(recipe=recipe, validation=validation, command=(*program.split(), *words), **options)
