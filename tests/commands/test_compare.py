"""`clit-zoo compare`: the crops on the sheet are the models' own, the parts those that tell them apart."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageFont

import clit_zoo
from clit_zoo.commands import compare, threads
from clit_zoo.zoo.config import ModelConfig


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setattr(threads, "use_free_cores", lambda: 1)


@pytest.fixture
def models(tmp_path, tiny_model):
    """Two folders of models that differ."""
    torch.manual_seed(1)
    config = ModelConfig.from_json(tiny_model / "config.json").with_overrides(name="other")
    clit_zoo.SuperResolver(config).save_pretrained(tmp_path / "other")
    return ["tiny", "other"]


def found(sheet: Image.Image, crop: np.ndarray, column: int) -> bool:
    """Whether the crop is in that column, at any height."""
    left = compare.GAP + column * (max(compare.SIDE, crop.shape[1]) + compare.GAP)
    strip = np.asarray(sheet)[:, left : left + crop.shape[1]]
    return any(np.array_equal(strip[i : i + len(crop)], crop) for i in range(len(strip) - len(crop) + 1))


def test_parts_asked_for(run, save, models):
    pixels = save("a.png", 40, 30)
    boxes = [(3, 4, 23, 14), (10.5, 0, 40, 30)]
    options = [word for box in boxes for word in ("--box", ",".join(map(str, box)))]
    result = run("compare", "a.png", "-m", models[0], "-m", models[1], "-s", "2.5", *options)
    assert result.code == 0 and result.out.startswith("a_x2.5_compared.png: ")
    sheet = Image.open("a_x2.5_compared.png")
    assert sheet.mode == "RGB" and f"{sheet.width}×{sheet.height}" in result.out
    planes = [Image.fromarray(plane.astype(np.float32)) for plane in pixels.transpose(2, 0, 1)]
    plain = np.dstack([np.asarray(plane.resize((100, 75), Image.Resampling.BICUBIC)) for plane in planes])
    color = torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None] / 255
    for left, top, right, bottom in boxes:
        edges = [round(edge * 2.5) for edge in (left, top, right, bottom)]
        crop = compare.bicubic(color, 2.5, (left, top, right, bottom))
        wanted = plain[edges[1] : edges[3], edges[0] : edges[2]].clip(0, 255)
        assert crop.shape == wanted.shape and np.abs(crop - wanted).max() < 0.51
        assert found(sheet, crop, 0)
        for i, name in enumerate(models):
            view = clit_zoo.from_pretrained(name, device="cpu").open(Image.open("a.png"))
            assert found(sheet, np.asarray(view.render(2.5, box=(left, top, right, bottom))), i + 1)


def test_parts_that_tell_models_apart(run, save):
    """A flat picture with noise in one place, which one model removes, and a soft slope in another."""
    save("b.png")
    picture = np.full((64, 100, 3), 128, np.uint8)
    picture[5:25, 70:90] = np.random.default_rng(0).integers(98, 158, (20, 20, 3))
    picture[34:60] += np.arange(100, dtype=np.uint8)[:, None]
    Image.fromarray(picture).save("a.png")
    models = ["edsr-light-lit", "edsr-light-lit-photo"]
    result = run("compare", "a.png", "-m", models[0], "-m", models[1], "-s", "8")
    assert result.code == 0 and "of the 6 busiest parts the 3 in which the models differ most" in result.out
    boxes = compare.busiest(torch.from_numpy(picture).permute(2, 0, 1)[None] / 255, 30)
    assert boxes[0] == (65, 2, 95, 32)
    assert sorted(boxes) == [(x, y, x + 30, y + 30) for x in (5, 35, 65) for y in (2, 32)]
    sheet = Image.open("a_x8_compared.png")
    sheet = sheet.crop((0, 0, sheet.width, 2 * compare.SIDE))
    for i, name in enumerate(models):
        view = clit_zoo.from_pretrained(name, device="cpu").open(Image.open("a.png"))
        assert found(sheet, np.asarray(view.render(8, box=boxes[0])), i + 1), "it comes first"


@pytest.mark.parametrize(
    ("size", "mode"), [((1, 1), "RGB"), ((7, 300), "L"), ((50, 40), "RGBA"), ((9, 9), "P")]
)
def test_any_picture_and_one_model(run, save, models, size, mode):
    save("a.png", *size, mode=mode)
    result = run("compare", "a.png", "-m", "tiny", "-s", "2", "-o", "sheet.PNG")
    assert result.code == 0, result.err
    assert Image.open("sheet.PNG").width == 2 * compare.SIDE + 3 * compare.GAP


def test_the_spread_is_between_models_or_of_one_from_bicubic():
    flat = {
        name: np.full((2, 2, 3), level, np.uint8) for name, level in (("bicubic", 0), ("a", 10), ("b", 20))
    }
    assert compare.Row((0, 0, 1, 1), flat).spread == pytest.approx(5)
    del flat["b"]
    assert compare.Row((0, 0, 1, 1), flat).spread == pytest.approx(5)


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["-s", "2"], 2, "Missing option '-m'"),
        (["-m", "tiny", "-o", "a.gif"], 1, "the formats are"),
        (["-m", "tiny", "--box", "1,2,3"], 2, "left,top,right,bottom"),
        (["-m", "tiny", "--box", "1,2,x,4"], 2, "left,top,right,bottom"),
        (["-m", "tiny", "--box", "0,0,99,4"], 1, "reaches beyond"),
        (["-m", "tiny", "--box", "nan,0,3,4"], 1, "reaches beyond"),
        (["-m", "tiny", "-o", "old.png"], 1, "old.png exists; give --overwrite"),
        (["-m", "nothing"], 1, "no model called"),
        (["-m", "tiny", "-o", "no/such/folder.png"], 1, "no/such/folder.png cannot be used (No such file"),
    ],
)
def test_what_cannot_be(run, save, models, words, code, told):
    save("a.png")
    before = save("old.png")
    result = run("compare", "a.png", *words)
    assert result.code == code and told in result.err
    assert np.array_equal(np.asarray(Image.open("old.png")), before)
    if "old.png" in words:
        assert run("compare", "a.png", *words, "--overwrite").code == 0
        assert Image.open("old.png").size != (6, 4)


def test_a_long_name_keeps_its_end():
    font = ImageFont.load_default(compare.LETTERS)
    assert compare.fitting("edsr-light-lit-photo", font, compare.SIDE) == "edsr-light-lit-photo"
    short = compare.fitting("runs/" * 20 + "first/model", font, compare.SIDE)
    assert short.startswith("…") and short.endswith("first/model")
    assert font.getlength(short) <= compare.SIDE
