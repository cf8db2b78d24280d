"""Pictures shared out among devices: a process for each, which takes the next when it is free."""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from ...errors import ClitZooError
from ..allocator import keep_freed_memory
from .plan import Job

Enlarge = Callable[[Job, Callable[[float], None]], None]

# Processes that begin anew: a fork of one that has used a GPU cannot use it.
_NEW = multiprocessing.get_context("spawn")


def share_out(
    jobs: Sequence[Job],
    devices: Sequence[str],
    ready: Callable[[str], Enlarge],
    progress: Callable[[Job, float], None],
    finished: Callable[[Job], None],
    threads: int = 1,
) -> None:
    """Enlarge pictures on several devices at once.

    A picture whose process ends before it is done has failed, and the other processes go on.

    Args:
        jobs: what to do, begun in this order.
        devices: their names; one may stand twice.
        ready: makes, of a device's name and in its process, what enlarges there; it is pickled.
        progress: is told a job and the share of it that is done.
        finished: is told each job that has ended.
        threads: that each process may compute with.

    Raises:
        ClitZooError, OSError: what ``ready`` raised, when all have been stopped.
    """
    workers = [_Worker(device, ready, threads) for device in devices]
    try:
        _serve(deque(jobs), workers, progress, finished)
    except BaseException:
        for worker in workers:
            worker.process.terminate()
        raise
    finally:
        for worker in workers:
            worker.process.join()


class _Worker:
    """A device's process, and the job that it is at."""

    def __init__(self, device: str, ready: Callable[[str], Enlarge], threads: int):
        self.pipe, there = _NEW.Pipe()
        self.job: Job | None = None
        self.process = _NEW.Process(target=_work, args=(there, device, ready, threads), daemon=True)
        self.process.start()
        there.close()  # so that the pipe ends with the process

    def begin(self, job: Job | None) -> None:
        self.job = job
        self.pipe.send(job)


def _serve(
    waiting: deque[Job],
    workers: Sequence[_Worker],
    progress: Callable[[Job, float], None],
    finished: Callable[[Job], None],
) -> None:
    alive: dict[Any, _Worker] = {worker.pipe: worker for worker in workers}
    while alive:
        for pipe in wait(list(alive)):
            worker = alive[pipe]
            try:
                told = worker.pipe.recv()
                if isinstance(told, Exception):
                    raise told
                if isinstance(told, float) and worker.job is not None:
                    progress(worker.job, told)
                    continue
                if worker.job is not None:
                    vars(worker.job).update(vars(told))
                    finished(worker.job)
                    worker.job = None
                worker.begin(waiting.popleft() if waiting else None)
            except (EOFError, ConnectionError):  # the process has ended
                del alive[pipe]
                if worker.job is not None:
                    worker.process.join()
                    worker.job.fail(_ended(worker.process.exitcode or 0))
                    finished(worker.job)
    for job in waiting:
        job.fail("none of the processes is left that enlarge; take fewer devices.")
        finished(job)


def _ended(code: int) -> str:
    how = f"was ended by signal {-code}" if code < 0 else f"has ended with code {code}"
    return f"the process that enlarged it {how}; run again with --skip-existing, on fewer devices if need be."


def _work(pipe: Connection, device: str, ready: Callable[[str], Enlarge], threads: int) -> None:
    """In the process: enlarge what comes through the pipe until None does, or nothing more can."""
    # Ctrl-C reaches every process; the first one ends the others
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop)
    keep_freed_memory()
    os.environ["OMP_NUM_THREADS"] = str(threads)  # what has been shared out is not measured again
    torch.set_num_threads(threads)
    try:
        enlarge = ready(device)
    except (ClitZooError, OSError) as error:
        pipe.send(error)
        return
    pipe.send(None)
    try:
        while (job := pipe.recv()) is not None:
            job.run(enlarge, lambda share: pipe.send(float(share)))
            pipe.send(job)
    except (EOFError, ConnectionError):  # nobody is left to enlarge for
        return


def _stop(number: int, frame: Any) -> None:
    raise SystemExit(128 + number)
