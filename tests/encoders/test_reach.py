"""An encoder reads as far as it says, and no further."""

import pytest
import torch
from test_encoders import SMALL

from clit_zoo.encoders import build_encoder


@pytest.mark.parametrize("name", SMALL)
def test_reach(name):
    """A picture cut out with that much around it gives the same map, if it begins on the encoder's grid."""
    torch.manual_seed(0)
    encoder = build_encoder(name, **SMALL[name]).eval()
    grid, side = encoder.grid, encoder.reach * 2 + 41
    image = torch.rand(1, 3, side, side)
    with torch.no_grad():
        whole = encoder(image)
        top = encoder.reach + 7
        start = (top - encoder.reach) // grid * grid
        stop = min(-(-(top + 5 + encoder.reach) // grid) * grid, side)
        part = encoder(image[:, :, start:stop, start:stop])
        found = part[:, :, top - start : top - start + 5, top - start : top - start + 5]
    torch.testing.assert_close(found, whole[:, :, top : top + 5, top : top + 5], atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["edsr", "rdn"])
def test_reach_is_no_larger_than_needed(name):
    torch.manual_seed(0)
    encoder = build_encoder(name, **SMALL[name])
    n = 2 * encoder.reach + 5
    image = torch.rand(1, 3, n, n, requires_grad=True)
    encoder(image)[0, :, n // 2, n // 2].sum().backward()
    seen = image.grad[0].abs().sum(0).nonzero()
    assert (seen - n // 2).abs().max() == encoder.reach
