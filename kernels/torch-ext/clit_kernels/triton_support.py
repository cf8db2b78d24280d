"""What every Triton op shares: whether Triton can run here, numeric choices, and how a kernel is registered.

Imports without Triton; ops import their kernels only once ``why_not_triton`` has nothing to say.
"""

import importlib.util
import os
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

DTYPES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
"""Dtypes the kernels take, and Triton's names for them."""

INTERPRETED = os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "y", "yes")
"""Kernels run on the CPU, in numpy. Read once: Triton reads it when a kernel is defined."""

MAX_BATCH = 65535
"""Images of a batch: it is the second or third axis of a launch."""

LAUNCH = {"enable_fp_fusion": True}
"""Options of every launch and compilation. Fused multiply-adds are named because Triton's default changes."""


class KernelSpec(NamedTuple):
    """A kernel at one registered setting, as ``compile_table.py`` compiles it ahead of time.

    Attributes:
        name: "op/kernel", as in the tile tables.
        kernel: the ``@triton.jit`` function.
        types: argument -> Triton type ("*bf16", "i32", "fp32") of every argument that is not constexpr.
        constants: constexpr argument -> value.
        tile: its block sizes, which are among the constants too, num_warps and num_stages.
        label: the setting in words ("bf16 C=256 H=8 K=7").
        tensor_cores: whether the kernel must contain tensor-core instructions at this setting.
    """

    name: str
    kernel: Any
    types: Mapping[str, str]
    constants: Mapping[str, object]
    tile: Mapping[str, int]
    label: str
    tensor_cores: bool


def spec(
    name: str,
    kernel: Any,
    dtype: str,
    constants: Mapping[str, object],
    tile: Mapping[str, int],
    label: str,
    pointers: Mapping[str, str],
    tensor_cores: bool,
) -> KernelSpec:
    """A kernel's registration, its types told by its arguments' names.

    Of ``constants`` and ``tile`` those count that the kernel takes. Other arguments are pointers to ``dtype``
    if they end in "_ptr" and ``pointers`` names no other type, "scale" and "gain" float32, the rest integers.
    """
    known = {key: value for key, value in {**constants, **tile}.items() if key in kernel.arg_names}
    scalars = dict.fromkeys(("scale", "gain"), "fp32")
    types = {
        key: pointers.get(key, f"*{dtype}") if key.endswith("_ptr") else scalars.get(key, "i32")
        for key in kernel.arg_names
        if key not in known
    }
    return KernelSpec(name, kernel, types, known, tile, label, tensor_cores)


def why_not_triton(*maps: Tensor, beside: Iterable[Tensor] = ()) -> str | None:
    """Why Triton kernels cannot take these tensors, or None.

    All must lie on one device that Triton serves; ``maps``, not those ``beside`` them, in one of ``DTYPES``.
    """
    if not has_triton():
        return "Triton is not installed here; `pip install triton` (Linux), or take backend 'torch'"
    devices = {t.device for t in (*maps, *beside)}
    if len(devices) > 1:
        names = ", ".join(sorted(str(d) for d in devices))
        return f"its tensors lie on different devices ({names}); move them to one"
    device = maps[0].device
    if device.type != "cuda" and not (device.type == "cpu" and INTERPRETED):
        return (
            f"its tensors are on {device}, and Triton kernels run on CUDA and ROCm devices; "
            "move them there, or set TRITON_INTERPRET=1 before the first import to interpret kernels on a CPU"
        )
    if device.type == "cuda" and not torch.version.hip and torch.cuda.get_device_capability(device) < (8, 0):
        return f"{torch.cuda.get_device_name(device)} is older than compute capability 8.0 (Ampere)"
    for tensor in maps:
        if tensor.dtype not in DTYPES:
            known = ", ".join(str(d).removeprefix("torch.") for d in DTYPES)
            return f"a map is {tensor.dtype}, and the kernels take {known}"
    return None


@cache
def has_triton() -> bool:
    """Whether the ``triton`` package is installed."""
    return importlib.util.find_spec("triton") is not None


def power_of_two(n: int) -> int:
    """The least power of two that is not below n."""
    return 1 << max(n - 1, 0).bit_length()


def width_block(width: int) -> int:
    """Channels of a head as the kernels take them: a matrix instruction needs 16."""
    return max(16, power_of_two(width))


def dot_precision(dtype: torch.dtype) -> str:
    """``input_precision`` of tl.dot: "tf32" only for float32 where the user asked torch for it."""
    if dtype != torch.float32 or torch.version.hip:
        return "ieee"
    return "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "ieee"


def kernel_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which maps of ``dtype`` are handed to a kernel.

    bfloat16 arithmetic in the interpreter silently returns garbage: cast to float32 before the launch there.
    """
    return torch.float32 if INTERPRETED and dtype == torch.bfloat16 else dtype


def on_device(tensor: Tensor) -> AbstractContextManager:
    """Make ``tensor``'s GPU the current one: Triton launches on the current one, whatever its arguments."""
    return torch.cuda.device(tensor.device) if tensor.device.type == "cuda" else nullcontext()


def channels_last(feature: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
    """``feature`` (B, C, h, w) with adjacent channels in memory, and its strides over (B, h, w).

    A map in channels_last format, or a chunk of one, is taken as it lies; others are copied.
    """
    if feature.stride(1) != 1:
        feature = feature.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    return feature, (feature.stride(0), feature.stride(2), feature.stride(3))
