"""Blocks of queries give what the same queries give one by one; attention adds up."""

import pytest
import torch

from clit_kernels import AttentionCall
from clit_kernels.local_attention import local_attention_reference
from clit_zoo.geometry import Blocks, Coords
from clit_zoo.model import SuperResolver
from clit_zoo.zoo.config import ModelConfig

TOLERANCE = 1e-7
SIDE = 8  # pixels of the last map that a block spans
MAP = (70, 71)
MAPS = ((16, 17), (27, 29), MAP)
# all four corners of the last map, where windows reach outside, and the middle
CORNERS = torch.tensor([(0, 0), (0, 63), (62, 0), (62, 63), (20, 33)])


def tiny(radius: int) -> SuperResolver:
    torch.manual_seed(0)
    decoder = {"name": "clit", "dim": 8, "heads": 2, "radius": radius, "stages": 3, "hidden_dims": [16]}
    return SuperResolver(ModelConfig("tiny", {"name": "edsr", "channels": 8, "blocks": 1}, decoder)).double()


def blocks() -> torch.Tensor:
    """(2, 5, 64, 2) coordinates of one position in each of a block's pixels."""
    side = torch.arange(SIDE)
    pixels = torch.stack(torch.meshgrid(side, side, indexing="ij"), -1).reshape(1, -1, 2)
    position = CORNERS.unsqueeze(1) + pixels + 0.98 * torch.rand(2, len(CORNERS), SIDE**2, 2) + 0.01
    return (2 * position / torch.tensor(MAP) - 1).double()


@pytest.mark.parametrize("radius", [0, 1, 3])
def test_blocks_are_the_whole_maps_around_them(radius):
    model, coords = tiny(radius), blocks()
    image = torch.rand(2, 3, 16, 17, dtype=torch.float64)
    cell = torch.tensor([[2 / 180, 2 / 184]] * 2, dtype=torch.float64)
    encoded = model.encode(image)
    whole = model.decode(encoded, Coords(coords.flatten(1, 2), cell, MAPS))
    parts = model.decode(encoded, Blocks(coords, cell, MAPS, SIDE / min(MAP)))
    # whole maps are resampled with weights kept in float32 (6e-8), blocks in the maps' own dtype
    torch.testing.assert_close(parts, whole, rtol=0, atol=TOLERANCE)
    parameters = list(model.parameters())
    expected = torch.autograd.grad(whole.sin().sum(), parameters, retain_graph=True)
    for got, want in zip(torch.autograd.grad(parts.sin().sum(), parameters), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=TOLERANCE * max(1.0, float(want.abs().max())))


def test_attention_maps():
    model, coords = tiny(1), blocks()[:, 0]
    image = torch.rand(2, 3, 16, 17, dtype=torch.float64)
    prepared = model.encode(image).prepared
    where = Coords(coords, torch.full((2, 2), 0.01), MAPS)
    maps = model.decoder.attention(prepared, where)
    assert [tuple(m.shape) for m in maps] == [(2, 64, 2, 3, 3)] * 3
    for m in maps:
        torch.testing.assert_close(m.sum((-2, -1)), torch.ones_like(m[..., 0, 0]))
    assert not torch.allclose(maps[0], maps[1])
    # the whole maps, which need not be made for a few points, weigh the same
    proj = model.decoder.pb_encoder.proj
    for i, size in enumerate(MAPS):
        q, k, _ = model.decoder._maps(i, prepared.base, size)
        points = where.on(size)
        whole = local_attention_reference(AttentionCall(q, k, points, proj.weight, proj.bias, 2, 1))
        torch.testing.assert_close(maps[i], whole.unflatten(-1, (3, 3)), rtol=0, atol=TOLERANCE)
