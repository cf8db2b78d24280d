"""What an address asks for, by the IIIF Image API 3.0."""

import math

import pytest

from clit_zoo.page import iiif
from clit_zoo.page.refusal import Refusal

CANVAS = (300, 400)  # (h, w)


def parse(region="full", size="max", rotation="0", file="default.png", canvas=CANVAS):
    return iiif.parse([region, size, rotation, file], canvas)


@pytest.mark.parametrize(
    ("region", "box"),
    [
        ("full", (0, 0, 400, 300)),
        ("square", (50, 0, 350, 300)),
        ("10,20,30,40", (10, 20, 40, 60)),
        ("390,290,100,100", (390, 290, 400, 300)),
        ("pct:25,50,12.5,1", (100, 150, 150, 153)),
        ("pct:50,50,90,90", (200, 150, 400, 300)),
    ],
)
def test_regions(region, box):
    assert parse(region).region == pytest.approx(box)


@pytest.mark.parametrize(
    ("size", "found"),
    [
        ("max", (40, 80)), ("80,40", (40, 80)), ("40,", (20, 40)), (",10", (10, 20)), ("pct:50", (20, 40)),
        ("7,31", (31, 7)), ("!20,20", (10, 20)), ("!500,500", (40, 80)), ("^160,", (80, 160)),
        ("^!500,100", (100, 200)), ("^pct:250", (100, 200)), ("^80,200", (200, 80)), ("^max", (2896, 5792)),
        ("1,", (1, 1)), ("pct:0.1", (1, 1)), ("^,40", (40, 80)),
    ],
)  # fmt: skip
def test_sizes(size, found):
    assert parse("100,50,80,40", size).size == found


def test_a_region_in_percent_gives_the_pixels_it_touches():
    # a tile of the 411x300 enlargement of this picture, at its own scale
    left, width = 100 * 256 / 411, 100 * 155 / 411
    ask = parse(f"pct:{left:.12f},0,{width:.12f},100", "^155,300")
    assert ask.size == (300, 155) and ask.region == pytest.approx((400 * 256 / 411, 0, 400, 300))


@pytest.mark.parametrize(
    ("rotation", "mirrored", "turns"),
    [("0", False, 0), ("90", False, 1), ("!270.0", True, 3), ("360", False, 0)],
)
def test_rotations(rotation, mirrored, turns):
    ask = parse(rotation=rotation)
    assert (ask.mirrored, ask.turns) == (mirrored, turns)


@pytest.mark.parametrize(
    ("part", "text"),
    [
        *(("region", text) for text in (
            "", "all", "1,2,3", "1,2,3,4,5", "-1,0,9,9", "0,0,0,9", "400,0,9,9", "1.5,0,9,9", "pct:1,2,3",
            "pct:0,0,0,1", "pct:100,0,1,1", "pct:nan,0,1,1", "0,0,9999999999,1", "１,0,9,9", "1e2,0,9,9",
        )),
        *(("size", text) for text in (
            "", "full", "0,", ",0", "0,0", "401,", ",301", "401,300", "pct:101", "pct:0", "^", "^^max",
            "pct:", "!", "!0,0", "^20000,", "^9000,9000", "^pct:99999", "-1,", "1e3,", "^pct:1e9",
        )),
        *(("rotation", text) for text in ("", "361", "-90", "!", "a", "!!0", "nan", "999")),
        *(("file", text) for text in (
            "", "default", "default.", ".png", "grey.png", "default.gif", "default.PNG", "a.b.png",
        )),
    ],
)  # fmt: skip
def test_refusals(part, text):
    with pytest.raises(Refusal) as refusal:
        parse(**{part: text})
    assert refusal.value.status == 400


def test_other_rotations_are_not_offered():
    with pytest.raises(Refusal) as refusal:
        parse(rotation="22.5")
    assert refusal.value.status == 501


def test_no_more_than_a_thousandfold():
    with pytest.raises(Refusal, match="1000 times"):
        parse("0,0,1,1", "^1001,")
    with pytest.raises(Refusal, match="1000 times"):
        iiif.parse(["0,0,9,9", "^37,", "0", "default.png"], (400, 400), 250)
    assert iiif.parse(["0,0,9,9", "^36,", "0", "default.png"], (400, 400), 250).size == (36, 36)
    for size in ("^max", "^!4000,3000"):
        assert parse("0,0,1,1", size).size == (1000, 1000)
        assert iiif.parse(["0,0,9,9", size, "0", "default.png"], (400, 400), 250).size == (36, 36)


@pytest.mark.parametrize("region", ["0,0,59,77", "3,4,80,43", "1,1,37,91", "0,0,61,67"])
def test_the_largest_within_the_limits_is_never_refused(region):
    high, wide = parse(region, "^!16000,16000").size
    assert iiif.MAX_AREA * 0.999 < high * wide <= iiif.MAX_AREA


def test_identifiers():
    assert iiif.identifier("0af") == ("0af", 1) and iiif.identifier("0af@3.7") == ("0af", 3.7)
    for text in (
        "",
        "..",
        "0af@",
        "0af@0",
        "0af@1001",
        "0af@-1",
        "0af@1e3",
        "0AF",
        "0af@nan",
        "a/b",
        "0af@2@3",
    ):
        with pytest.raises(Refusal) as refusal:
            iiif.identifier(text)
        assert refusal.value.status == 404
    assert iiif.canvas_size((3, 2), 0.01) == (1, 1) and iiif.canvas_size((300, 400), 3.7) == (1110, 1480)


def asked_by_viewers(info):
    """What a viewer may ask of a level 0, by the standard's notes on tiles."""
    wide, high, tile = info["width"], info["height"], info["tiles"][0]["width"]
    for factor in info["tiles"][0]["scaleFactors"]:
        for y in range(math.ceil(high / (tile * factor))):
            for x in range(math.ceil(wide / (tile * factor))):
                left, top = x * tile * factor, y * tile * factor
                w, h = min(tile * factor, wide - left), min(tile * factor, high - top)
                region = "full" if (w, h) == (wide, high) else f"{left},{top},{w},{h}"
                size = math.ceil(w / factor), math.ceil(h / factor)
                asked = "max" if size == (wide, high) else f"{size[0]},{size[1]}"
                yield f"{region}/{asked}/0/default"
    for size in info["sizes"]:
        yield f"full/{size['width']},{size['height']}/0/default"
    yield "full/max/0/default"


@pytest.mark.parametrize("canvas", [(1, 1), (256, 256), (257, 1000), (5000, 30), (4100, 5000)])
def test_info_and_what_a_static_copy_needs(canvas):
    info = iiif.info("http://x/y", canvas)
    assert (info["height"], info["width"], info["id"]) == (*canvas, "http://x/y")
    factors = info["tiles"][0]["scaleFactors"]
    assert factors == [2**i for i in range(len(factors))] and max(canvas) <= iiif.TILE * factors[-1]
    addresses, asked = list(iiif.tiles(canvas)), set(asked_by_viewers(info))
    assert asked <= set(addresses) and len(set(addresses)) == len(addresses) <= len(asked) + 1
    for address in addresses:
        ask = iiif.parse([*address.split("/")[:3], "default.jpg"], canvas)
        assert math.prod(ask.size) <= info["maxArea"] and max(ask.size) <= info["maxWidth"]
