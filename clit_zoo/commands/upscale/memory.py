"""How much memory an enlargement takes, before it is tried: counted on tensors that hold no values."""

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ...geometry import Size
from ...model import SuperResolver
from ...zoo.config import ModelConfig
from ...zoo.skeleton import parameters

# A process with the library loaded and warmed up, measured on Linux with a CPU build of torch (0.59–0.66 GB).
PROCESS_BYTES = 620_000_000

# What the decoder's bands take beside the maps: they are cut to a budget, whatever the picture's size.
DECODER_BYTES = 100_000_000

# Input and output pixels exist as float32 colour three times over (the picture, normalised, the result of the
# last sum), and the encoded picture comes on top.
PICTURE_BYTES = 3 * 12 + 4

SAMPLE_SIDE = 96  # of the picture that is counted: networks of maps need as much for each further pixel


class MemoryEstimate:
    """Peak memory in bytes of enlarging one picture, in any model.

    The model is built and its ``encode`` is run on the device meta, where tensors have a size and no values.
    On a GPU it is the sum of both sides' memory. Float32 channels that ``encode`` holds for each input pixel,
    counted and measured on a CPU: edsr-light-lit 259 and 262, edsr-lit 323 and 324, swinir-lit 1,674 and
    1,829, rdn-lit 2,243 and 3,475 (of 256×256: the allocator keeps large blocks beside the live ones).
    """

    def __init__(self, config: ModelConfig, dtype: str):
        precision = getattr(torch, dtype)
        self._model = parameters(config) * precision.itemsize
        with torch.device("meta"), torch.inference_mode():
            model = SuperResolver(config, backend="torch").to(precision).eval()
            image = torch.empty(1, 3, SAMPLE_SIDE, SAMPLE_SIDE)
            with _PeakBytes() as counted:
                model.encode(image)
        self._pixel = counted.peak / SAMPLE_SIDE**2

    def __call__(self, size: Size, target: Size) -> int:
        """Bytes for an (h, w) picture that becomes (H, W)."""
        pixels, output = size[0] * size[1], target[0] * target[1]
        maps = pixels * (self._pixel + PICTURE_BYTES)
        return round(PROCESS_BYTES + DECODER_BYTES + self._model + maps + output * PICTURE_BYTES)


class _PeakBytes(TorchDispatchMode):
    """The most bytes that the tensors made within held at once."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._tensors: dict[int, int] = {}  # how many there are of each storage

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                key, size = storage._cdata, storage.nbytes()
                if key not in self._tensors:
                    self.live += size
                self._tensors[key] = self._tensors.get(key, 0) + 1
                weakref.finalize(tensor, self._gone, key, size)
        self.peak = max(self.peak, self.live)
        return result

    def _gone(self, key: int, size: int) -> None:
        self._tensors[key] -= 1
        if not self._tensors[key]:
            del self._tensors[key]
            self.live -= size
