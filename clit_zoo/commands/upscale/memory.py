"""How much memory and time an enlargement takes, before it is tried: counted, and timed on a small sample."""

import os
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ...decoders import bands
from ...geometry import Box, Pixels, Size
from ...model import SuperResolver
from ...pace import Work, sample
from ...tiles import BAND_BYTES, CHUNK_PIXELS, Layout, work
from ...zoo.config import ModelConfig
from ...zoo.skeleton import parameters

PROCESS_BYTES = 600_000_000
"""The library loaded and warmed up, with a CPU build of torch on Linux; of others the process tells."""

TIMM_BYTES = {"swinir": 220_000_000}
"""What timm, which this encoder needs, adds to it."""

HEAP, HEAP_SHARE = {"edsr": 1.3, "rdn": 1.1, "swinir": 1.9}, 1.3
"""What the process grows by for each byte that an encoder's tensors hold at once, and another's: measured at
192 to 400 pixels a side. Between blocks in use the allocator keeps some that fit nothing."""

DECODER_BYTES = 30_000_000
"""What a decoder's tiles take beside its maps and colours."""

TILES_BYTES = 60_000_000
"""What lies between the places of several tiles' tensors: measured with 12 MP at x2 and 100 MP at x4."""

WRITING = 2.4
"""An output's copies while it is written from memory: its samples, those of its coder, the file."""

SAMPLE_SIDE = 96  # of the picture that is counted: networks of maps need as much for each further pixel


class Estimate:
    """Peak memory and time of enlarging pictures with one model, in its whole process.

    The model's ``encode`` is run on the device meta, where tensors have a size and no values; one with random
    weights is timed on a small sample. On a GPU memory is the sum of both sides'.

    Args:
        config: the model's.
        dtype: in which it computes.
        device: on which.
    """

    def __init__(self, config: ModelConfig, dtype: torch.dtype, device: str | torch.device = "cpu"):
        self._config, self._dtype, self._device = config, dtype, device
        with torch.device("meta"), torch.inference_mode():
            meta = SuperResolver(config, backend="torch").to(dtype).eval()
            image = torch.empty(1, 3, SAMPLE_SIDE, SAMPLE_SIDE)
            with _PeakBytes() as counted:
                prepared = meta.encode(image).prepared
        self._encoder, self._decoder = meta.encoder, meta.decoder
        name = config.encoder["name"]
        self._process = max(PROCESS_BYTES + TIMM_BYTES.get(name, 0), resident_bytes())
        self._process += parameters(config) * dtype.itemsize
        self._pixel = counted.peak / SAMPLE_SIDE**2 * HEAP.get(name, HEAP_SHARE)
        tensors = [leaf for leaf in tree_leaves(prepared) if isinstance(leaf, torch.Tensor)]
        self._held = sum(tensor.untyped_storage().nbytes() for tensor in tensors) / SAMPLE_SIDE**2
        self._rates: dict[tuple[float, float], Work] = {}

    def memory(self, size: Size, target: Size, box: Box | None, pixel_bytes: int, in_rows: bool) -> int:
        """Bytes for an (h, w) picture that becomes (H, W), the library's own among them.

        Args:
            size, target: of the picture and of the output.
            box: the part of the picture that is shown.
            pixel_bytes: of a stored pixel.
            in_rows: the output is written row by row.
        """
        where, layout = Pixels.window(*size, box, size=target), Layout(self._encoder, self._decoder, size)
        parts = [(band, *tile) for band, tiles in layout.rows(where, pixel_bytes) for tile in tiles]
        encoded = max(tile.encoded for _, _, tile in parts)
        decoded = max((band.stop - band.start) * (cols.stop - cols.start) for band, cols, _ in parts)
        samples, output = (side[0] * side[1] * pixel_bytes for side in (size, target))
        held = encoded * self._held
        colors = 2 * 12 * min(CHUNK_PIXELS, decoded)
        decode = held + min(bands.BAND_BYTES, bands.COPIES * held) + DECODER_BYTES + colors
        out = min(BAND_BYTES, output) if in_rows else output
        encode = encoded * self._pixel
        # after some tiles the places of a tile's encoder and of its decoder lie beside each other
        computing = samples + out + (max(encode, decode) if layout.whole else encode + decode + TILES_BYTES)
        return round(self._process + max(computing, 7 / 3 * samples, 0 if in_rows else WRITING * output))

    def seconds(self, size: Size, target: Size, box: Box | None, pixel_bytes: int) -> float:
        """The time it takes on this machine as it is now, but for reading and writing."""
        where, layout = Pixels.window(*size, box, size=target), Layout(self._encoder, self._decoder, size)
        scales = (round(where.rows.scale(size[0]), 1), round(where.cols.scale(size[1]), 1))
        if scales not in self._rates:
            model = SuperResolver(self._config).eval().to(self._device, self._dtype)
            self._rates[scales], _ = sample(model, where, size)
        return work(layout, where, pixel_bytes).seconds(self._rates[scales])


def free_bytes() -> int | None:
    """Memory that this process can still have; None where the system does not say."""
    found = []
    with suppress(OSError, ValueError, IndexError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found.append(int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]) * 1024)
    with suppress(OSError, ValueError, IndexError):
        group = Path("/sys/fs/cgroup")
        limit, used = ((group / name).read_text() for name in ("memory.max", "memory.current"))
        cached = (group / "memory.stat").read_text().split("inactive_file ")[1].split()[0]
        found.append(int(limit) - int(used) + int(cached))
    return min(found, default=None)


def resident_bytes() -> int:
    """What this process holds already; 0 where the system does not say."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


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
