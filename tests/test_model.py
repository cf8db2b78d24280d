"""SuperResolver: shapes, errors, threads, precision and gradients."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from clit_zoo.errors import ImageError, ScaleError
from clit_zoo.geometry import Blocks, Coords, Raster, pixel_centres
from clit_zoo.model import SuperResolver
from clit_zoo.zoo.config import ModelConfig


@pytest.fixture
def model() -> SuperResolver:
    torch.manual_seed(0)
    encoder = {"name": "edsr", "channels": 8, "blocks": 1}
    decoder = {"name": "clit", "dim": 8, "heads": 2, "radius": 1, "stages": 2, "hidden_dims": [16, 12]}
    return SuperResolver(ModelConfig("small", encoder, decoder)).eval()


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(2, 3, 6, 5, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("size", [(6, 5), (7, 5), (13, 17), (60, 50)])
@torch.no_grad()
def test_forward(model, image, size):
    before = image.clone()
    out = model(image, size)
    assert out.shape == (2, 3, *size) and out.dtype == torch.float32 and out.isfinite().all()
    assert torch.equal(image, before)
    torch.testing.assert_close(model(image[1:], size), out[1:], atol=1e-6, rtol=0)
    torch.testing.assert_close(model(image.transpose(2, 3).contiguous().transpose(2, 3), size), out)


@pytest.mark.parametrize("grad", [False, True])
def test_a_decoder_may_have_its_own_normalisation(model, grad):
    """What is added to the picture is; where that is nothing, plain colours come out as they went in."""
    model.decoder.mean, model.decoder.std = (0.4, 0.3, 0.2), 2.0
    read = []
    model.encoder.register_forward_pre_hook(lambda _, given: read.append(given[0]))
    for name, p in model.decoder.named_parameters():
        p.requires_grad_(grad)
        if name.startswith("imnets.") and ".layers.4." in name:
            p.data.zero_()
    plain = torch.tensor([0.9, 0.1, 0.6]).view(1, 3, 1, 1).expand(1, 3, 4, 5)
    torch.testing.assert_close(model(plain, (7, 9)), plain[..., :1, :1].expand(1, 3, 7, 9))
    torch.testing.assert_close(read[0][0, :, 2, 2], torch.tensor([0.25, -0.1, 0.2]))


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"cell": torch.tensor([[0.1, 0.0]] * 2)}, ScaleError, "must be positive"),
        ({"cell": torch.tensor([[0.1, torch.nan]] * 2)}, ScaleError, "must be positive"),
        ({"maps": []}, ScaleError, r"1 to 2 stages, the first \(6, 5\); got \[\]"),
        ({"maps": [(6, 5), (24, 20), (96, 80)]}, ScaleError, "1 to 2 stages"),
        ({"maps": [(60, 50)]}, ScaleError, r"the first \(6, 5\)"),
        ({"coords": torch.zeros(2, 4, 2, dtype=torch.int64)}, ImageError, "must be floats; got torch.int64"),
    ],
)
def test_queries_refused(model, image, changes, error, words):
    given = {"coords": torch.zeros(2, 4, 2), "cell": torch.full((2, 2), 0.1)}
    with pytest.raises(error, match=words):
        model.query(image, **given | changes)


@pytest.mark.parametrize("kind", [Coords, Raster, Blocks])
@pytest.mark.parametrize(
    ("maps", "words"),
    [
        ((), r"1 to 2 stages, the first \(6, 5\); got \[\]"),
        (((5, 5),), r"the first \(6, 5\)"),
        (((6, 5), (24, 20), (96, 80)), "1 to 2 stages"),
        (((6, 5), (24, 0)), r"pair of whole numbers from 1; got \(24, 0\)"),
        (((6, 5), (24.0, 20.0)), "pair of whole numbers"),
        ((6, 5), "pair of whole numbers from 1; got 6"),
    ],
)
def test_maps_refused(model, image, kind, maps, words):
    """A wrong map size would give wrong colours, not an error."""
    positions = {Coords: (2, 4, 2), Raster: (2, 1, 6, 5, 2), Blocks: (2, 3, 4, 2)}[kind]
    where = kind(torch.zeros(positions), torch.full((2, 2), 0.1), maps, *([0.1] if kind is Blocks else []))
    with pytest.raises(ScaleError, match=words):
        model.decode(model.encode(image), where)


def test_positions_are_constants(model, image):
    coords = (torch.rand(2, 9, 2) * 2 - 1).requires_grad_()
    cell = torch.full((2, 2), 0.1, requires_grad=True)
    model.query(image, coords, cell, maps=[(6, 5)]).sum().backward()
    assert coords.grad is None and cell.grad is None


@torch.no_grad()
def test_query_plans_from_the_cell(model, image):
    for size in ((13, 17), (30, 50)):
        y, x = (pixel_centres(n).float() for n in size)
        coords = torch.stack(torch.meshgrid(y, x, indexing="ij"), -1).flatten(0, 1).expand(2, -1, -1)
        cell = torch.tensor([[2 / n for n in size]]).expand(2, 2)
        found = model.query(image, coords, cell)
        torch.testing.assert_close(
            found.transpose(1, 2).unflatten(2, size), model(image, size), atol=1e-5, rtol=0
        )
    assert model.query(image, coords[:, :0], cell).shape == (2, 0, 3)


@pytest.mark.parametrize("shape", [(3, 6, 5), (1, 1, 6, 5), (1, 3, 0, 5), (1, 3, 6, 5)])
def test_images_refused(model, shape):
    dtype = torch.uint8 if shape == (1, 3, 6, 5) else torch.float32
    bad = torch.zeros(shape, dtype=dtype)
    named = r"image must be a float tensor \(B, 3, h, w\) in \[0, 1\]; got " + str(dtype)
    with pytest.raises(ImageError, match=named):
        model(bad, (12, 10))
    with pytest.raises(ImageError, match=named):
        model.query(bad, torch.zeros(1, 4, 2), torch.zeros(1, 2))


def test_sizes_and_positions_refused(model, image):
    with pytest.raises(ScaleError, match=r"size 4x12 .* smaller than the 5x6 input"):
        model(image, (12, 4))
    cell = torch.full((2, 2), 0.1)
    for coords in (torch.zeros(4, 2), torch.zeros(1, 4, 2), torch.zeros(2, 4, 3)):
        with pytest.raises(ImageError, match=r"coords must be \(2, N, 2\).*got"):
            model.query(image, coords, cell)
    with pytest.raises(ImageError, match=r"cell must be \(2, 2\).*got \(1, 2\)"):
        model.query(image, torch.zeros(2, 4, 2), cell[:1])
    with pytest.raises(ScaleError, match="cells that pass the cascade at different sizes"):
        model.query(image, torch.zeros(2, 4, 2), torch.tensor([[0.1, 0.1], [0.01, 0.01]]))


@torch.no_grad()
def test_threads_share_a_model(model):
    """Calls leave nothing behind: pictures of different sizes at once come out as one by one."""
    generator = torch.Generator().manual_seed(2)
    jobs = [(torch.rand(1, 3, 4 + i, 9 - i, generator=generator), (20 + 3 * i, 40 - i)) for i in range(6)]
    before = {name: t.clone() for name, t in model.state_dict().items()}
    expected = [model.upscale(image, size=size) for image, size in jobs]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            found = list(pool.map(lambda job: model.upscale(job[0], size=job[1]), jobs))
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_autocast(model, image, dtype):
    exact = model(image, (13, 17))
    with torch.autocast("cpu", dtype):
        out = model(image, (13, 17))
    assert out.shape == exact.shape and (out.float() - exact).abs().max() < 0.02
    assert not torch.equal(out.float(), exact)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_half_precision_weights(model, image, dtype):
    """Only the residual that the network adds to the bilinear picture is rounded, not the picture."""
    exact = model(image, (13, 17))
    residual = exact - torch.nn.functional.interpolate(image, (13, 17), mode="bilinear")
    half = model.to(dtype)
    coords = torch.rand(2, 9, 2) * 2 - 1
    assert half.query(image, coords, torch.full((2, 2), 0.1)).dtype == torch.float32
    out = half(image, (13, 17))
    assert out.dtype == torch.float32
    # five roundings' worth of the largest residual
    assert (out - exact).abs().max() < 5 * torch.finfo(dtype).eps * residual.abs().max()


@torch.no_grad()
def test_half_precision_weights_keep_16_bits(model):
    ramp = torch.linspace(0.5, 1, 4096).expand(1, 3, 4, 4096)
    for weight in model.decoder.imnets[0].layers[-1].parameters():
        weight.zero_()
    out = model.to(torch.bfloat16)(ramp, (4, 8192))
    assert len(torch.unique((out * 65535).round())) > 8000


@pytest.mark.parametrize("bf16", [False, True])
def test_every_parameter_learns(model, image, bf16):
    generator = torch.Generator().manual_seed(3)
    cell = torch.full((2, 2), 2 / 50)
    maps = ((6, 5), (24, 20))
    raster = Raster(torch.rand(2, 1, 6, 5, 2, generator=generator) - 0.5, cell, maps)
    coords = Coords(torch.rand(2, 9, 2, generator=generator) * 2 - 1, cell, maps)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        outs = [model.decode(model.encode(image), where) for where in (raster, coords)]
        outs.append(model(image, (30, 25)))
    for out in outs:
        model.zero_grad()
        (out.float() - 0.3).abs().mean().backward()
        grads = {name: p.grad for name, p in model.named_parameters()}
        assert all(g is not None and g.isfinite().all() for g in grads.values())
        # the projection's bias adds the same to all taps' logits, so the softmax takes it out again
        still = {name for name, g in grads.items() if g.abs().max() == 0}
        assert still <= {"decoder.pb_encoder.proj.bias"}


def test_a_view_gives_the_kind_of_picture_that_was_opened(model):
    rgba = (np.random.default_rng(0).random((9, 7, 4)) * 255).astype(np.uint8)
    kinds = [rgba, rgba[..., 0], torch.from_numpy(rgba).permute(2, 0, 1), Image.fromarray(rgba)]
    for picture in kinds:
        view = model.open(picture)
        assert view.size == (9, 7)
        whole, window = view.render(3), view.render(3, box=(2, 1, 6, 8))
        assert type(whole) is type(window) is type(picture)
        as_array = [
            x.permute(1, 2, 0).numpy() if torch.is_tensor(x) else np.asarray(x) for x in (whole, window)
        ]
        # alpha too; the window's edges are the whole's pixels' edges
        assert np.array_equal(as_array[1], as_array[0][3:24, 6:18])
        same = model.upscale(picture, 3)
        assert np.array_equal(np.asarray(same), np.asarray(whole))


def test_upscale_takes_a_list_and_gives_one(model):
    pictures = [torch.rand(3, 4, 5), np.zeros((3, 2), np.uint8)]
    large = model.upscale(pictures, 2)
    assert isinstance(large[0], torch.Tensor) and large[0].shape == (3, 8, 10)
    assert isinstance(large[1], np.ndarray) and large[1].shape == (6, 4)


def test_threads_share_a_view(model):
    view = model.open(torch.rand(1, 3, 20, 30))
    boxes = [(i, i / 2, i + 9, i + 8) for i in range(12)]
    expected = [view.render(4.5, box=box) for box in boxes]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda box: view.render(4.5, box=box), boxes))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_views_refuse_what_upscale_refuses(model):
    view = model.open(torch.rand(1, 3, 6, 5))
    for given, words in (
        ({}, "a scale or a target size"),
        ({"scale": 2, "box": (0, 0, 6, 6)}, "reaches beyond"),
    ):
        with pytest.raises(ScaleError, match=words):
            view.render(**given)
    with pytest.raises(ImageError, match="cannot enlarge a int"):
        model.open(3)


def test_a_model_is_told_in_one_line(model):
    text = repr(model)
    assert "\n" not in text and text.startswith("SuperResolver(small: ") and "float32 on cpu" in text
