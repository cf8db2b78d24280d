"""Fine-tune a model on a folder of photographs, or train one from random weights.

    python examples/finetune.py --model edsr-light-lit --data photographs/ --out run/ --val Set5/HR
    python examples/finetune.py --model rdn-lit --from-scratch --data DIV2K_train_HR/ --out run/ --bf16
    torchrun --nproc-per-node 8 examples/finetune.py --model rdn-lit --stages 3 --data … --out …

Started again with the same --out, it goes on where it stopped, also after a kill. The result is OUT/model,
which `clit_zoo.from_pretrained`, `clit-zoo upscale -m` and `push_to_hub` take; OUT/best is the best by
validation. --strategy, --queries and the recipe's defaults are explained in clit_zoo/training.
"""

import argparse
import math
import os
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import NoReturn

import torch
from tqdm import tqdm

from clit_kernels import BACKENDS
from clit_zoo.errors import ClitZooError, ConfigError
from clit_zoo.pretrained import has_bfloat16
from clit_zoo.training.card import Training
from clit_zoo.training.degrade import DEGRADATIONS
from clit_zoo.training.legs import INDEX, check_leg, read_leg, write_leg
from clit_zoo.training.loop import Run, device_name
from clit_zoo.training.optim import OPTIMIZERS, SCHEDULES
from clit_zoo.training.patches import QUERIES
from clit_zoo.training.photographs import Photographs
from clit_zoo.training.processes import Processes
from clit_zoo.training.recipe import Recipe
from clit_zoo.training.start import NEW_STAGES, name_of_source, starting_model
from clit_zoo.training.strategies import STRATEGIES
from clit_zoo.training.validation import Validation

STARTED = time.monotonic()


def count(word: str) -> int:
    """A whole number from 1."""
    if not word.isdecimal() or (number := int(word)) < 1:
        raise argparse.ArgumentTypeError(f"{word!r} is not a whole number from 1")
    return number


def minutes(word: str) -> float:
    """A number of at least 0."""
    try:
        number = float(word)
    except ValueError:
        number = math.nan
    if not number >= 0:
        raise argparse.ArgumentTypeError(f"{word!r} is not a number of minutes from 0")
    return number


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    yes_or_no = argparse.BooleanOptionalAction
    part = parser.add_argument_group("what")
    part.add_argument("--model", required=True, help="a name (clit-zoo list), a folder or a Hub repository")
    part.add_argument("--data", type=Path, required=True, help="folder of photographs, searched recursively")
    part.add_argument("--out", type=Path, required=True, help="folder of the run")
    part.add_argument("--from-scratch", action="store_true", help="random weights")
    part.add_argument("--stages", type=int, help="make the model a cascade of so many stages")
    part.add_argument(
        "--new-stages", choices=NEW_STAGES, default="copy", help="random is what the authors do"
    )
    part.add_argument("--freeze-encoder", action="store_true")
    part.add_argument("--freeze-stages", type=int, default=0, help="train the stages after so many only")
    part.add_argument("--name", help="what the result is called")

    part = parser.add_argument_group("recipe")
    part.add_argument(
        "--steps", type=int, default=10_000, help="the paper's: 1,000,000 (default %(default)s)"
    )
    part.add_argument("--batch", type=int, default=32, help="patches a step, over all processes")
    part.add_argument("--accumulate", type=int, default=1, help="compute the batch in so many parts")
    part.add_argument("--patch", type=int, default=48, help="low-resolution side of a patch in pixels")
    part.add_argument("--strategy", choices=STRATEGIES, default="cumulative", help="scales; see Table 5")
    part.add_argument("--queries", choices=QUERIES, default="stratified", help="the authors': uniform")
    part.add_argument(
        "--degrade", choices=("", *DEGRADATIONS), default="", help="what happens to the patches, by chance"
    )
    part.add_argument(
        "--drawings", type=float, default=0.0, help="share of patches that are made-up text and lines"
    )
    part.add_argument("--optimizer", choices=OPTIMIZERS, default="adam")
    part.add_argument("--lr", type=float, default=1e-4)
    part.add_argument("--schedule", choices=SCHEDULES, default="halving")
    part.add_argument("--warmup", type=int, default=0, help="steps")
    part.add_argument("--clip", type=float, default=0.0, help="largest gradient norm; 0 for none")
    part.add_argument("--ema", type=float, default=0.999, help="decay of the averaged weights; 0 for none")
    part.add_argument("--seed", type=int, default=0)

    part = parser.add_argument_group("speed")
    part.add_argument("--device", default="auto")
    part.add_argument("--backend", choices=BACKENDS, default="auto", help="who computes the decoder")
    part.add_argument("--bf16", action=yes_or_no, help="compute in bfloat16; by default on GPUs that can")
    part.add_argument("--compile", action="store_true", help="compile the encoder")
    part.add_argument("--channels-last", action="store_true")
    part.add_argument("--threads", type=count, help="CPU threads that compute")
    part.add_argument("--workers", type=count, help="threads that draw patches")
    part.add_argument(
        "--cache", type=Path, help="folder for decoded pictures, mapped instead of held in memory"
    )

    part = parser.add_argument_group("reports")
    part.add_argument("--val", type=Path, nargs="+", default=[], help="folders of originals to measure on")
    part.add_argument("--val-scales", type=float, nargs="+", default=[2, 3, 4])
    part.add_argument("--val-every", type=int, default=1000, help="steps")
    part.add_argument("--val-limit", type=int, help="measure on the first so many pictures")
    part.add_argument("--save-every", type=int, default=500, help="steps")
    part.add_argument("--log-every", type=int, default=50, help="steps")
    part.add_argument("--tensorboard", action=yes_or_no, default=True)
    part.add_argument("--data-name", help="of the photographs, for the model card")
    part.add_argument("--license", help="of the weights, for the model card, such as apache-2.0")
    part.add_argument("--datasets", nargs="*", default=[], help="Hub identifiers, for the model card")

    part = parser.add_argument_group("legs", "train some minutes at a time, on changing machines")
    part.add_argument("--minutes", type=minutes, help="stop, and save, so long after the program's start")
    part.add_argument("--leg-in", type=Path, help="go on from the leg in this folder, if there is one")
    part.add_argument("--leg-out", type=Path, help="write a leg to this folder when stopping")
    part.add_argument(
        "--leg-size", type=float, default=64, help="MiB that a leg may take, in files of up to 16"
    )
    return parser


def main(argv: list[str] | None = None) -> None:
    args = options().parse_args(argv)
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    program = ["torchrun", "--nproc-per-node", os.environ["LOCAL_WORLD_SIZE"]] if several else ["python"]
    command = [*program, "examples/finetune.py", *(sys.argv[1:] if argv is None else argv)]
    if args.threads:
        torch.set_num_threads(args.threads)
    processes = Processes(args.device)
    stopped_by = train(args, processes, command)
    processes.close()  # not after an error: the others may be waiting for this process, and it for them
    if stopped_by is not None:
        sys.exit(128 + stopped_by)  # "&&" in a shell must not go on to a model that is not there


def train(args: argparse.Namespace, processes: Processes, command: list[str]) -> int | None:
    """Train as asked; returns the number of the signal that stopped it, if one did."""
    say = tqdm.write if processes.main else lambda text: None
    if args.bf16 is None:
        args.bf16 = processes.device.type == "cuda" and has_bfloat16()
    if args.workers is None:
        args.workers = max(1, min(8, (os.cpu_count() or 1) // processes.count - 1))
    for option in ("out", "cache", "leg_out"):
        place = getattr(args, option)
        if place is not None and args.data.resolve() in (place.resolve(), *place.resolve().parents):
            raise ConfigError(
                f"--{option.replace('_', '-')} {place} lies in --data {args.data}, and its pictures would be "
                "trained on: give a folder outside"
            )
    settings = {field.name: getattr(args, field.name) for field in fields(Recipe)}
    recipe = Recipe(**settings)
    validation = None
    if args.val:
        validation = Validation(tuple(args.val), tuple(args.val_scales), args.val_every, args.val_limit)
    model = starting_model(
        args.model, from_scratch=args.from_scratch, stages=args.stages,
        new_stages=args.new_stages, name=args.name, seed=args.seed,
    )  # fmt: skip
    model.backend = args.backend
    with processes.main_first():
        photographs = Photographs(
            args.data,
            smallest=2 * args.patch,
            cache=args.cache,
            threads=args.workers,
            progress=processes.main,
        )
    for file, reason in photographs.skipped:
        say(f"left out {file}: {reason}")
    source = args.data_name or args.data.resolve().name
    number = len(photographs.images)
    data = f"{number} picture{'s' * (number != 1)} ({photographs.megapixels:.3g} megapixels) of {source}"
    say(
        f"training {model.config.name} ({sum(p.numel() for p in model.parameters()):,} parameters) on "
        f"{device_name(processes.device)} with {data}, {len(photographs.skipped)} left out; crops reach "
        f"×{photographs.reach / args.patch:.1f}"
    )

    start = "random weights" if args.from_scratch else f"the weights of {name_of_source(args.model)}"
    if args.stages and not args.from_scratch:
        start += f" made a cascade of {args.stages} stages (new ones: {args.new_stages})"

    def describe(run: Run) -> Training:
        return Training(
            start=start,
            data=data, steps=run.step, seconds=run.seconds, device=device_name(processes.device),
            processes=processes.count, command=command, license=args.license, datasets=tuple(args.datasets),
        )  # fmt: skip

    run = Run(
        model, recipe, photographs, args.out, processes=processes, validation=validation, describe=describe,
        save_every=args.save_every, log_every=args.log_every, threads=args.workers,
        tensorboard=args.tensorboard,
    )  # fmt: skip
    leg_bytes = round(args.leg_size * 2**20)
    if args.leg_out:
        check_leg(run, leg_bytes)
    if args.leg_in and (args.leg_in / INDEX).exists():
        read_leg(run, args.leg_in)
    elif args.leg_in:
        say(f"no leg in {args.leg_in} yet" + ("" if run.step else ": starting anew"))
    if run.step:
        say(f"going on from step {run.step}" + "".join(f"; {change}" for change in run.changed))
    first = run.step
    left = None if args.minutes is None else args.minutes - (time.monotonic() - STARTED) / 60
    finished = run.train(left)
    if run.step > first:
        speed = f"{run.pace.speed:.3g} steps a second on {device_name(processes.device)}"
        say(f"{speed}, {run.pace.waiting:.1%} of it waiting for data; see {args.out / 'log.jsonl'}")
    if finished:
        say(f"saved {run.finish()}")
    if args.leg_out and processes.main:
        kept = write_leg(run, args.leg_out, leg_bytes)
        say(f"wrote the leg {args.leg_out} at step {run.step}: {', '.join(kept)}")
    if not finished:
        say(f"stopped at step {run.step} of {recipe.steps}; the same command goes on from there")
    return None if finished else run.stopped_by


def fail(message: str) -> NoReturn:
    """Say so and end; one of several processes at once, for taking them apart may wait for the others."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        sys.exit(message)
    print(message, file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(1)


if __name__ == "__main__":
    try:
        main()
    except ClitZooError as error:
        fail(f"Error: {error}")
    except torch.OutOfMemoryError as error:
        fail(f"Error: not enough memory ({str(error).splitlines()[0]}): raise --accumulate or lower --batch")
    except KeyboardInterrupt:
        fail("Interrupted.")
