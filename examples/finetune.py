"""Fine-tune a model on a folder of photographs, and enlarge a picture with the result.

    python examples/finetune.py photographs/ run/

Run again, it goes on where it stopped. `clit-zoo train --help` has all that can be set.
"""

import sys
from pathlib import Path

import clit_zoo
from clit_zoo.training import Recipe, train

data, out = sys.argv[1:3]
recipe = Recipe(steps=1500, batch=8, optimizer="muon", lr=4e-4, schedule="trapezoid", warmup=50)
folder = train("edsr-light-lit", data, out, recipe)
large = clit_zoo.from_pretrained(folder).upscale(Path(__file__).with_name("astronaut.png"), scale=3.7)
large.save(Path(out) / "astronaut_x3.7.png")
