"""Answers kept, within a number of bytes; of equal requests at one time only one is computed."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass


@dataclass
class _UnderWay:
    task: asyncio.Task
    waiting: int = 0


class Answers:
    """The bytes of recent answers. For one event loop.

    Args:
        capacity: bytes kept at most.
    """

    def __init__(self, capacity: int):
        self.capacity, self.nbytes = capacity, 0
        self._kept: OrderedDict[Hashable, bytes] = OrderedDict()
        self._under_way: dict[Hashable, _UnderWay] = {}

    async def get(self, key: Hashable, compute: Callable[[], Awaitable[bytes]]) -> bytes:
        """The answer of that key, computed if need be; when all who wait for it leave, that is cancelled."""
        if (found := self._kept.get(key)) is not None:
            self._kept.move_to_end(key)
            return found
        if key not in self._under_way:
            self._under_way[key] = _UnderWay(asyncio.ensure_future(compute()))
        mine = self._under_way[key]
        mine.waiting += 1
        try:
            data: bytes = await asyncio.shield(mine.task)
        finally:
            mine.waiting -= 1
            if not mine.waiting:
                mine.task.cancel()
                self._under_way.pop(key, None)
        self._keep(key, data)
        return data

    def forget(self, wanted: Callable[[Hashable], bool]) -> None:
        """Let go of the answers whose key is ``wanted``."""
        for key in [key for key in self._kept if wanted(key)]:
            self.nbytes -= len(self._kept.pop(key))

    def _keep(self, key: Hashable, data: bytes) -> None:
        if key in self._kept or len(data) > self.capacity // 4:
            return
        self._kept[key] = data
        self.nbytes += len(data)
        while self.nbytes > self.capacity:
            self.nbytes -= len(self._kept.popitem(last=False)[1])
