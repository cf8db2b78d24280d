"""Input, bicubic and model side by side: makes examples/before_after.png, the picture of the README.

python examples/before_after.py [--model edsr-light-lit] [--scale 4] [-o examples/before_after.png]
"""

import argparse
import sys
from pathlib import Path

from PIL import Image

import clit_zoo
from clit_zoo import imaging

PICTURE = Path(__file__).parent / "astronaut.png"
CROP = (0.22, 0.0, 0.72, 0.5)
"""Part of the picture that is shown: left, top, right, bottom, as shares of it."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--picture", type=Path, default=PICTURE)
    parser.add_argument("--model", default="edsr-light-lit")
    parser.add_argument("--scale", type=float, default=4.0)
    parser.add_argument("-o", "--out", type=Path, default=PICTURE.with_name("before_after.png"))
    args = parser.parse_args()

    color = imaging.read(args.picture).color[0]  # upright and 8 bits, whatever the file holds
    small = Image.fromarray((color * 255).round().byte().permute(1, 2, 0).numpy())
    large = clit_zoo.from_pretrained(args.model).upscale(small, args.scale)
    panels = [
        small.resize(large.size, Image.Resampling.NEAREST),
        small.resize(large.size, Image.Resampling.BICUBIC),
        large,
    ]
    left, top, right, bottom = (round(share * large.size[i % 2]) for i, share in enumerate(CROP))
    gap = 6
    sheet = Image.new("RGB", (3 * (right - left) + 2 * gap, bottom - top), "white")
    for i, panel in enumerate(panels):
        sheet.paste(panel.crop((left, top, right, bottom)), (i * (right - left + gap), 0))
    sheet.save(args.out, optimize=True)
    print(f"wrote {args.out}, {sheet.width}×{sheet.height}")


if __name__ == "__main__":
    try:
        main()
    except (clit_zoo.ClitZooError, OSError) as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit("Interrupted.")
