"""The position bias of CLIT's attention, and why it is two small tables.

CLIT adds ``proj([sin(b dy), sin(b dx), cos(b dy), cos(b dx)])`` to the logits of each head, where (dy, dx) is
the relative coordinate of query and key in units of half a feature pixel and b = 2**linspace(0, 10, 16) - 1
(Chen et al., CVPR 2023, equations 5 and 6; bands as in the published configurations).

There are no cross terms, so the bias is exactly B_y(dy) + B_x(dx). And dy = 2 (offset - tap) with an integer
tap, so by the angle-sum identities sin and cos of b dy are a fixed rotation of those of 2 b offset: one
encoding serves all K taps, and no argument exceeds 2**10 rad for a query's own window.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

BANDS = 16
"""Frequencies per axis; the projection has 4 * BANDS inputs."""


_constants: dict[tuple[object, ...], Tensor] = {}
"""Cached, because a host-to-device copy synchronises with all queued work."""


def has_float64(device: torch.device) -> bool:
    """Whether ``device`` computes in float64; Apple's GPUs refuse to make such a tensor."""
    return device.type != "mps"


def frequencies(device: torch.device, dtype: torch.dtype) -> Tensor:
    """(BANDS,) b = 2**linspace(0, 10, BANDS) - 1, rounded as the published float32 model rounds it."""
    return _constant(_bands, device, dtype)


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
    exact = torch.float64 if has_float64(offset.device) else torch.float32
    weight = proj_weight.to(exact).reshape(-1, 2, 2, BANDS)[:, :, axis]  # (H, sin|cos, BANDS)
    w_sin, w_cos = weight[:, 0], weight[:, 1]
    turn_sin, turn_cos = _constant(_turns, offset.device, exact, radius).unbind()  # (K, 1, BANDS) each
    # sin(b(2o - 2k)) = sin(2bo) cos(2bk) - cos(2bo) sin(2bk), and likewise for cos
    on_sin = w_sin * turn_cos + w_cos * turn_sin
    on_cos = w_cos * turn_cos - w_sin * turn_sin
    rotated = torch.cat((on_sin, on_cos), -1).to(offset.dtype)  # (K, H, 2 * BANDS)
    # arguments reach 1,000 rad: rounded to float32 they would put the sines off by 3e-5
    if exact == torch.float64:
        angles = (2 * offset.to(exact)).unsqueeze(-1) * frequencies(offset.device, exact)
    else:
        angles = _reduced_angles(offset)
    encoded = torch.cat((angles.sin().to(offset.dtype), angles.cos().to(offset.dtype)), -1)
    return torch.einsum("...e,khe->...kh", encoded, rotated)


def _reduced_angles(offset: Tensor) -> Tensor:
    """The angles 2 b offset, (..., BANDS), less whole turns: right to 1e-6 rad in float32 alone.

    A product of two numbers of 12 bits is exact in float32. In turns, whose whole part drops out, the angle
    is (coarse + fine) offset, and the product of ``coarse`` with the offset's first 12 bits is the only one
    that exceeds 1/16.
    """
    coarse, fine = _constant(_turns_per_pixel, offset.device, torch.float32).unbind()
    offset = offset.unsqueeze(-1)
    first = (offset * 4096).round() / 4096
    whole = first * coarse
    return 2 * math.pi * ((whole - whole.round()) + (offset - first) * coarse + offset * fine)


def _constant(
    make: Callable[..., Tensor], device: torch.device, dtype: torch.dtype, *arguments: int
) -> Tensor:
    """``make(*arguments)``, made on the CPU, on ``device``, where it comes in ``dtype`` and no wider one."""
    if torch.compiler.is_compiling():
        return make(*arguments).to(dtype).to(device)
    key = (make, arguments, device, dtype)
    if key not in _constants:
        with torch.inference_mode(False):
            made = make(*arguments).to(dtype).to(device)
        if type(made) is not Tensor:  # a tracer's
            return made
        _constants[key] = made
    return _constants[key]


def _bands() -> Tensor:
    return 2.0 ** torch.linspace(0, 10, BANDS, dtype=torch.float32, device="cpu") - 1


def _turns(radius: int) -> Tensor:
    """Sines and cosines (2, K, 1, BANDS) of the angles 2 b k between a window's middle and its taps."""
    taps = torch.arange(-radius, radius + 1, dtype=torch.float64, device="cpu")
    angles = 2 * taps[:, None, None] * _bands().double()
    return torch.stack((angles.sin(), angles.cos()))


def _turns_per_pixel() -> Tensor:
    """Turns in the angles 2 b offset, per pixel: b / pi as (2, BANDS), the first 12 bits and the rest."""
    turns = _bands().double() / math.pi  # up to 326: 9 bits before the point
    coarse = (turns * 8).round() / 8
    return torch.stack((coarse, turns - coarse))
