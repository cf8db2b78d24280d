"""What every decoder promises: windows are crops of the whole, to the bit; lists, batches, backends agree."""

import random

import pytest
import torch

import clit_zoo
from clit_zoo.errors import ConfigError
from clit_zoo.geometry import Coords, Pixels, pixel_centres
from clit_zoo.model import SuperResolver
from clit_zoo.zoo.config import ModelConfig

SMALL = {
    "lit": {"name": "clit", "dim": 16, "heads": 4, "radius": 1, "hidden_dims": [24, 16]},
    "clit": {"name": "clit", "dim": 16, "heads": 2, "radius": 2, "stages": 3, "hidden_dims": [24, 16]},
    "liif": {"name": "liif", "hidden_dims": [24, 16]},
    "liif, nearest": {"name": "liif", "hidden_dims": [24], "local_ensemble": False, "feat_unfold": False},
    "metasr": {"name": "metasr", "hidden_dims": [24]},
    "itsrn": {"name": "itsrn", "hidden_dims": [24, 16], "merge_dim": 12},
    "ciaosr": {"name": "ciaosr", "hidden_dims": [24, 16], "tile": 24},
    "lit-f": {"name": "lit", "dim": 16, "heads": 4, "radius": 1, "freq_dims": 8, "hidden_dims": [24, 16]},
    "lit-fe": {
        "name": "lit",
        "dim": 8,
        "heads": 2,
        "radius": 1,
        "freq_dims": 8,
        "local_ensemble": True,
        "hidden_dims": [24],
    },
    "msit": {
        "name": "msit",
        "dim": 8,
        "heads": 2,
        "radius": 1,
        "kernels": 2,
        "query_kernels": 2,
        "hidden_dims": [24],
    },
    "ultrasr": {"name": "ultrasr", "bands": 3, "hidden_dims": [24, 16]},
    "ipe": {"name": "ipe", "bands": 4, "hidden_dims": [24, 16]},
    "lte": {"name": "lte", "dim": 12, "hidden_dims": [24, 16]},
    "lte+": {"name": "lte", "dim": 10, "hidden_dims": [24], "plus": True},
}
HELD = {"ciaosr": 3 + 2 * 8 + 2 * 24}
"""Numbers that a view holds of each feature pixel, where they are more than ``3 + 24``."""
IN_PYTORCH = [name for name in SMALL if name not in ("lit", "clit", "msit")]
"""Those without kernels."""
SCALES = [1, 2, 3.7, 12, (2.5, 5.3)]
H, W = 29, 41


def small(name: str, factor: float = 2) -> SuperResolver:
    torch.manual_seed(0)
    config = ModelConfig("small", {"name": "edsr", "channels": 8, "blocks": 1}, SMALL[name])
    model = SuperResolver(config).eval()
    with torch.no_grad():
        for part, p in model.decoder.named_parameters():
            if not hasattr(model.decoder, "amsno") or "imnet" in part:  # MSIT's trunk begins large
                p.mul_(factor)  # so that no part is lost beside the image
    return model


def picture() -> torch.Tensor:
    return torch.rand(1, 3, H, W, generator=torch.Generator().manual_seed(1))


def windows(size: tuple[int, int], count: int) -> list[tuple[int, int, int, int]]:
    """(left, top, right, bottom): one pixel in each corner, thin ones, and others."""
    generator, (rows, cols) = random.Random(str(size)), size
    found = [(0, 0, 1, 1), (cols - 1, rows - 1, cols, rows), (0, rows // 2, cols, rows // 2 + 1)]
    while len(found) < count:
        left, right = sorted(generator.sample(range(cols + 1), 2))
        top, bottom = sorted(generator.sample(range(rows + 1), 2))
        found.append((left, top, min(right, left + 90), min(bottom, top + 60)))
    return found


@pytest.mark.parametrize("scale", SCALES, ids=str)
@pytest.mark.parametrize("name", SMALL)
def test_a_window_is_the_crop_of_the_whole(name, scale):
    view = small(name).open(picture())
    whole = view.render(scale)
    rows, cols = whole.shape[-2:]
    for left, top, right, bottom in windows((rows, cols), 8):
        box = (left * W / cols, top * H / rows, right * W / cols, bottom * H / rows)
        crop = whole[..., top:bottom, left:right]
        assert torch.equal(view.render(scale, box=box), crop)
        if crop.shape[-1] > 1 < crop.shape[-2]:
            # a size of its own finds the same pixels, where it is that of a whole output's grid
            assert torch.equal(view.render(size=tuple(crop.shape[-2:]), box=box), crop)


@pytest.mark.parametrize("name, scale", [("edsr-light-lit", 2), ("edsr-light-clit", 5)])
def test_a_window_far_from_every_border(name, scale):
    """Nothing is padded there, and the maps are too large to be made whole for it."""
    view = clit_zoo.from_pretrained(name, device="cpu").open(torch.rand(1, 3, 90, 110))
    whole = view.render(scale)
    for left, top, right, bottom in ((40, 30, 80, 60), (23, 40, 44, 47), (31, 22, 90, 71)):
        crop = whole[..., scale * top : scale * bottom, scale * left : scale * right]
        assert torch.equal(view.render(scale, box=(left, top, right, bottom)), crop)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["edsr-light-lit", "edsr-light-clit"])
@pytest.mark.parametrize("scale", [1, 1.3, 2, 3.7, 4, 6, 12, (2.5, 5.3)], ids=str)
def test_windows_of_the_shipped_models(name, scale):
    view = clit_zoo.from_pretrained(name, device="cpu").open(torch.rand(1, 3, 70, 100))
    whole = view.render(scale)
    rows, cols = whole.shape[-2:]
    for left, top, right, bottom in windows((rows, cols), 12):
        box = (left * 100 / cols, top * 70 / rows, right * 100 / cols, bottom * 70 / rows)
        assert torch.equal(view.render(scale, box=box), whole[..., top:bottom, left:right])


@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_any_window_is_the_list_of_its_positions(name):
    model, box, size = small(name), (10.25, 3.1, 30.7, 20.9), (77, 90)
    encoded = model.encode(picture())
    window = Pixels.window(H, W, box, size=size)
    y = (3.1 + (pixel_centres(77) + 1) / 2 * (20.9 - 3.1)) / H * 2 - 1
    x = (10.25 + (pixel_centres(90) + 1) / 2 * (30.7 - 10.25)) / W * 2 - 1
    coords = torch.stack(torch.meshgrid(y, x, indexing="ij"), -1).view(1, -1, 2)
    cell = torch.tensor([[2 * (20.9 - 3.1) / 77 / H, 2 * (30.7 - 10.25) / 90 / W]])
    maps = tuple(model.decoder.plan(H, W, window))
    found, listed = model.decode(encoded, window), model.decode(encoded, Coords(coords, cell, maps))
    torch.testing.assert_close(found, listed, atol=1e-4, rtol=0)  # edges of 1e-5 of a pixel's precision


@pytest.mark.parametrize("name", SMALL)
def test_a_batch_is_its_pictures_and_half_precision_is_near(name):
    model, image = small(name), torch.rand(2, 3, 9, 7)
    with torch.no_grad():
        out = model(image, (23, 30))
        torch.testing.assert_close(model(image[1:], (23, 30)), out[1:], atol=1e-5, rtol=0)
        half = model.to(torch.bfloat16)(image, (23, 30))
    assert half.dtype == torch.float32 and (half - out).abs().max() < 0.05


@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_the_formula_is_a_backend(name):
    """At a whole scale, whose pixels share their offsets, and at others."""
    model, image = small(name, 1), torch.rand(2, 3, 9, 11)
    for size in ((27, 33), (23, 40)):
        model.backend = "auto"
        fast = model(image, size)
        model.backend = "reference"
        torch.testing.assert_close(model(image, size), fast, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", IN_PYTORCH)
def test_triton_is_refused_where_there_are_no_kernels(name):
    model = small(name)
    model.backend = "triton"
    words = f"'triton' cannot serve this model: {type(model.decoder).__name__} computes in PyTorch"
    with pytest.raises(ConfigError, match=words):
        model.check_backend()
    with pytest.raises(ConfigError, match=words):
        model(picture(), (50, 60))


@pytest.mark.parametrize("name", SMALL)
def test_what_a_view_holds(name):
    """Maps of the picture's size: nothing of the output, and not the input beside them."""
    view = small(name).open(picture())

    def held() -> int:
        ((encoded, alpha),) = view._tiles._kept.values()
        assert alpha is None
        return sum(t.untyped_storage().nbytes() for t in encoded.prepared if isinstance(t, torch.Tensor))

    view.render(2)
    before = held()
    view.render(9)
    assert held() == before <= 4 * H * W * HELD.get(name, 3 + 24) and view._tiles._picture is None


def test_a_small_window_stays_cheap_at_any_scale():
    """Beyond ``MOST_GROWN`` it does not grow to whole feature pixels, which would be a thousand wide."""
    view = small("lit").open(picture())
    seen: list[tuple[int, ...]] = []
    decode = view._tiles.model.decoder._cascade

    def spied(stages, count, skip):
        seen.append(tuple(skip.shape))
        return decode(stages, count, skip)

    view._tiles.model.decoder._cascade = spied
    view.render(500, box=(10, 10, 10.1, 10.1))
    assert sum(shape[1] for shape in seen) <= 60**2
