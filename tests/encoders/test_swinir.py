"""SwinIR: windows, shifts, masks and padding, against timm's own block."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from clit_zoo.encoders import build_encoder
from clit_zoo.encoders.swinir import DROP_PATH, reflect_to_multiple, shift_masks, windowed_attention


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    made = build_encoder("swinir", channels=12, depths=[2, 2], heads=[2, 3], window=4, out_channels=8).eval()
    with torch.no_grad():
        for p in made.parameters():  # biases start at zero, where a mistake in them would not show
            p.add_(torch.randn_like(p) * 0.2)
    return made


@pytest.mark.parametrize("size", [(4, 4), (4, 12), (12, 4), (8, 8), (16, 12)])
@pytest.mark.parametrize("index", [0, 1])
@torch.no_grad()
def test_attention_equals_timms_block(encoder, size, index):
    block = encoder.layers[0].residual_group["blocks"][index].double()
    x = torch.randn(2, *size, 12, dtype=torch.float64)
    ours = windowed_attention(block, x, shift_masks(4, x))
    assert any(block.shift_size) == bool(index)
    torch.testing.assert_close(ours, block._attn(x), rtol=0, atol=1e-12)


@torch.no_grad()
def test_masked_pixels_do_not_see_each_other(encoder):
    # The first row and the last share a shifted window, but never an output.
    block = encoder.layers[0].residual_group["blocks"][1].double()
    x = torch.randn(1, 8, 8, 12, dtype=torch.float64)
    masks = shift_masks(4, x)
    before = windowed_attention(block, x, masks)
    x[:, 0] += 1
    changed = (windowed_attention(block, x, masks) - before).abs().amax((0, 2, 3)) > 1e-12
    assert changed.tolist() == [True, True] + [False] * 6


@torch.no_grad()
def test_features_are_those_of_the_continued_image(encoder):
    x = torch.rand(1, 3, 10, 7) * 2 - 1
    # mirrors at the last row and column: the border pixel twice
    whole = torch.cat((x, x.flip(2)), 2)[:, :, :12]
    whole = torch.cat((whole, whole.flip(3)), 3)[..., :8]
    torch.testing.assert_close(encoder(x), encoder(whole)[:, :, :10, :7], rtol=0, atol=0)


@torch.no_grad()
def test_the_last_convolution_may_be_left_out(encoder):
    """CiaoSR reads the transformer's own channels."""
    settings = {"channels": 12, "depths": [2, 2], "heads": [2, 3], "window": 4}
    bare = build_encoder("swinir", **settings, out_channels=0).eval()
    last = {name for name in encoder.state_dict() if name.startswith("conv_before_upsample.")}
    bare.load_state_dict({k: t for k, t in encoder.state_dict().items() if k not in last}, strict=True)
    assert (bare.out_channels, bare.reach) == (12, encoder.reach - 1) and len(last) == 2
    x = torch.rand(1, 3, 8, 12)
    torch.testing.assert_close(encoder.conv_before_upsample(bare(x)), encoder(x), rtol=0, atol=0)


def test_reflection_continues_even_one_pixel():
    x = torch.tensor([[1.0, 2.0, 3.0]])[None, None]
    row = reflect_to_multiple(x, 8)[0, 0]
    assert row.shape == (8, 8)
    assert (row == torch.tensor([1.0, 2, 3, 3, 2, 1, 1, 2])).all()
    assert (reflect_to_multiple(x[..., :1], 8) == 1).all()
    whole = torch.rand(1, 3, 8, 16)
    assert reflect_to_multiple(whole, 8) is whole


@torch.no_grad()
def test_threads_may_share_a_model(encoder):
    images = [torch.rand(1, 3, h, w) for h, w in [(4, 4), (9, 13), (16, 5), (1, 1)] * 4]
    alone = [encoder(image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(torch.no_grad()(encoder), images))
    for one, other in zip(alone, together):
        assert torch.equal(one, other)


def test_nothing_is_kept_for_a_size(encoder):
    def kept():
        return [(name, *sorted(vars(module))) for name, module in encoder.named_modules()], [
            (name, tensor.shape) for name, tensor in encoder.named_buffers()
        ]

    before = kept()
    for size in (5, 12, 21):
        encoder(torch.rand(1, 3, size, size))
    assert kept() == before


def test_stochastic_depth_grows_to_the_last_block(encoder):
    blocks = [block for group in encoder.layers for block in group.residual_group["blocks"]]
    rates = [getattr(block.drop_path1, "drop_prob", 0) for block in blocks]
    assert rates == pytest.approx([0, DROP_PATH / 3, DROP_PATH * 2 / 3, DROP_PATH])
