"""The processes of a run: one, or several that torchrun started."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ClitZooError
from ..pretrained import pick_device

PATIENCE = timedelta(hours=6)
"""How long the others wait while the first process decodes pictures or validates."""


class Processes:
    """One process, or those of ``torchrun --nproc-per-node N SCRIPT``, brought together by accelerate.

    Args:
        device: as ``from_pretrained`` takes it; with several processes "auto" gives each a GPU of its own.

    Attributes:
        count, rank: how many there are, and which this one is.
        device: where this one computes.
        main: whether this one writes files and talks.

    Raises:
        ClitZooError: there are several, and accelerate is missing or they cannot be brought together.
    """

    def __init__(self, device: str | torch.device = "auto"):
        self.count, self.rank = int(os.environ.get("WORLD_SIZE", "1")), 0
        self._state: Any = None
        if self.count == 1:
            self.device = pick_device(device)
        else:
            self._state = _accelerate(cpu=str(device) == "cpu" or not torch.cuda.is_available())
            if self._state.num_processes != self.count:
                raise ClitZooError(
                    f"torchrun started {self.count} processes, but {self._state.num_processes} came "
                    "together: start fewer, one for each GPU, or pass --device cpu"
                )
            self.rank, self.device = self._state.process_index, self._state.device
        self.main = self.rank == 0

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Let each machine's first process through before the others."""
        if self._state is None:
            yield
        else:
            with self._state.local_main_process_first():
                yield

    def wait(self) -> None:
        """Wait until all are here."""
        if self._state is not None:
            self._state.wait_for_everyone()

    def any(self, flag: bool) -> bool:
        """Whether any process says so."""
        if self._state is None:
            return flag
        return bool(self._reduce(torch.tensor([float(flag)], device=self.device), "sum").item())

    def same(self, number: int) -> bool:
        """Whether all processes give the same number."""
        if self._state is None:
            return True
        from accelerate.utils import gather

        numbers = gather(torch.tensor([number], device=self.device))
        return bool((numbers == numbers[0]).all())

    def average(self, loss: Tensor, parameters: Iterable[nn.Parameter]) -> Tensor:
        """Replace gradients by their mean over the processes; returns the mean loss.

        One message after the backward pass: a step of a cascade leaves the parameters of the stages it does
        not pass without gradients, in all processes alike, which wrappers that overlap messages with the
        backward pass must search for.
        """
        if self._state is None:
            return loss
        grads = [p.grad for p in parameters if p.grad is not None]
        flat = self._reduce(torch.cat([loss.reshape(1), *(g.reshape(-1) for g in grads)]), "mean")
        mean, *parts = flat.split([1, *(g.numel() for g in grads)])
        for grad, part in zip(grads, parts, strict=True):
            grad.copy_(part.view(grad.shape))
        return mean[0]

    @torch.no_grad()
    def share(self, tensors: Iterable[Tensor]) -> None:
        """Give all processes the first one's values."""
        if self._state is not None:
            from accelerate.utils import broadcast

            for tensor in tensors:
                tensor.copy_(broadcast(tensor.clone()))

    def close(self) -> None:
        """Part; nothing may be reduced afterwards.

        Not after an error: parting may wait for the others, and these for a message from this process.
        """
        if self._state is not None:
            self._state.destroy_process_group()

    @staticmethod
    def _reduce(value: Tensor, how: str) -> Tensor:
        from accelerate.utils import reduce

        return reduce(value, how)


def _accelerate(cpu: bool) -> Any:
    try:
        from accelerate import PartialState
    except ImportError as error:
        raise ClitZooError(
            "training in several processes needs accelerate: pip install 'clit-zoo[train]'"
        ) from error
    threads = torch.get_num_threads()  # accelerate sets its own number on CPUs
    state = PartialState(cpu=cpu, timeout=PATIENCE)
    torch.set_num_threads(threads)
    return state
