"""One thread that computes: machines take turns, and so do the clients of each; of those the newest request
comes first.
"""

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
"""Tasks that may wait; of more, the oldest of the machine that has most is refused."""


@dataclass(eq=False)
class _Task:
    number: int
    machine: str
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
        self._waiting: OrderedDict[str, OrderedDict[str, list[_Task]]] = OrderedDict()
        self._numbers, self._stopped = count(), False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, client: str, steps: Iterator[Any], machine: str = "") -> Future:
        """A task's future; a Refusal is its error where too many wait.

        Args:
            client: who asks; it waits for one step of each other client of its machine at most.
            steps: what to do.
            machine: where the client is; whatever clients it says it has, it takes one turn in each round.
        """
        with self._changed:
            task = _Task(next(self._numbers), machine, client, steps)
            self._put(task)
            too_many = self._most()[0] if len(self) > MAX_WAITING else None
            self._changed.notify()
        task.future.add_done_callback(lambda future: self._drop(task))
        if too_many is not None:
            _settle(too_many, error=Refusal(503, "too many requests are waiting; ask again later"))
        return task.future

    def __len__(self) -> int:
        with self._changed:
            return sum(len(tasks) for clients in self._waiting.values() for tasks in clients.values())

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
            tasks = [task for machine in self._waiting for task in self._of(machine)]
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
                machine, clients = next(iter(self._waiting.items()))
                client, own = next(iter(clients.items()))
                task = own.pop()
                self._waiting.move_to_end(machine)
                clients.move_to_end(client)
                self._prune(task)
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
        clients = self._waiting.setdefault(task.machine, OrderedDict())
        insort(clients.setdefault(task.client, []), task, key=lambda other: other.number)

    def _drop(self, task: _Task) -> None:
        with self._changed:
            if task.machine in self._waiting and task in self._of(task.machine):
                self._waiting[task.machine][task.client].remove(task)
                self._prune(task)

    def _prune(self, task: _Task) -> None:
        """Let go of the task's client and machine where nothing more waits."""
        clients = self._waiting[task.machine]
        if not clients[task.client]:
            del clients[task.client]
        if not clients:
            del self._waiting[task.machine]

    def _of(self, machine: str) -> list[_Task]:
        """A machine's tasks, the oldest first."""
        tasks = (task for own in self._waiting[machine].values() for task in own)
        return sorted(tasks, key=lambda task: task.number)

    def _most(self) -> list[_Task]:
        """The tasks of the machine that has most."""
        return max((self._of(machine) for machine in self._waiting), key=len)


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
