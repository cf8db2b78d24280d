"""The backend a user names is the one that computes; the image is added in the last stage's op."""

import pytest
import torch
import torch.nn.functional as F
from step_cases import KINDS, image, predict, small_model

import clit_zoo
from clit_kernels import BACKENDS, Grid, Points, Raster, StageCall, StageWeights, decode_stage
from clit_zoo.decoders import clit
from clit_zoo.decoders import compiled as ops
from clit_zoo.errors import ConfigError
from clit_zoo.geometry import Coords, Pixels


@pytest.fixture
def asked(monkeypatch):
    """The backends that calls of the op ask for."""
    seen: list[str] = []

    def spied(call, *, backend):
        seen.append(backend)
        return decode_stage(call, backend="torch")

    monkeypatch.setattr(ops, "decode_stage_eager", spied)
    monkeypatch.setattr(clit, "why_not_maps", lambda backend, like: None)  # nobody computes here
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
        clit, "local_attention", lambda call, *, backend: seen.append(backend) or attend(call)
    )
    model = small_model("reference")
    where = Coords(torch.zeros(1, 1, 2), torch.full((1, 2), 0.5))
    model.decoder.attention(model.encode(torch.rand(1, 3, 4, 5)).prepared, where)
    assert seen == ["reference"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine that Triton does not serve")
@pytest.mark.parametrize("kind", KINDS)
def test_triton_on_a_cpu_says_why_not(kind):
    with pytest.raises(ValueError, match="backend 'triton' cannot serve this model: ") as error:
        predict(kind)(small_model("triton"), image())
    assert "on cpu, and Triton kernels run on CUDA" in str(error.value) or "not installed" in str(error.value)


def test_unknown_backends():
    with pytest.raises(ConfigError, match="backend 'cuda' is unknown; take one of auto, triton, torch"):
        clit_zoo.create_model("edsr-light-lit", backend="cuda")
    model = small_model("auto")
    with pytest.raises(ConfigError, match="backend 'fast' is unknown; take one of auto, triton"):
        model.backend = "fast"


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_only_the_last_stage_adds_the_image(kind, monkeypatch):
    """With the MLPs' last layers silenced, nothing else is left: for every call of the model."""
    bases = []
    monkeypatch.setattr(
        clit, "decode_stage", lambda call, **how: bases.append(call.base) or decode_stage(call, **how)
    )
    model = small_model("torch")
    for mlp in model.decoder.imnets:
        mlp.layers[-1].weight.zero_()
        mlp.layers[-1].bias.zero_()
    picture = image()
    out = predict(kind)(model, picture)
    assert [base is None for base in bases] == [True, False]
    if kind == "grid":
        expected = F.interpolate(picture, (18, 23), mode="bilinear", align_corners=False)
        torch.testing.assert_close(out.transpose(1, 2).unflatten(2, (18, 23)), expected)
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
    cell = torch.rand(2, 2, generator=generator)
    return StageCall(*maps, queries, stage, cell, draw(2, queries.count, 3))


@pytest.mark.parametrize("backend", ["torch", "reference"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", [Grid, Points, Raster])
def test_the_base_is_added_in_the_wider_dtype(kind, dtype, backend):
    generator = torch.Generator().manual_seed(5)
    if kind is Grid:
        queries = Pixels.whole((9, 7)).on((4, 3))
    elif kind is Points:
        index = torch.randint(0, 3, (2, 6, 2), generator=generator)
        queries = Points(index, torch.rand(2, 6, 2, generator=generator) - 0.5)
    else:
        queries = Raster(torch.rand(2, 1, 4, 3, 2, generator=generator) - 0.5)
    call = stage_inputs(queries, dtype)
    bare = decode_stage(call, backend=backend)
    base = torch.randn(bare.shape, generator=generator)  # float32, as the image is under autocast
    full = decode_stage(call._replace(base=base), backend=backend)
    assert bare.dtype == dtype and full.dtype == torch.promote_types(dtype, torch.float32)
    assert torch.equal(full, bare + base)
