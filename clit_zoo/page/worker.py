"""One thread that computes: clients take turns, and of each the newest request comes first."""

import asyncio
import threading
from bisect import insort
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from .refusal import Refusal

MAX_WAITING = 512
"""Tasks that may wait; of more, the asker's oldest is refused."""


@dataclass(eq=False)
class _Task:
    number: int
    client: str
    steps: Iterator[Any]
    future: Future = field(default_factory=Future)


class Worker:
    """Does tasks step by step in a thread of its own.

    A task is an iterator; between two of its steps others may come first. What it returns (a generator's
    ``return``) is the result. A task whose future is cancelled, or settled by others, is
    dropped before its next step.
    """

    def __init__(self, name: str):
        self._changed = threading.Condition()
        self._waiting: OrderedDict[str, list[_Task]] = OrderedDict()
        self._numbers, self._stopped = count(), False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, client: str, steps: Iterator[Any]) -> Future:
        """A task's future.

        Args:
            client: who asks; a new client waits for one step of each of the others at most.
            steps: what to do.

        Raises:
            Refusal: too many tasks wait, all of them other clients'.
        """
        with self._changed:
            task = _Task(next(self._numbers), client, steps)
            own = self._waiting.get(client)
            if len(self) >= MAX_WAITING:
                busy = Refusal(503, "too many requests are waiting; ask again later")
                if not own:
                    raise busy
                _settle(own.pop(0), error=busy)
            self._put(task)
            self._changed.notify()
        task.future.add_done_callback(lambda future: self._drop(task))
        return task.future

    def __len__(self) -> int:
        with self._changed:
            return sum(len(tasks) for tasks in self._waiting.values())

    def run(self, client: str, work: Callable[[], Any]) -> Future:
        """The future of a task of one step."""

        def steps() -> Iterator[Any]:
            return work()
            yield

        return self.submit(client, steps())

    def join(self, seconds: float) -> None:
        """Wait for the end of the step under way, after ``stop``."""
        self._thread.join(seconds)

    def stop(self) -> None:
        """Refuse what waits and end after the step under way."""
        with self._changed:
            self._stopped = True
            tasks = [task for own in self._waiting.values() for task in own]
            self._waiting.clear()
            self._changed.notify()
        for task in tasks:
            task.future.cancel()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopped)
                if self._stopped:
                    return
                client, own = next(iter(self._waiting.items()))
                task = own.pop()
                self._waiting.move_to_end(client)
                if not own:
                    del self._waiting[client]
            self._step(task)

    def _step(self, task: _Task) -> None:
        if task.future.done():
            return
        try:
            next(task.steps)
        except StopIteration as end:
            _settle(task, result=end.value)
        except BaseException as error:
            _settle(task, error=error)
        else:
            with self._changed:
                if self._stopped:
                    task.future.cancel()
                elif not task.future.done():
                    self._put(task)

    def _put(self, task: _Task) -> None:
        insort(self._waiting.setdefault(task.client, []), task, key=lambda other: other.number)

    def _drop(self, task: _Task) -> None:
        with self._changed:
            own = self._waiting.get(task.client, [])
            if task in own:
                own.remove(task)
            if not own:
                self._waiting.pop(task.client, None)


def shared(future: Future) -> "asyncio.Future[Any]":
    """A future to await that others await too: who leaves does not cancel it."""
    own = asyncio.wrap_future(future)
    # if all have left nobody asks for its error, and asyncio would print it
    own.add_done_callback(lambda done: done.cancelled() or done.exception())
    return asyncio.shield(own)


def _settle(task: _Task, *, result: Any = None, error: BaseException | None = None) -> None:
    with suppress(InvalidStateError):  # cancelled or settled meanwhile
        if error is None:
            task.future.set_result(result)
        else:
            task.future.set_exception(error)
