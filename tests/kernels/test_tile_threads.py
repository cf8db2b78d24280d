"""Sharing tiles out to threads: each once, torch's settings left as they were, errors and forks survived."""

import multiprocessing
import os
import threading

import pytest
import torch
from op_cases import QUERIES, cells, random_map, stage_weights

from clit_kernels import StageCall
from clit_kernels.decode_stage import decode_stage_torch
from clit_kernels.decode_stage import torch as plain
from clit_kernels.tile_threads import run_tiles

CPU = torch.device("cpu")


@pytest.fixture
def threads():
    """Three compute threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield 3
    torch.set_num_threads(before)


def test_every_tile_once_in_single_threaded_workers(threads):
    done, settings, together = [], set(), threading.Barrier(threads)

    def work(tiles):
        together.wait(10)
        settings.add((torch.get_num_threads(), torch.is_grad_enabled(), torch.is_inference_mode_enabled()))
        done.extend((tile, threading.get_ident()) for tile in tiles)

    run_tiles(range(100), work, CPU)
    assert sorted(tile for tile, _ in done) == list(range(100))
    assert settings == {(1, False, False)}
    assert threading.get_ident() not in {thread for _, thread in done}
    assert torch.get_num_threads() == threads
    inherited = []
    fresh = threading.Thread(target=lambda: inherited.append(torch.get_num_threads()))
    fresh.start()
    fresh.join()
    assert inherited == [threads]


def test_few_tiles_and_one_thread_stay_here(threads):
    where = []
    run_tiles([1, 2], lambda tiles: where.append((list(tiles), threading.get_ident())), CPU)
    torch.set_num_threads(1)
    run_tiles([1, 2, 3], lambda tiles: where.append((list(tiles), threading.get_ident())), CPU)
    here = threading.get_ident()
    assert where == [([1, 2], here), ([1, 2, 3], here)]


def test_an_error_stops_the_others(threads):
    done = []

    def work(tiles):
        for tile in tiles:
            if tile == 5:
                raise RuntimeError("tile 5")
            done.append(tile)

    with pytest.raises(RuntimeError, match="tile 5"):
        run_tiles(range(10), work, CPU)
    run_tiles(range(5), work, CPU)  # the workers still serve
    assert 5 not in done and done[-5:].count(4) == 1


def stage_result() -> torch.Tensor:
    size, queries = QUERIES["grid x2.5"]
    maps = [random_map(8, size, seed) for seed in (1, 2, 3)]
    return decode_stage_torch(StageCall(*maps, queries, stage_weights(8, 2, 1), cells(queries)))


@pytest.mark.parametrize("inference", [False, True])
def test_results_do_not_depend_on_threads(threads, inference, monkeypatch):
    monkeypatch.setattr(plain, "TILE_BYTES", 4000)
    monkeypatch.setattr(plain, "MOST_BYTES", 4000)
    with torch.inference_mode(inference):
        found = stage_result()
        torch.set_num_threads(1)
        assert torch.equal(found, stage_result())


def _in_a_fork(pipe):
    torch.set_num_threads(3)
    found = []
    run_tiles(range(9), lambda tiles: found.extend(tiles), CPU)
    pipe.send(sorted(found))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_makes_its_own_workers(threads):
    run_tiles(range(9), lambda tiles: list(tiles), CPU)
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_in_a_fork, args=(send,))
    process.start()
    try:
        assert receive.poll(20), "the fork waits for workers it does not have"
        assert receive.recv() == list(range(9))
    finally:
        process.kill()
        process.join()
