"""What the authors of MSIT store of its convolutions, as the plain kernels that ``decoders.msit`` has."""

import re
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..decoders.msit import FEM_TAKES
from ..errors import WeightsError

_CONVMAP = re.compile(
    r"((?:amsno\.Ms_conv_\d+|multi_conv_qs\.0\.local_conv_\d+|conv_vs\.0)\.)convmap\.weight"
)


def msit_weights(given: Any) -> Any:
    """The tensors of a checkpoint, with plain kernels and without what nothing trains.

    Convolutions may be plain or re-parameterised (RIM), each by itself. FEM's pattern and the counts of
    batches are left out.

    Args:
        given: names -> tensors; anything else is returned as it is.

    Raises:
        WeightsError: FEM's pattern is another, or one of RIM's tensors is missing or misshaped.
    """
    if not isinstance(given, Mapping):
        return given
    found = {name: t for name, t in given.items() if not str(name).endswith(".bn.num_batches_tracked")}
    mask = found.get("amsno.lem.mask")
    for name, value in (("amsno.lem.mask", _fem_mask(mask)), ("amsno.lem.mix_margin", torch.tensor(1.0))):
        if not _is_plain(stored := found.pop(name, None)) or not torch.equal(stored.float(), value):
            raise WeightsError(
                f"{name} is missing, or not what the authors' code puts there and never trains."
            )
    for match in filter(None, (_CONVMAP.fullmatch(str(name)) for name in given)):
        names = [match[1] + part for part in ("weight", "convmap.weight", "linear.weight")]
        rim = [found.pop(name, None) for name in names]
        if not all(map(_is_plain, rim)) or not _fit(*(tuple(t.shape) for t in rim)):
            raise WeightsError(f"{', '.join(names)} are not the three tensors of one convolution.")
        found[names[0]] = fold_rim(*(t.double() for t in rim)).to(rim[0].dtype)
    return found


def fold_rim(weight: Tensor, convmap: Tensor, linear: Tensor) -> Tensor:
    """The kernel that a re-parameterised convolution computes with.

    Args:
        weight: (out, in, k, k) the kernel that is not trained.
        convmap: (out * in, 1, 3, 3), one for each plane of the kernel.
        linear: (out * in, 1, 1, 1), one factor for each plane.

    Returns:
        (out, in, k, k): each plane W plus conv(W) * (factor * W), where W has zeros around it.
    """
    planes = weight.flatten(0, 1).unsqueeze(0)
    learnt = F.conv2d(planes, convmap, padding=1, groups=planes.shape[1]) * (
        planes * linear.view(1, -1, 1, 1)
    )
    return (planes + learnt).view_as(weight)


def _is_plain(tensor: Any) -> bool:
    return isinstance(tensor, Tensor) and tensor.layout == torch.strided and tensor.is_floating_point()


def _fit(weight: tuple[int, ...], convmap: tuple[int, ...], linear: tuple[int, ...]) -> bool:
    planes = weight[0] * weight[1] if len(weight) == 4 else 0
    return planes > 0 and convmap == (planes, 1, 3, 3) and linear == (planes, 1, 1, 1)


def _fem_mask(stored: Any) -> Tensor:
    """FEM's pattern as a depthwise kernel, of as many channels as the one stored."""
    mask = torch.zeros(len(stored) if isinstance(stored, Tensor) and stored.dim() == 4 else 0, 1, 3, 3)
    for i, takes in enumerate(FEM_TAKES):
        for down, right in takes:
            mask[i :: len(FEM_TAKES), 0, 1 + down, 1 + right] = 1
    return mask
