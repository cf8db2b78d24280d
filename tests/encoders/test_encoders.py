"""What every encoder promises, and EDSR and RDN against their formulas."""

import inspect
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from clit_zoo.encoders import ENCODERS, build_encoder
from clit_zoo.zoo import schema as settings

SMALL = {
    "edsr": {"channels": 8, "blocks": 2},
    "rdn": {"channels": 8, "blocks": 2, "layers": 3, "growth": 4},
    "swinir": {"channels": 12, "depths": [2, 3], "heads": [2, 3], "window": 4, "out_channels": 8},
}


@pytest.fixture(params=SMALL)
def encoder(request):
    torch.manual_seed(0)
    return build_encoder(request.param, **SMALL[request.param]).eval()


def image(*shape, dtype=torch.float32):
    return torch.rand(shape, generator=torch.Generator().manual_seed(1), dtype=dtype) * 2 - 1


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 3), (4, 4), (13, 7), (17, 24)])
def test_keeps_the_size_of_the_image(encoder, size):
    x = image(2, 3, *size)
    y = encoder(x)
    assert y.shape == (2, encoder.out_channels, *size)
    assert torch.isfinite(y).all()
    # each image of a batch is treated as if alone
    torch.testing.assert_close(encoder(x[1:]), y[1:], rtol=0, atol=1e-5)


def test_memory_layout_of_the_image_does_not_matter(encoder):
    x = image(2, 3, 13, 10)
    expected = encoder(x)
    strided = torch.full((2, 3, 26, 20), torch.nan)
    strided[:, :, ::2, ::2] = x
    transposed = x.transpose(2, 3).contiguous().transpose(2, 3)
    for same in (strided[:, :, ::2, ::2], transposed, x.contiguous(memory_format=torch.channels_last)):
        torch.testing.assert_close(encoder(same), expected, rtol=0, atol=1e-5)


def test_leaves_the_image_and_itself_as_they_were(encoder):
    x = image(1, 3, 6, 9)
    before = x.clone()
    weights = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    first = encoder(x)
    encoder(image(1, 3, 16, 5))
    assert torch.equal(x, before)
    assert torch.equal(encoder(x), first)
    assert all(torch.equal(weights[name], tensor) for name, tensor in encoder.state_dict().items())


def test_every_parameter_gets_a_gradient(encoder):
    encoder(image(1, 3, 9, 9)).square().sum().backward()
    idle = [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert not idle


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(encoder, dtype):
    x = image(1, 3, 9, 9)
    with torch.no_grad(), torch.autocast("cpu", dtype):
        y = encoder(x)
    exact = encoder.double()(x.double())
    assert (y - exact).abs().max() < 0.05 * exact.abs().max()


def test_float64_agrees_with_float32(encoder):
    x = image(1, 3, 11, 6)
    single = encoder(x)
    exact = encoder.double()(x.double())
    assert exact.dtype == torch.float64
    assert (single - exact).abs().max() <= 1e-5 * (exact.max() - exact.min())


# EDSR-baseline, RDN's larger configuration and SwinIR's classical one, without their upsamplers.
@pytest.mark.parametrize(
    ("name", "count"), [("edsr", 1_220_416), ("rdn", 21_973_952), ("swinir", 11_603_044)]
)
def test_the_papers_sizes(name, count):
    with torch.device("meta"):
        encoder = build_encoder(name)
    assert sum(p.numel() for p in encoder.parameters()) == count
    assert encoder.out_channels == 64
    assert set(encoder.state_dict()) == {name for name, _ in encoder.named_parameters()}


def conv_names(*names):
    return [f"{name}.{kind}" for name in names for kind in ("weight", "bias")]


def test_parameter_names():
    def names(encoder):
        return sorted(build_encoder(encoder, **SMALL[encoder]).state_dict())

    blocks = [f"body.{i}.body.{j}" for i in (0, 1) for j in (0, 2)]
    assert names("edsr") == sorted(conv_names("head.0", *blocks, "body.2"))

    dense = [f"RDBs.{i}.convs.{j}.conv.0" for i in (0, 1) for j in (0, 1, 2)]
    assert names("rdn") == sorted(
        conv_names("SFENet1", "SFENet2", *dense, "RDBs.0.LFF", "RDBs.1.LFF", "GFF.0", "GFF.1")
    )

    blocks = [f"layers.{i}.residual_group.blocks.{j}" for i, depth in enumerate((2, 3)) for j in range(depth)]
    inside = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    around = ("conv_first", "patch_embed.norm", "layers.0.conv", "layers.1.conv", "norm", "conv_after_body")
    assert names("swinir") == sorted(
        conv_names(*around, "conv_before_upsample.0", *(f"{b}.{part}" for b in blocks for part in inside))
        + [f"{b}.attn.relative_position_bias_table" for b in blocks]
    )


def test_edsr_is_its_formula():
    encoder = build_encoder("edsr", **SMALL["edsr"])
    w = encoder.state_dict()

    def conv(x, name):
        return F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], padding=1)

    x = image(1, 3, 5, 7)
    head = conv(x, "head.0")
    y = head
    for i in (0, 1):
        y = y + conv(F.relu(conv(y, f"body.{i}.body.0")), f"body.{i}.body.2")
    torch.testing.assert_close(encoder(x), head + conv(y, "body.2"))


def test_rdn_is_its_formula():
    encoder = build_encoder("rdn", **SMALL["rdn"])
    w = encoder.state_dict()

    def conv(x, name, padding=1):
        return F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], padding=padding)

    x = image(1, 3, 5, 7)
    shallow = conv(x, "SFENet1")
    y, fused = conv(shallow, "SFENet2"), []
    for i in (0, 1):
        dense = [y]
        for j in (0, 1, 2):
            dense.append(F.relu(conv(torch.cat(dense, 1), f"RDBs.{i}.convs.{j}.conv.0")))
        y = y + conv(torch.cat(dense, 1), f"RDBs.{i}.LFF", padding=0)
        fused.append(y)
    expected = shallow + conv(conv(torch.cat(fused, 1), "GFF.0", padding=0), "GFF.1")
    torch.testing.assert_close(encoder(x), expected)


def test_the_settings_table_describes_the_encoders():
    assert list(settings.ENCODERS) == list(ENCODERS)
    for name, part in settings.ENCODERS.items():
        defaults = {p.name: p.default for p in inspect.signature(ENCODERS[name]).parameters.values()}
        assert {key: setting.default for key, setting in part.settings.items()} == defaults


def test_timm_is_imported_for_swinir_only():
    code = (
        "import sys; from clit_zoo.encoders import build_encoder; build_encoder('rdn', blocks=1, layers=1); "
        "sys.exit('timm' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
