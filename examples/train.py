"""Train a registered model on a folder of photographs, from random weights.

    python examples/train.py --model edsr-light-lit --data photographs/ --out run/ --steps 6000 \
        --batch 8 --lr 1e-3 --optimizer muon --schedule trapezoid --warmup 100 --bf16

Started again with the same --out, it goes on where it stopped. The trained model is written to OUT/model,
which `clit_zoo.from_pretrained` and `clit-zoo upscale -m` take.
"""

import argparse
from pathlib import Path

import torch

import clit_zoo
from clit_zoo.pretrained import pick_device
from clit_zoo.training.data import Photographs
from clit_zoo.training.loop import Recipe, Run
from clit_zoo.training.optim import OPTIMIZERS, SCHEDULES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="edsr-light-lit", choices=clit_zoo.list_models())
    parser.add_argument("--data", type=Path, required=True, help="folder of photographs, searched recursively")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--warmup", type=int, default=0)
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="adam")
    parser.add_argument("--schedule", choices=SCHEDULES, default="halving")
    parser.add_argument("--ema", type=float, default=0.999)
    parser.add_argument("--clip", type=float, default=0.0)
    parser.add_argument("--bf16", action="store_true", help="compute in bfloat16")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)

    torch.manual_seed(args.seed)
    model = clit_zoo.create_model(args.model).to(pick_device(args.device))
    photographs = Photographs(args.data)
    for file, reason in photographs.skipped:
        print(f"left out {file}: {reason}")
    recipe = Recipe(
        steps=args.steps, batch=args.batch, lr=args.lr, warmup=args.warmup, optimizer=args.optimizer,
        schedule=args.schedule, ema=args.ema, clip=args.clip, bf16=args.bf16, seed=args.seed,
    )  # fmt: skip
    run = Run(model, recipe, photographs, args.out)
    run.train()
    model.load_state_dict(run.averaged())
    print("saved", model.save_pretrained(args.out / "model", overwrite=True))


if __name__ == "__main__":
    main()
