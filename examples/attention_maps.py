"""Where a model looks: attention maps of every stage and head at points of a picture (the paper's Figure 7).

    python examples/attention_maps.py examples/astronaut.png --model edsr-light-lit --scale 6
    python examples/attention_maps.py photo.png --point 120 80 --point 33 61 -o maps.png

Points are X Y in pixels of the picture; without any, three of its strongest edges are taken. Each row is one
point in one stage of the cascade: the K×K feature pixels around it as they look in the picture, the mean over
the heads, and each head. A red dot marks the point. Needs matplotlib: pip install 'clit-zoo[viz]'.
"""

import argparse
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import clit_zoo
from clit_zoo import geometry, imaging

SHOWN = 4.0
SUFFIXES = (".png", ".jpg", ".pdf", ".svg", ".webp")


def strongest_edges(image: Tensor, count: int) -> list[tuple[int, int]]:
    """(x, y) of the steepest pixels of ``image`` (1, 3, h, w), far from each other and from the border."""
    gray = image.mean(1, keepdim=True)
    steep = F.pad((gray.diff(dim=2)[..., :-1] ** 2 + gray.diff(dim=3)[:, :, :-1] ** 2)[0, 0], (0, 1, 0, 1))
    h, w = steep.shape
    margin = min(8, (min(h, w) - 1) // 2)
    y, x = torch.arange(h).view(-1, 1), torch.arange(w)
    inside = (y >= margin) & (y < h - margin) & (x >= margin) & (x < w - margin)
    found: list[tuple[int, int]] = []
    for _ in range(count):
        best = int(torch.where(inside, steep, -1.0).argmax())
        found.append((best % w, best // w))
        inside &= (y - best // w) ** 2 + (x - best % w) ** 2 > (min(h, w) / 6) ** 2
    return found


def window(image: Tensor, x: float, y: float, side: float, pixels: int) -> Tensor:
    """What lies within ``side`` input pixels around (x, y) of ``image`` (1, 3, h, w): (pixels, pixels, 3)."""
    h, w = image.shape[-2:]
    step = ((torch.arange(pixels) + 0.5) / pixels - 0.5) * side
    grid_y, grid_x = torch.meshgrid(2 * (y + step) / h - 1, 2 * (x + step) / w - 1, indexing="ij")
    grid = torch.stack((grid_x, grid_y), -1).unsqueeze(0)
    return F.grid_sample(image, grid, mode="nearest", align_corners=False)[0].permute(1, 2, 0)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("picture", help="the picture to enlarge")
    parser.add_argument("--model", default="edsr-light-lit", help="a name, a folder or a Hub repository")
    parser.add_argument("--scale", type=float, default=6.0)
    parser.add_argument("--point", type=int, nargs=2, action="append", metavar=("X", "Y"))
    parser.add_argument("-o", "--out", type=Path, default=Path("attention.png"))
    args = parser.parse_args(argv)
    if not args.out.parent.is_dir() or args.out.suffix.lower() not in SUFFIXES:
        raise clit_zoo.ClitZooError(
            f"-o {args.out}: give a file in a folder that exists, ending in one of {', '.join(SUFFIXES)}"
        )
    try:
        import matplotlib
    except ImportError as error:
        raise clit_zoo.ClitZooError("drawing needs matplotlib: pip install 'clit-zoo[viz]'") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    model = clit_zoo.from_pretrained(args.model, device="cpu", dtype="float32")
    decoder = model.decoder
    image = imaging.read(args.picture).color
    h, w = image.shape[-2:]
    points = [(x, y) for x, y in args.point] if args.point else strongest_edges(image, 3)
    for x, y in points:
        if not (0 <= x < w and 0 <= y < h):
            raise clit_zoo.ClitZooError(f"the point {x} {y} is outside the picture of {w}×{h} pixels")

    size = geometry.output_size(h, w, args.scale)
    sizes = geometry.plan(h, w, size, decoder.stages)
    centres = torch.tensor([[(y + 0.5, x + 0.5) for x, y in points]], dtype=torch.float64)
    coords = 2 * centres / torch.tensor((h, w)) - 1
    with torch.inference_mode():
        stages = decoder.attention(model.features(image)[1], coords, sizes)
        # more pixels than this the figure does not show
        large = model.enlarge(image, geometry.output_size(h, w, min(args.scale, SHOWN)))

    heads, side = decoder.heads, 2 * decoder.radius + 1
    rows, columns = len(points) * len(stages), heads + 2
    figure = plt.figure(figsize=(4.5 + 1.25 * columns, max(4.0, 1.35 * rows)), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(4.5, 1.25 * columns))
    axes = left.subplots()
    axes.imshow(large[0].permute(1, 2, 0).numpy(), extent=(0, w, h, 0))
    axes.set_title(f"{model.config.name}, ×{args.scale:g}")
    axes.axis("off")
    for number, (x, y) in enumerate(points, 1):
        axes.plot(x + 0.5, y + 0.5, "o", color="red", markersize=4)
        axes.annotate(str(number), (x + 0.5, y + 0.5), color="red", xytext=(4, 4), textcoords="offset points")
    grid = right.subplots(rows, columns, squeeze=False)
    for row in range(rows):
        point, stage = divmod(row, len(stages))
        weights = stages[stage][0, point]
        # the K×K weights lie around the nearest feature pixel, which a point may be half a pixel off
        nearest = geometry.points(coords[:, point : point + 1], sizes[stage])
        (row_index, column), (dy, dx) = nearest.index[0, 0].tolist(), nearest.offset[0, 0].tolist()
        ratio = h / sizes[stage][0]
        middle = (column + 0.5) * w / sizes[stage][1], (row_index + 0.5) * ratio
        seen = window(image, *middle, side * ratio, 8 * side)
        panels = [panel.numpy() for panel in (seen, weights.mean(0), *weights)]
        titles = ["input", "mean", *(f"head {i + 1}" for i in range(heads))]
        for axes, panel, title in zip(grid[row], panels, titles, strict=True):
            axes.imshow(panel, cmap="viridis", vmin=0, extent=(0, 1, 1, 0))
            axes.plot(0.5 + dx / side, 0.5 + dy / side, "o", color="red", markersize=2)
            axes.set(xticks=[], yticks=[], title=title if row == 0 else "")
        grid[row, 0].set_ylabel(f"{point + 1}, stage {stage + 1}", fontsize=8)
    figure.savefig(args.out, dpi=150)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    try:
        main()
    except (clit_zoo.ClitZooError, OSError) as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit("Interrupted.")
