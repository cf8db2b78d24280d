"""Arrays, tensors and PIL images: the same kind comes back, and unfit ones are refused by name."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageSequence
from sample_pictures import nearest, rendered

from clit_zoo import imaging
from clit_zoo.errors import ImageError
from clit_zoo.geometry import Pixels


def doubled(image, model=nearest):
    """As a model's view does it: twice as high, three times as wide."""
    picture = imaging.decode(image)
    return imaging.encode(rendered(picture, (2 * picture.height, 3 * picture.width), model))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32, np.float64, ">u2", ">f4"])
@pytest.mark.parametrize("shape", [(6, 10), (6, 10, 1), (6, 10, 3), (2, 6, 10, 3), (1, 6, 10, 1), (1, 1, 3)])
def test_arrays_come_back_alike_and_exact(dtype, shape):
    dtype = np.dtype(dtype)
    top = 1 if dtype.kind == "f" else np.iinfo(dtype).max
    array = (np.random.default_rng(1).random(shape) * top).astype(dtype)
    output = doubled(array)
    rows = len(shape) // 4
    expected = array.repeat(2, rows).repeat(3, rows + 1)
    assert output.dtype == dtype.newbyteorder("=") and output.shape == expected.shape
    np.testing.assert_allclose(output, expected, atol=1e-7 if top == 1 else 0)


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.uint16, torch.float16, torch.bfloat16, torch.float32, torch.float64]
)
@pytest.mark.parametrize("shape", [(9, 13), (1, 9, 13), (3, 9, 13), (2, 3, 9, 13), (1, 1, 1, 1)])
def test_tensors_come_back_alike_and_exact(dtype, shape):
    top = {torch.uint8: 255, torch.uint16: 65535}.get(dtype, 1)
    tensor = (torch.rand(shape, generator=torch.Generator().manual_seed(0)) * top).to(dtype)
    output = doubled(tensor)
    assert output.dtype == dtype and output.shape == (*shape[:-2], 2 * shape[-2], 3 * shape[-1])
    assert torch.allclose(output[..., ::2, ::3].double(), tensor.double(), atol=1e-7)


def test_alpha_of_arrays_and_tensors_is_enlarged_too(rgb):
    alpha = np.zeros((6, 10, 1), np.uint8)
    alpha[:, 5:] = 255
    array = np.concatenate([rgb, alpha], axis=-1)
    output = doubled(array)
    assert output.shape == (12, 30, 4)
    assert (output[:, :9, 3] == 0).all() and (output[:, -9:, 3] == 255).all()
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    assert torch.equal(doubled(tensor).permute(1, 2, 0), torch.from_numpy(output))


def test_awkward_memory_is_read_right_and_left_alone(rgb):
    expected = doubled(np.ascontiguousarray(rgb[::-1, ::-1]))
    rgb.flags.writeable = False
    np.testing.assert_array_equal(doubled(rgb[::-1, ::-1]), expected)
    for floats in (torch.rand(3, 4, 5).transpose(1, 2), torch.rand(1, 3, 1).expand(3, 3, 7)):
        before = floats.clone()
        doubled(floats)
        assert torch.equal(floats, before)


def test_gray_is_the_mean_of_the_three_outputs():
    tint = torch.tensor([0.5, 1.0, 0.75])[:, None, None]
    output = doubled(np.full((4, 4), 200, np.uint8), lambda image, size: nearest(image, size) * tint)
    assert output.shape == (8, 12) and (output == 150).all()


def test_rounding_errors_outside_the_range_are_clamped():
    output = doubled(np.array([[-1e-5, 1 + 1e-5]]))
    assert output.min() == 0 and output.max() == 1


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.full((4, 4, 3), np.nan), "from nan"),
        (np.full((4, 4, 3), np.inf, np.float32), "from inf"),
        (np.linspace(0, 255, 48).reshape(4, 4, 3), "from 0 to 255; they must lie in [0, 1]"),
        (np.linspace(-1, 1, 48).reshape(4, 4, 3), "from -1 to 1"),
        (np.zeros((4, 4, 3), np.int64), "int64"),
        (np.zeros((4, 4, 3), bool), "bool"),
        (np.zeros((4, 4, 3), complex), "complex128"),
        (np.zeros((4, 4), "U3"), "numpy.str_"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels"),
        (np.zeros((0, 4, 4, 3), np.uint8), "no pixels"),
        (np.zeros((3, 8, 8), np.uint8), "a NumPy array (h, w), (h, w, 1–4)"),
        (np.zeros((8, 8, 5), np.uint8), "shape (8, 8, 5)"),
        (np.zeros(8, np.uint8), "shape (8,)"),
        (torch.full((3, 4, 4), float("nan")), "from nan"),
        (torch.full((3, 4, 4), 2.0), "from 2 to 2"),
        (torch.zeros(3, 4, 4, dtype=torch.int32), "int32"),
        (torch.zeros(8, 8, 3), "a tensor (h, w), (1–4, h, w)"),
        (torch.zeros(3, 0, 4), "no pixels"),
        (torch.zeros(3, 4, 4, device="meta"), "not dense"),
        (torch.zeros(4, 4, dtype=torch.uint8).to_sparse(), "not dense"),
        (torch.nested.as_nested_tensor([torch.zeros(3, 4, 4)] * 2, layout=torch.jagged), "not dense"),
        (torch.nested.nested_tensor([torch.zeros(3, 4, 4), torch.zeros(3, 5, 5)]), "not dense"),
        (torch.zeros(1, 1, 3, 4, 4), "shape"),
        ([[0, 1]], "list"),
        (None, "NoneType"),
        (Image.new("RGB", (0, 4)), "no pixels"),
        (Image.new("I", (4, 4), -5), "32-bit integers from -5"),
        (Image.new("F", (4, 4), 200.0), "from 200 to 200"),
    ],
)
def test_unfit_values_are_refused_by_name(array, says):
    with pytest.raises(ImageError) as refusal:
        imaging.decode(array)
    assert says in str(refusal.value)


PIL_MODES = {
    "1": "L", "L": "L", "LA": "LA", "La": "LA", "P": "RGB", "PA": "RGBA", "RGB": "RGB", "RGBX": "RGB",
    "RGBA": "RGBA", "RGBa": "RGBA", "CMYK": "RGB", "YCbCr": "RGB", "HSV": "RGB", "LAB": "RGB",
    "I": "I", "F": "F", "I;16": "I;16",
}  # fmt: skip


def pil_image(mode, rgb):
    gray = Image.fromarray(rgb).convert("L")
    if mode == "I;16":
        return Image.fromarray(np.asarray(gray).astype(np.uint16) * 257)
    if mode == "F":
        return Image.fromarray(np.asarray(gray, np.float32) / 255)
    if mode == "PA":
        image = Image.fromarray(rgb).quantize()
        image.putalpha(gray)
        return image
    if mode == "LAB":
        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        return ImageCms.profileToProfile(Image.fromarray(rgb), *profiles, outputMode="LAB")
    middle = {"La": "LA", "RGBa": "RGBA"}.get(mode, "RGB")
    return Image.fromarray(rgb).convert(middle).convert(mode)


@pytest.mark.parametrize("mode", PIL_MODES)
def test_pil_images_of_every_mode(mode, rgb):
    image = pil_image(mode, rgb)
    assert image.mode == mode
    output, notices = doubled(image), imaging.decode(image).notices
    assert output.mode == PIL_MODES[mode] and output.size == (30, 12)
    converted = mode in ("CMYK", "YCbCr", "HSV", "LAB")
    assert [mode in notice for notice in notices] == [True] * converted
    if mode in ("L", "RGB", "I", "I;16", "F"):
        np.testing.assert_allclose(np.asarray(output)[::2, ::3], np.asarray(image), atol=1e-7)
    elif converted:
        assert np.abs(np.asarray(output)[::2, ::3].astype(int) - rgb).mean() <= 2


def test_a_transparent_palette_and_a_colour_key_become_alpha(rgb):
    palette = Image.fromarray(rgb).quantize(4)
    palette.info["transparency"] = 0
    hidden = np.asarray(palette) == 0
    assert ((np.asarray(imaging.decode(palette).alpha)[0, 0] == 0) == hidden).all() and hidden.any()
    key = Image.new("L", (4, 4), 7)
    key.info["transparency"] = 7
    assert doubled(key).mode == "LA" and doubled(key).getextrema()[1] == (0, 0)


def test_pil_orientation_is_applied_once(rgb):
    image = Image.fromarray(rgb)
    image.getexif()[0x0112] = 6
    output = doubled(image)
    assert output.size == (18, 20) and output.getexif().get(0x0112, 1) == 1
    assert imaging.decode(output).color.shape == (1, 3, 20, 18)


def test_the_current_frame_of_a_pil_image(rgb, tmp_path):
    frames = [Image.fromarray(np.roll(rgb, i, axis=0)).convert("L") for i in range(3)]
    for name in ("a.gif", "a.tif", "a.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        with Image.open(tmp_path / name) as image:
            image.seek(2)
            outputs = [doubled(image)]
            assert image.tell() == 2 and not imaging.decode(image).notices
            outputs += [doubled(frame) for frame in ImageSequence.Iterator(image)]
        for output, frame in zip(outputs, [frames[2], *frames], strict=True):
            np.testing.assert_array_equal(np.asarray(output.convert("L"))[::2, ::3], frame)


def test_bits_that_a_pil_image_cannot_hold_are_a_warning(deep, tmp_path):
    imaging.write(imaging.decode(deep), tmp_path / "a.png")
    with pytest.warns(UserWarning, match="16 bits per sample"):
        assert doubled(tmp_path / "a.png").mode == "RGBA"
    imaging.write(imaging.decode(deep[..., 0]), tmp_path / "a.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert doubled(tmp_path / "a.png").mode == "I;16"


def test_a_picture_stays_a_picture(rgb):
    output = doubled(imaging.decode(rgb))
    assert isinstance(output, imaging.Picture) and (output.height, output.width) == (12, 30)


def test_hidden_colours_do_not_bleed():
    """Garish colour under alpha = 0 must not reach the visible pixels when a model blends neighbours."""
    picture = np.zeros((16, 16, 4), np.uint8)
    picture[...] = (0, 255, 0, 0)
    picture[4:12, 4:12] = (200, 100, 50, 255)
    output = doubled(
        picture, lambda image, size: torch.nn.functional.interpolate(image, size=size, mode="bilinear")
    )
    visible = output[output[..., 3] > 0][:, :3].astype(int)
    assert len(visible) > 380 and np.abs(visible - (200, 100, 50)).max() <= 1
    assert (doubled(np.zeros((5, 7, 4), np.uint8))[..., 3] == 0).all()  # nothing visible at all


def test_alpha_is_pillows_bicubic():
    alpha = np.random.default_rng(0).random((7, 9)).astype(np.float32)
    given = torch.from_numpy(alpha)[None, None]
    whole = imaging.enlarge_alpha(given, Pixels.whole((23, 41)))
    expected = np.asarray(Image.fromarray(alpha).resize((41, 23), Image.BICUBIC)).clip(0, 1)
    np.testing.assert_allclose(whole[0, 0], expected, atol=1e-6)
    for box in ((0, 0, 9, 7), (2.3, 1.7, 8.9, 6.1), (4, 0, 5, 1)):
        where = Pixels.window(7, 9, box, scale=(23 / 7, 41 / 9))
        top, left = where.rows.start, where.cols.start
        window = imaging.enlarge_alpha(given, where)
        assert torch.equal(window, whole[:, :, top : top + where.rows.size, left : left + where.cols.size])
