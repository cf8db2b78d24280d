"""Measure a model, and anything else that enlarges pictures, on folders of originals.

    python examples/evaluate.py edsr-light-lit data/Set5/HR data/Set14/HR

The low-resolution pictures are made here as the benchmarks made theirs: MATLAB's bicubic up to ×4, Pillow's
above. Run it again after an interruption: finished images are in scores.jsonl and are not computed twice.
"""

import argparse
import sys

import numpy as np
from PIL import Image

import clit_zoo
from clit_zoo.evaluation import Runner, evaluate, render


def lanczos(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Any function from a small uint8 picture and (H, W) to a large one can be measured like a model."""
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.LANCZOS))


def main() -> None:
    parser = argparse.ArgumentParser(
        description="PSNR and SSIM at ×2 to ×8, beside the CLIT paper's figures."
    )
    parser.add_argument("model", help="a name, a folder or a Hub repository")
    parser.add_argument("folders", nargs="+", help="folders of original pictures")
    args = parser.parse_args()

    model = clit_zoo.from_pretrained(args.model, dtype="float32")  # as papers measure, also on GPUs
    for folder in args.folders:
        # The second argument changes when the function does: it is how finished images are recognised.
        for method in (Runner("lanczos", "lanczos/pillow", lanczos), model):
            results = evaluate(method, folder, scales=(2, 3, 4, 6, 8), resume_file="scores.jsonl")
            print(render(results, beside="auto" if method is model else "none"))


if __name__ == "__main__":
    try:
        main()
    except clit_zoo.ClitZooError as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit("Interrupted.")
