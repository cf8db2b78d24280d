"""Turns, newest first, cancelled work; answers kept within bytes and computed once."""

import asyncio
import threading
from concurrent.futures import CancelledError

import pytest

from clit_zoo.page import worker as worker_module
from clit_zoo.page.cache import Answers
from clit_zoo.page.refusal import Refusal
from clit_zoo.page.worker import Worker


@pytest.fixture
def worker():
    worker = Worker("test")
    yield worker
    worker.stop()
    worker._thread.join(5)
    assert not worker._thread.is_alive()


@pytest.fixture
def held(worker):
    """The worker busy until released, and the list of what it then does."""
    hold, busy, done = threading.Event(), threading.Event(), []

    def first():
        busy.set()
        hold.wait(5)
        yield

    worker.submit("first", first())
    assert busy.wait(5)
    yield hold, done
    hold.set()


def task(done, name, steps=1, result=None):
    for step in range(steps):
        done.append((name, step))
        yield
    return result


def test_clients_take_turns_and_the_newest_request_comes_first(worker, held):
    hold, done = held
    futures = [worker.submit(client, task(done, client + str(i))) for client in "ab" for i in range(3)]
    hold.set()
    for future in futures:
        future.result(5)
    assert [name for name, _ in done] == ["a2", "b2", "a1", "b1", "a0", "b0"]


def test_a_machine_takes_one_turn_by_whatever_names(worker, held):
    hold, done = held
    futures = [worker.submit(f"viewer {i}", task(done, f"many {i}"), "one") for i in range(20)]
    futures += [worker.submit("", task(done, f"alone {i}"), "another") for i in range(3)]
    hold.set()
    for future in futures:
        future.result(5)
    names = [name.split()[0] for name, _ in done]  # each takes a turn more to end
    assert names[:12].count("alone") == 3 and names.count("many") == 20


def test_others_come_between_the_steps_of_a_long_task(worker, held):
    hold, done = held
    long = worker.submit("a", task(done, "long", 5, result="whole"))
    newer = [worker.submit("a", task(done, "newer")), worker.submit("b", task(done, "b"))]
    hold.set()
    assert long.result(5) == "whole"
    assert all(future.done() for future in newer)
    assert done.index(("newer", 0)) < done.index(("b", 0)) < done.index(("long", 1))


def test_what_is_cancelled_is_not_done(worker, held):
    hold, done = held
    futures = [worker.submit("a", task(done, str(i))) for i in range(4)]
    for future in futures[1:]:
        assert future.cancel()
    assert len(worker) == 1
    hold.set()
    futures[0].result(5)
    assert done == [("0", 0)]


def test_a_cancelled_task_ends_before_its_next_step(worker):
    begun, go = threading.Event(), threading.Event()
    reached = []

    def steps():
        begun.set()
        go.wait(5)
        yield
        reached.append("second")
        yield

    future = worker.submit("a", steps())
    begun.wait(5)
    future.cancel()
    go.set()
    assert worker.submit("a", task([], "after", result=3)).result(5) == 3
    assert not reached and future.cancelled()


def test_errors_reach_the_one_who_asked(worker):
    def fails():
        yield
        raise KeyError("why")

    future = worker.submit("a", fails())
    with pytest.raises(KeyError, match="why"):
        future.result(5)
    assert worker.submit("a", task([], "next", result=1)).result(5) == 1


def test_the_queue_is_bounded(worker, held, monkeypatch):
    monkeypatch.setattr(worker_module, "MAX_WAITING", 3)
    hold, done = held
    futures = [worker.submit(str(i), task(done, str(i)), "one") for i in range(5)]
    other = worker.submit("b", task(done, "b"), "another")
    for future in futures[:3]:  # the oldest of the machine that has most
        with pytest.raises(Refusal, match="too many"):
            future.result(5)
    hold.set()
    for future in (*futures[3:], other):
        future.result(5)
    assert sorted(name for name, _ in done) == ["3", "4", "b"]


def test_stopped(held, worker):
    waiting = worker.submit("a", task([], "a"))
    worker.stop()
    with pytest.raises(CancelledError):
        waiting.result(5)


def test_answers_are_kept_within_their_bytes():
    computed = []

    async def run():
        answers = Answers(100)

        async def ask(key, length=20):
            async def compute():
                computed.append(key)
                return bytes(length)

            return await answers.get(key, compute)

        for key in [1, 2, 3, 1, 4, 5, 1, 6, 2]:
            await ask(key)
        assert answers.nbytes == 100 and computed == [1, 2, 3, 4, 5, 6, 2]
        await ask("large", 30)  # it would take the place of many
        assert answers.nbytes == 100
        answers.forget(lambda key: key in (1, 2))
        assert answers.nbytes == 60

    asyncio.run(run())


def test_equal_requests_are_computed_once_and_cancelled_when_all_have_left():
    async def run():
        answers, begun, ended = Answers(100), [], []

        async def compute():
            begun.append(1)
            try:
                await asyncio.sleep(10 if len(begun) == 1 else 0.01)
            except asyncio.CancelledError:
                ended.append("cancelled")
                raise
            return b"x"

        both = [asyncio.ensure_future(answers.get("k", compute)) for _ in range(2)]
        await asyncio.sleep(0.01)
        both[0].cancel()
        await asyncio.sleep(0.01)
        assert begun == [1] and not ended
        both[1].cancel()
        await asyncio.sleep(0.01)
        again = await answers.get("k", compute)
        assert again == b"x" and begun == [1, 1] and ended == ["cancelled"]

    asyncio.run(run())
