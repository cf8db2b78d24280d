"""The batches of coming steps, drawn in threads while the device computes."""

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefetcher(Generic[T]):
    """``draw(step)`` for step = first, first + 1, ... in order, ``threads`` of them at a time.

    Resizing and copying release Python's lock, so threads do, and the decoded pictures need no copies.

    Attributes:
        waited: seconds that the last ``take`` has waited.
    """

    def __init__(self, draw: Callable[[int], T], first: int, last: int, threads: int = 1):
        self.draw, self.next, self.last = draw, first, last
        self.pool = ThreadPoolExecutor(max_workers=max(1, threads), thread_name_prefix="patches")
        self.ahead: deque[Future[T]] = deque()
        self.depth = max(1, threads) + 1
        self.waited = 0.0
        self._fill()

    def take(self) -> T:
        """The next batch, waiting for it if need be."""
        begin = time.perf_counter()
        batch = self.ahead.popleft().result()
        self.waited = time.perf_counter() - begin
        self._fill()
        return batch

    def _fill(self) -> None:
        while self.next < self.last and len(self.ahead) < self.depth:
            self.ahead.append(self.pool.submit(self.draw, self.next))
            self.next += 1

    def close(self) -> None:
        """Drop what was drawn in advance."""
        self.pool.shutdown(wait=True, cancel_futures=True)
