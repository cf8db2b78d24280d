"""The position bias of CLIT's attention, and why it is two small tables.

CLIT adds ``proj([sin(b dy), sin(b dx), cos(b dy), cos(b dx)])`` to the logits of each head, where (dy, dx) is
the relative coordinate of query and key in units of half a feature pixel and b = 2**linspace(0, 10, 16) - 1
(Chen et al., CVPR 2023, equations 5 and 6; bands as in the published configurations).

There are no cross terms, so the bias is exactly B_y(dy) + B_x(dx). And dy = 2 (offset - tap) with an integer
tap, so by the angle-sum identities sin and cos of b dy are a fixed rotation of those of 2 b offset: one
encoding serves all K taps, and no argument exceeds 2**10 rad for a query's own window.
"""

import torch
from torch import Tensor

BANDS = 16
"""Frequencies per axis; the projection has 4 * BANDS inputs."""


_frequencies: dict[tuple[torch.device, torch.dtype], Tensor] = {}
"""Kept: a copy from the CPU's memory makes the CPU wait for all that the device has been given to do."""


def frequencies(device: torch.device, dtype: torch.dtype) -> Tensor:
    """(BANDS,) b = 2**linspace(0, 10, BANDS) - 1, rounded as the published float32 model rounds it."""
    if torch.compiler.is_compiling():
        return (2.0 ** torch.linspace(0, 10, BANDS) - 1).to(device, dtype)
    if (device, dtype) not in _frequencies:
        with torch.inference_mode(False):
            made = (2.0 ** torch.linspace(0, 10, BANDS) - 1).to(device, dtype)
        if type(made) is not Tensor:  # a tracer's
            return made
        _frequencies[device, dtype] = made
    return _frequencies[device, dtype]


def encode(relative: Tensor) -> Tensor:
    """Encode relative coordinates (..., 2) in half feature pixels -> (..., 4 * BANDS), literally."""
    angles = relative.unsqueeze(-1) * frequencies(relative.device, relative.dtype)
    angles = angles.flatten(-2)
    return torch.cat((angles.sin(), angles.cos()), -1)


def axis_table(offset: Tensor, proj_weight: Tensor, axis: int, radius: int) -> Tensor:
    """One axis of the bias for offsets from the nearest pixel.

    Args:
        offset: (...) feature pixels in [-0.5, 0.5], float32 or float64.
        proj_weight: (H, 4 * BANDS) weight of the projection.
        axis: 0 for y, 1 for x.
        radius: taps run from -radius to radius.

    Returns:
        (..., K, H) in ``offset``'s dtype; the projection's own bias is not included.
    """
    weight = proj_weight.to(torch.float64).reshape(-1, 2, 2, BANDS)[:, :, axis]  # (H, sin|cos, BANDS)
    w_sin, w_cos = weight[:, 0], weight[:, 1]
    b = frequencies(offset.device, torch.float32).to(torch.float64)
    taps = torch.arange(-radius, radius + 1, device=offset.device, dtype=torch.float64)
    turn = 2 * taps[:, None, None] * b  # (K, 1, BANDS)
    # sin(b(2o - 2k)) = sin(2bo) cos(2bk) - cos(2bo) sin(2bk), and likewise for cos
    on_sin = w_sin * turn.cos() + w_cos * turn.sin()
    on_cos = w_cos * turn.cos() - w_sin * turn.sin()
    rotated = torch.cat((on_sin, on_cos), -1).to(offset.dtype)  # (K, H, 2 * BANDS)
    # arguments reach 1,000 rad: rounded to float32 they would put the sines off by 3e-5
    exact = torch.float32 if offset.device.type == "mps" else torch.float64
    angles = (2 * offset.to(exact)).unsqueeze(-1) * b.to(exact)
    encoded = torch.cat((angles.sin().to(offset.dtype), angles.cos().to(offset.dtype)), -1)
    return torch.einsum("...e,khe->...kh", encoded, rotated)
