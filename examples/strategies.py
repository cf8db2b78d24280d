"""Compare training strategies as Table 5 of the CLIT paper does: one row a model, one column a scale.

    for s in u14 u112 alternating; do
        clit-zoo train --model edsr-light-lit --from-scratch --strategy $s --data DIR --out $s/
    done
    python examples/strategies.py Set14/HR u14/model u112/model alternating/model

A cascade gets a row for each number of its stages: what a stage adds is its row less the one above.
Run it again after an interruption: finished images are in --resume and are not computed twice.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import clit_zoo
from clit_zoo.evaluation import Method, evaluate, model_method, published
from clit_zoo.training.cascade import first_stages, stages_of


def methods(names: list[str]) -> Iterator[Method]:
    """The models, and the first stages of cascades."""
    for name in names:
        model = clit_zoo.from_pretrained(name, dtype="float32")
        stages = stages_of(model)
        for count in range(1, stages):
            yield model_method(first_stages(model, count), f"{name}, {count} of {stages} stages")
        yield model_method(model, name if stages == 1 else f"{name}, all {stages} stages")


def line(name: str, figures: dict[float, float], scales: list[float]) -> str:
    """One row of the Markdown table."""
    cells = [f"{figures[scale]:.3f}" if scale in figures else "" for scale in scales]
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="of original pictures")
    parser.add_argument("models", nargs="+", help="names, folders or Hub repositories")
    parser.add_argument("--scales", type=float, nargs="+", default=[2, 3, 4, 6, 8, 12])
    parser.add_argument("--resume", type=Path, help="keep finished scores in this file and go on from it")
    args = parser.parse_args()

    print(f"| PSNR in dB | {' | '.join(f'×{scale:g}' for scale in args.scales)} |")
    print("|---|" + "---:|" * len(args.scales))
    for method in methods(args.models):
        results = evaluate(method, args.folder, args.scales, ssim=False, resume_file=args.resume)
        for skipped in results.skipped:
            print(f"{skipped.image} was left out: {skipped.reason}")
        print(line(method.name, {mean.scale: mean.psnr for mean in results.means()}, args.scales), flush=True)
    for row in published.rows("DIV2K", source="CLIT, Table 5"):
        print(line(f"{row.method} ({row.source}, on DIV2K)", row.psnr, args.scales))


if __name__ == "__main__":
    try:
        main()
    except clit_zoo.ClitZooError as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit("Interrupted.")
