"""Arrays, tensors and PIL images: the same kind comes back, and unfit ones are refused by name."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageSequence

from clit_zoo import imaging
from clit_zoo.errors import ClitZooError, ImageError


def nearest(image, size):
    """A stand-in for a model that keeps every value exactly."""
    return torch.nn.functional.interpolate(image, size=size, mode="nearest")


def doubled(image):
    return imaging.enlarge(image, lambda h, w: (2 * h, 3 * w), nearest)


@pytest.fixture
def rgb():
    return np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(9, 13), (9, 13, 1), (9, 13, 3), (2, 9, 13, 3), (1, 9, 13, 1), (1, 1, 3)])
def test_arrays_come_back_alike_and_exact(dtype, shape):
    values = np.random.default_rng(1).random(shape)
    array = (
        (values * np.iinfo(dtype).max).astype(dtype)
        if dtype in (np.uint8, np.uint16)
        else values.astype(dtype)
    )
    output = doubled(array)
    rows, columns = (1, 2) if len(shape) == 4 else (0, 1)
    expected = array.repeat(2, rows).repeat(3, columns)
    assert output.dtype == dtype and output.shape == expected.shape
    np.testing.assert_allclose(output, expected, atol=1e-7 if np.dtype(dtype).kind == "f" else 0)


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
    alpha = np.zeros((9, 13, 1), np.uint8)
    alpha[:, 6:] = 255
    output = doubled(np.concatenate([rgb, alpha], axis=-1))
    assert output.shape == (18, 39, 4)
    assert (output[:, :12, 3] == 0).all() and (output[:, -12:, 3] == 255).all()
    tensor = torch.from_numpy(np.concatenate([rgb, alpha], axis=-1)).permute(2, 0, 1)
    assert torch.equal(doubled(tensor).permute(1, 2, 0), torch.from_numpy(output))


def test_awkward_memory_is_read_right_and_left_alone(rgb):
    expected = doubled(np.ascontiguousarray(rgb[::-1, ::-1]))
    frozen = rgb.copy()
    frozen.flags.writeable = False
    np.testing.assert_array_equal(doubled(frozen[::-1, ::-1]), expected)
    swapped = (rgb.astype(np.uint16) * 257).astype(">u2")
    np.testing.assert_array_equal(doubled(swapped)[::2, ::3], rgb.astype(np.uint16) * 257)
    floats = torch.rand(3, 4, 5).transpose(1, 2)
    before = floats.clone()
    doubled(floats)
    assert torch.equal(floats, before)


def test_gray_is_the_mean_of_the_three_outputs():
    def tinted(image, size):
        return nearest(image, size) * torch.tensor([0.5, 1.0, 0.75])[:, None, None]

    gray = np.full((4, 4), 200, np.uint8)
    output = imaging.enlarge(gray, lambda h, w: (h, w), tinted)
    assert output.shape == (4, 4) and (output == 150).all()


def test_rounding_errors_outside_the_range_are_clamped():
    output = doubled(np.array([[-1e-5, 1 + 1e-5]]))
    assert output.min() == 0 and output.max() == 1


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.full((4, 4, 3), np.nan), "NaN or infinite"),
        (np.full((4, 4, 3), np.inf, np.float32), "NaN or infinite"),
        (np.linspace(0, 255, 48).reshape(4, 4, 3), "divide by 255"),
        (np.linspace(0, 65535, 48).reshape(4, 4, 3), "divide by 65535"),
        (np.linspace(-1, 1, 48).reshape(4, 4, 3), "x / 2"),
        (np.zeros((4, 4, 3), np.int64), "int64"),
        (np.zeros((4, 4, 3), bool), "bool"),
        (np.zeros((4, 4, 3), complex), "complex128"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels"),
        (np.zeros((0, 4, 4, 3), np.uint8), "no pixels"),
        (np.zeros((3, 8, 8), np.uint8), "channels last"),
        (np.zeros((8, 8, 5), np.uint8), "channels last"),
        (np.zeros(8, np.uint8), "shape (8,)"),
        (torch.full((3, 4, 4), float("nan")), "NaN or infinite"),
        (torch.full((3, 4, 4), 2.0), "divide by 255"),
        (torch.zeros(3, 4, 4, dtype=torch.int32), "int32"),
        (torch.zeros(8, 8, 3), "permute"),
        (torch.zeros(3, 0, 4), "no pixels"),
        (torch.zeros(3, 4, 4, device="meta"), "holds no values"),
        (torch.zeros(3, 4, 4).to_sparse(), "to_dense()"),
        (torch.zeros(4, 4, dtype=torch.uint8).to_sparse(), "to_dense()"),
        (
            torch.nested.as_nested_tensor([torch.zeros(3, 4, 4), torch.zeros(3, 5, 4)], layout=torch.jagged),
            "nested",
        ),
        (torch.zeros(1, 1, 3, 4, 4), "shape"),
        ([[0, 1]], "list"),
        (None, "NoneType"),
        (b"\x89PNG", "bytes"),
    ],
)
def test_unfit_values_are_refused_by_name(array, says):
    with pytest.raises(ImageError) as refusal:
        doubled(array)
    assert says in str(refusal.value)
    assert isinstance(refusal.value, ClitZooError)


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
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        output = doubled(image)
    assert output.mode == PIL_MODES[mode] and output.size == (39, 18)
    converted = mode in ("CMYK", "YCbCr", "HSV", "LAB")
    assert [mode in str(notice.message) for notice in caught] == [True] * converted
    if mode in ("L", "RGB", "I", "I;16", "F"):
        np.testing.assert_allclose(np.asarray(output)[::2, ::3], np.asarray(image), atol=1e-7)
    elif converted:
        assert np.abs(np.asarray(output)[::2, ::3].astype(int) - rgb).mean() <= 2


def test_a_transparent_palette_and_a_colour_key_become_alpha(rgb):
    palette = Image.fromarray(rgb).quantize(4)
    palette.info["transparency"] = 0
    output = doubled(palette)
    assert output.mode == "RGBA"
    hidden = np.asarray(palette) == 0
    assert ((np.asarray(imaging.decode(palette).alpha)[0, 0] == 0) == hidden).all() and hidden.any()
    key = Image.new("L", (4, 4), 7)
    key.info["transparency"] = 7
    assert doubled(key).mode == "LA" and doubled(key).getextrema()[1] == (0, 0)


def test_pil_orientation_is_applied_once(rgb):
    image = Image.fromarray(rgb)
    image.getexif()[0x0112] = 6
    output = doubled(image)
    assert output.size == (27, 26)
    assert output.getexif().get(0x0112, 1) == 1
    assert imaging.decode(output).color.shape == (1, 3, 26, 27)


def test_the_current_frame_of_a_pil_image(rgb, tmp_path):
    frames = [Image.fromarray(np.roll(rgb, i, axis=0)).convert("L") for i in range(3)]
    for name in ("a.gif", "a.tif", "a.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        with Image.open(tmp_path / name) as image:
            image.seek(2)
            output = doubled(image)
            assert image.tell() == 2
            np.testing.assert_array_equal(np.asarray(output.convert("L"))[::2, ::3], frames[2])
            outputs = [doubled(frame) for frame in ImageSequence.Iterator(image)]
        assert len(outputs) == 3
        for output, frame in zip(outputs, frames):
            np.testing.assert_array_equal(np.asarray(output.convert("L"))[::2, ::3], frame)


def test_pil_refusals(rgb):
    with pytest.raises(ImageError, match="no pixels"):
        doubled(Image.new("RGB", (0, 4)))
    with pytest.raises(ImageError, match="32-bit integers from -5"):
        doubled(Image.new("I", (4, 4), -5))
    with pytest.raises(ImageError, match="divide by 255"):
        doubled(Image.new("F", (4, 4), 200.0))


def test_a_picture_stays_a_picture(rgb):
    picture = imaging.decode(rgb)
    output = doubled(picture)
    assert isinstance(output, imaging.Picture) and (output.height, output.width) == (18, 39)


def test_hidden_colours_do_not_bleed():
    """Garish colour under alpha = 0 must not reach the visible pixels when a model blends neighbours."""
    picture = np.zeros((16, 16, 4), np.uint8)
    picture[...] = (0, 255, 0, 0)
    picture[4:12, 4:12] = (200, 100, 50, 255)

    def bilinear(image, size):
        return torch.nn.functional.interpolate(image, size=size, mode="bilinear")

    output = imaging.enlarge(picture, lambda h, w: (4 * h, 4 * w), bilinear)
    visible = output[output[..., 3] > 0][:, :3].astype(int)
    assert len(visible) > 900
    assert np.abs(visible - (200, 100, 50)).max() <= 1


def test_nothing_visible_at_all():
    output = doubled(np.zeros((5, 7, 4), np.uint8))
    assert (output[..., 3] == 0).all()


def test_a_model_of_the_wrong_size_is_an_error(rgb):
    with pytest.raises(RuntimeError, match="instead of"):
        imaging.enlarge(rgb, lambda h, w: (2 * h, 2 * w), lambda image, size: image)
