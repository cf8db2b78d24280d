"""Where CLIT looks: attention maps of every stage and head at points of a picture (the paper's Figure 7).

    python examples/attention_maps.py examples/astronaut.png --scale 6
    python examples/attention_maps.py photo.png --point 120 80 --point 33 61 -o maps.png

Points are X Y in pixels of the picture; without any, three of its strongest edges are taken. Each row is one
point in one stage of the cascade: the K×K feature pixels around it as they look in the picture, the mean over
the heads, and each head. A red dot marks the point. Needs matplotlib: pip install 'clit-zoo[viz]'.
"""

import argparse

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

import clit_zoo


def strongest_edges(picture: Image.Image, count: int) -> list[tuple[int, int]]:
    """(x, y) of the steepest pixels, far from each other and from the border."""
    down, right = np.gradient(np.asarray(picture.convert("L"), dtype=float))
    steep = np.pad((down**2 + right**2)[4:-4, 4:-4], 4)
    apart, found = min(steep.shape) // 6, []
    for _ in range(count):
        y, x = (int(i) for i in np.unravel_index(steep.argmax(), steep.shape))
        found.append((x, y))
        steep[max(0, y - apart) : y + apart + 1, max(0, x - apart) : x + apart + 1] = -1
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("picture", help="the picture to enlarge")
    parser.add_argument("--model", default="edsr-light-lit", help="a name, a folder or a Hub repository")
    parser.add_argument("--scale", type=float, default=6.0)
    parser.add_argument("--point", type=int, nargs=2, action="append", metavar=("X", "Y"))
    parser.add_argument("-o", "--out", default="attention.png")
    args = parser.parse_args(arguments)
    picture = Image.open(args.picture).convert("RGB")
    w, h = picture.size
    points = args.point or strongest_edges(picture, 3)
    if not all(0 <= x < w and 0 <= y < h for x, y in points):
        parser.error(f"a --point lies outside of the picture of {w}×{h} pixels")

    model = clit_zoo.from_pretrained(args.model, device="cpu", dtype="float32")
    view = model.open(picture)
    glances = [view.attention(x + 0.5, y + 0.5, args.scale) for x, y in points]
    stages, heads = len(glances[0]), len(glances[0][0].weights)
    rows, columns = len(points) * stages, heads + 2
    figure = Figure(figsize=(4.5 + 1.25 * columns, max(4.0, 1.35 * rows)), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(4.5, 1.25 * columns))
    axes = left.subplots()
    axes.imshow(view.render(min(args.scale, 4.0)), extent=(0, w, h, 0))
    axes.set_title(f"{model.config.name}, ×{args.scale:g}")
    axes.axis("off")
    for number, (x, y) in enumerate(points, 1):
        axes.plot(x + 0.5, y + 0.5, "o", color="red", markersize=4)
        axes.annotate(str(number), (x + 0.5, y + 0.5), color="red", xytext=(4, 4), textcoords="offset points")

    grid = right.subplots(rows, columns, squeeze=False)
    titles = ["input", "mean", *(f"head {i + 1}" for i in range(heads))]
    for row in range(rows):
        point, stage = divmod(row, stages)
        (first, top, last, bottom), weights = glances[point][stage]
        window = (first, last, bottom, top)
        grid[row, 0].imshow(picture, extent=(0, w, h, 0), interpolation="nearest")
        for axes, panel in zip(grid[row, 1:], [weights.mean(0), *weights], strict=True):
            axes.imshow(panel, vmin=0, extent=window)
        for axes, title in zip(grid[row], titles, strict=True):
            axes.plot(points[point][0] + 0.5, points[point][1] + 0.5, "o", color="red", markersize=2)
            axes.set(xticks=[], yticks=[], xlim=window[:2], ylim=window[2:], title="" if row else title)
        grid[row, 0].set_ylabel(f"{point + 1}, stage {stage + 1}", fontsize=8)
    figure.savefig(args.out, dpi=150)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
