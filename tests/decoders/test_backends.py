"""The backend a user names is the one that computes; the image is added in the last stage's op."""

import pytest
import torch
import torch.nn.functional as F
from step_cases import KINDS, image, predict, small_model

import clit_zoo
from clit_kernels import BACKENDS, Grid, Points, Raster, StageWeights, decode_stage
from clit_zoo import geometry
from clit_zoo.decoders import clit
from clit_zoo.decoders import compiled as ops
from clit_zoo.errors import ConfigError


@pytest.fixture
def asked(monkeypatch):
    """The backends that calls of the op ask for."""
    seen: list[str] = []

    def spied(*args, backend, **options):
        seen.append(backend)
        return decode_stage(*args, backend="hoisted", **options)

    monkeypatch.setattr(ops, "decode_stage_eager", spied)
    return seen


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_backend_reaches_the_op(kind, backend, asked):
    predict(kind)(small_model(backend), image())
    assert set(asked) == {backend}


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_way_to_name_a_backend(backend, asked, tmp_path):
    small = {"encoder": {"blocks": 1, "channels": 8}, "decoder": {"dim": 8, "heads": 2, "hidden_dims": [8]}}
    made = clit_zoo.create_model("edsr-light-lit", backend=backend, **small)
    loaded = clit_zoo.from_pretrained(made.save_pretrained(tmp_path / "m"), device="cpu", backend=backend)
    changed = clit_zoo.from_pretrained(tmp_path / "m", device="cpu")
    assert changed.backend == "auto"
    changed.backend = backend
    for model in (made, loaded, changed):
        asked.clear()
        model.upscale(torch.rand(3, 4, 4), scale=2)
        assert asked == [backend]


def test_attention_maps_ask_too(monkeypatch):
    seen: list[str] = []
    attend = clit.local_attention
    monkeypatch.setattr(
        clit, "local_attention", lambda *a, backend, **b: seen.append(backend) or attend(*a, **b)
    )
    feature = torch.rand(1, 8, 4, 5)
    small_model("auto").decoder.attention(feature, torch.zeros(1, 1, 2), [(4, 5)], backend="reference")
    assert seen == ["reference"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine that Triton does not serve")
@pytest.mark.parametrize("kind", KINDS)
def test_triton_on_a_cpu_says_why_not(kind):
    with pytest.raises(ValueError, match="backend 'triton' cannot serve this call: ") as error:
        predict(kind)(small_model("triton"), image())
    assert "on cpu, and Triton kernels run on CUDA" in str(error.value) or "not installed" in str(error.value)


def test_unknown_backends():
    with pytest.raises(ConfigError, match="backend 'cuda' is unknown; take one of auto, triton, hoisted"):
        clit_zoo.create_model("edsr-light-lit", backend="cuda")
    model = small_model("auto")
    model.backend = "fast"
    with pytest.raises(ValueError, match="backend 'fast' is unknown; take one of auto, triton"):
        model(image(), (8, 10))


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_only_the_last_stage_adds_the_image(kind, monkeypatch):
    """With the MLPs' last layers silenced, nothing else is left: for every call of the model."""
    bases = []
    monkeypatch.setattr(
        clit, "decode_stage", lambda *a, base, **b: bases.append(base) or decode_stage(*a, base=base, **b)
    )
    model = small_model("hoisted")
    for mlp in model.decoder.imnets:
        mlp.layers[-1].weight.zero_()
        mlp.layers[-1].bias.zero_()
    picture = image()
    out = predict(kind)(model, picture)
    assert [base is None for base in bases] == [True, False]
    if kind == "grid":
        expected = F.interpolate(picture, out.shape[2:], mode="bilinear", align_corners=False)
        torch.testing.assert_close(out, expected)
    else:
        torch.testing.assert_close(out, bases[1].reshape(out.shape) * 0.5 + 0.5)
        assert out.std() > 0.05


def stage_inputs(queries, dtype):
    generator = torch.Generator().manual_seed(4)

    def draw(*shape):
        return torch.randn(shape, generator=generator).to(dtype)

    maps = [draw(2, 8, 4, 3) for _ in range(3)]
    stage = StageWeights(
        draw(2, 64), draw(2), [draw(6, 9 * 8 + 2) / 9, draw(3, 6)], [draw(6), draw(3)], heads=2, radius=1
    )
    return (*maps, queries, stage, torch.rand(2, 2, generator=generator)), draw(2, queries.count, 3)


@pytest.mark.parametrize("backend", ["hoisted", "reference"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", [Grid, Points, Raster])
def test_the_base_is_added_in_the_wider_dtype(kind, dtype, backend):
    generator = torch.Generator().manual_seed(5)
    if kind is Grid:
        queries = geometry.grid((4, 3), (9, 7), torch.device("cpu"))
    elif kind is Points:
        index = torch.randint(0, 3, (2, 6, 2), generator=generator)
        queries = Points(index, torch.rand(2, 6, 2, generator=generator) - 0.5)
    else:
        queries = Raster(torch.rand(2, 1, 4, 3, 2, generator=generator) - 0.5)
    args, previous = stage_inputs(queries, dtype)
    bare = decode_stage(*args, previous=previous, backend=backend)
    base = torch.randn(bare.shape, generator=generator)  # float32, as the image is under autocast
    full = decode_stage(*args, previous=previous, base=base, backend=backend)
    assert bare.dtype == dtype and full.dtype == torch.promote_types(dtype, torch.float32)
    assert torch.equal(full, bare + base)
