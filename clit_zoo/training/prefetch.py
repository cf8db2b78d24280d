"""The batches of coming steps, drawn in threads while the device computes."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def prefetched(
    draw: Callable[[int], T], steps: range, threads: int = 1
) -> Iterator[Iterator[tuple[T, float]]]:
    """``draw(step)`` for each step in order, and the seconds that it was waited for.

    Resizing and copying release Python's lock, so ``threads`` draw at a time, and the decoded pictures need
    no copies. What was drawn in advance is dropped at the end.
    """
    left = iter(steps)
    with ThreadPoolExecutor(max_workers=threads, thread_name_prefix="patches") as pool:
        ahead = deque(pool.submit(draw, step) for step in islice(left, threads + 1))

        def take() -> Iterator[tuple[T, float]]:
            while ahead:
                begin = time.perf_counter()
                batch = ahead.popleft().result()
                waited = time.perf_counter() - begin
                ahead.extend(pool.submit(draw, step) for step in islice(left, 1))
                yield batch, waited

        try:
            yield take()
        finally:
            pool.shutdown(cancel_futures=True)
