"""Measure a model, and anything else that enlarges, on a folder of originals, beside published figures.

    python examples/evaluate.py edsr-light-lit data/Set5/HR

The low-resolution pictures are made as the benchmarks made theirs: MATLAB's bicubic up to ×4, Pillow's above.
Run it again after an interruption: finished images are in scores.jsonl and are not computed twice.
"""

import sys

import numpy as np
from PIL import Image

import clit_zoo
from clit_zoo.evaluation import Method, evaluate, render


def lanczos(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Any function from a small uint8 picture and (H, W) to a large one can be measured like a model."""
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.LANCZOS))


name, *folders = sys.argv[1:]
model = clit_zoo.from_pretrained(name, dtype="float32")  # as papers measure, also on GPUs
# The identity must change when the function does: it is how finished images are recognised.
for method in (Method("lanczos", lanczos, identity="lanczos, Pillow's"), model):
    for folder in folders:
        results = evaluate(method, folder, scales=(2, 3, 4, 6, 8), resume_file="scores.jsonl")
        print(render(results, beside="auto" if method is model else "none"))
