"""Tiles shared out to one single-threaded worker per core.

torch's own threads meet at the end of every operation, thousands of times for a picture. Where a core has
other work to do they wait for it each time: a decode of half a second took 8 minutes on two cores that other
processes kept busy. Workers that take tile after tile never meet, and on free cores they are faster, too.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Barrier, Lock
from typing import TypeVar

import torch

T = TypeVar("T")


def run_tiles(tiles: Sequence[T], work: Callable[[Iterator[T]], None], device: torch.device) -> None:
    """Have ``work`` done on all tiles: in as many threads as torch uses on a CPU, at once on other devices.

    ``work`` is called once in every thread, with an iterator over the tiles that fall to it, so that it can
    keep a buffer. Threads record no gradients.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1 or len(tiles) < threads:
        work(iter(tiles))
        return
    waiting: SimpleQueue[T] = SimpleQueue()
    for tile in tiles:
        waiting.put(tile)
    inference = torch.is_inference_mode_enabled()

    def drain() -> None:
        with torch.inference_mode(inference), torch.no_grad():
            work(_take(waiting))

    pool = _pool(threads)
    futures = [pool.submit(drain) for _ in range(threads)]
    try:
        for future in futures:
            future.result()
    except BaseException:  # an error, or Ctrl-C: leave nothing for the workers to go on with
        for _ in _take(waiting):
            pass
        raise


def _take(waiting: SimpleQueue[T]) -> Iterator[T]:
    with suppress(Empty):
        while True:
            yield waiting.get_nowait()


_pools: dict[int, ThreadPoolExecutor] = {}
_lock = Lock()


def _pool(threads: int) -> ThreadPoolExecutor:
    """Workers in which torch computes with one thread; all calls in the process share them."""
    with _lock:
        if threads not in _pools:
            pool = ThreadPoolExecutor(threads, "clit-tile", _compute_alone)
            together = Barrier(threads + 1)
            for _ in range(threads):
                pool.submit(together.wait)
            together.wait()
            torch.set_num_threads(threads)  # new threads take over the number that any thread has set last
            _pools[threads] = pool
        return _pools[threads]


def _compute_alone() -> None:
    """Let torch use one thread in the calling thread."""
    torch.get_num_threads()  # a thread's first use sets its number to the process', even after the next line
    torch.set_num_threads(1)


def _after_fork() -> None:
    """A forked process has none of its parent's threads."""
    global _lock
    _lock = Lock()
    _pools.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
