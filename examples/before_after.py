"""Input, bicubic and model side by side: makes examples/before_after.png, the picture of the README.

python examples/before_after.py [--picture PICTURE] [--model edsr-light-lit] [--scale 4] [-o SHEET.png]
"""

import argparse
from pathlib import Path

from PIL import Image

import clit_zoo

HERE = Path(__file__).parent
SHARES = (0.22, 0.0, 0.72, 0.5)
"""Part of the picture that is shown: left, top, right, bottom, as shares of it."""
GAP = 6

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--picture", type=Path, default=HERE / "astronaut.png")
parser.add_argument("--model", default="edsr-light-lit")
parser.add_argument("--scale", type=float, default=4.0)
parser.add_argument("-o", "--out", type=Path, default=HERE / "before_after.png")
args = parser.parse_args()

picture = Image.open(args.picture).convert("RGB")
box = tuple(round(share * picture.size[i % 2]) for i, share in enumerate(SHARES))
large = clit_zoo.from_pretrained(args.model).open(picture).render(args.scale, box=box)
nearest, bicubic = Image.Resampling.NEAREST, Image.Resampling.BICUBIC
panels = [*(picture.resize(large.size, how, box=box) for how in (nearest, bicubic)), large]

sheet = Image.new("RGB", (3 * large.width + 2 * GAP, large.height), "white")
for i, panel in enumerate(panels):
    sheet.paste(panel, (i * (large.width + GAP), 0))
sheet.save(args.out, optimize=True)
print(f"wrote {args.out}, {sheet.width}×{sheet.height}")
