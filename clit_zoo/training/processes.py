"""The processes of a run, one or several that torchrun started, and the signals that stop them."""

import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ClitZooError, said_by_system
from ..pretrained import pick_device

PATIENCE = timedelta(hours=6)
"""How long the others wait while the first process decodes pictures or validates."""


class Processes:
    """One process, or those that torchrun started: ``Processes.joined``.

    As a context manager it parts from the others at the end. An error in one of several is printed and ends
    that process at once, upon which torchrun ends the others: taking it apart could wait for them, while they
    wait for a message from it.

    Args:
        device: as ``from_pretrained`` takes it.

    Attributes:
        count: how many there are.
        rank: which this one is.
        device: where this one computes.
    """

    def __init__(self, device: str | torch.device = "auto"):
        self.count, self.rank, self.device = 1, 0, pick_device(device)
        self._state: Any = None

    @classmethod
    def joined(cls, device: str | torch.device = "auto") -> "Processes":
        """All processes of ``torchrun --nproc-per-node N``, brought together by accelerate; else this one.

        Args:
            device: with several processes "auto" gives each a GPU of its own.

        Raises:
            ClitZooError: they cannot be brought together.
            ModuleNotFoundError: accelerate is missing.
        """
        found, count = cls(device), int(os.environ.get("WORLD_SIZE", "1"))
        if count > 1:
            found._state = _accelerate(cpu=found.device.type != "cuda")
            found.count, found.rank = found._state.num_processes, found._state.process_index
            found.device = found._state.device
            if found.count != count:
                raise ClitZooError(
                    f"torchrun started {count} processes, but {found.count} came together: start fewer, one "
                    "for each GPU, or pass --device cpu"
                )
        return found

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self._state is None:
            return
        if error is None:
            self._state.destroy_process_group()
            return
        if isinstance(error, ClitZooError | OSError):
            said = str(error) if isinstance(error, ClitZooError) else said_by_system(error)
            print(f"Error: {said}", file=sys.stderr)
        elif isinstance(error, Exception):  # not what a signal raises
            traceback.print_exception(error)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(1)

    @property
    def main(self) -> bool:
        """Whether this one writes files and talks."""
        return self.rank == 0

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

        Stages that a step does not pass have no gradients. DistributedDataParallel would need
        ``find_unused_parameters``, so gradients are reduced in one message after the backward pass.
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

    @staticmethod
    def _reduce(value: Tensor, how: str) -> Tensor:
        from accelerate.utils import reduce

        return reduce(value, how)


def _accelerate(cpu: bool) -> Any:
    from accelerate import PartialState

    threads = torch.get_num_threads()  # accelerate sets its own number on CPUs
    state = PartialState(cpu=cpu, timeout=PATIENCE)
    torch.set_num_threads(threads)
    return state


class StopSignal:
    """While it lasts, SIGTERM and the first Ctrl-C only set ``number``; a second Ctrl-C interrupts."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        if self.number is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number
