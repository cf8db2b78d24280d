"""Outputs that are written row by row: killed on the way, they go on, and come out the same."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tifffile
import torch

import clit_zoo
from clit_zoo import imaging
from clit_zoo.commands.upscale import enlarge, memory
from clit_zoo.imaging import large, tiff_rows
from clit_zoo.zoo import registry

RUN = """
import sys
from clit_zoo import tiles
from clit_zoo.commands import cli
from clit_zoo.imaging import large, tiff_rows
tiles.WHOLE_PIXELS = tiff_rows.LAZY_PIXELS = large.LARGE_BYTES = 1000
tiles.TILE_SIDE = 40
cli.main()
"""


def scan(path):
    samples = np.random.default_rng(0).integers(0, 256, (260, 90, 3), dtype=np.uint8)
    tifffile.imwrite(path, samples, photometric="rgb", rowsperstrip=16, compression="zlib")


def arguments(tiny_model, *more):
    return [
        "upscale",
        "scan.tif",
        "-m",
        str(tiny_model),
        "--fp32",
        "--device",
        "cpu",
        *(more if "--scale" in more else (*more, "-s", "3")),
    ]


@pytest.mark.slow  # four processes that import torch
@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_killed_twice_the_result_is_equal(tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scan("scan.tif")
    command = [sys.executable, "-c", RUN, *arguments(tiny_model)]
    subprocess.run([*command, "-o", "whole.tif"], check=True, timeout=200)
    for number in (signal.SIGKILL, signal.SIGINT):
        spool, size = tmp_path / ".out.tif.rows", 0
        size = spool.stat().st_size if spool.exists() else 4096
        run = subprocess.Popen([*command, "-o", "out.tif"], stderr=subprocess.PIPE, text=True)
        while run.poll() is None and not (spool.exists() and spool.stat().st_size > size):
            time.sleep(0.002)
        run.send_signal(number)
        _, told = run.communicate(timeout=100)
        if number == signal.SIGINT and run.returncode:
            assert "the same command goes on from there" in told and run.returncode == 130
        assert run.returncode == 0 or not (tmp_path / "out.tif").exists()
    if not (tmp_path / "out.tif").exists():
        subprocess.run([*command, "-o", "out.tif"], check=True, timeout=200)
    assert not spool.exists()
    np.testing.assert_array_equal(tifffile.imread("out.tif"), tifffile.imread("whole.tif"))


def test_by_rows_and_whole_are_the_same(run, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)
    scan("scan.tif")
    assert run(*arguments(tiny_model, "-o", "a.tif")).code == 0
    monkeypatch.setattr(large, "LARGE_BYTES", 1000)
    monkeypatch.setattr(tiff_rows, "LAZY_PIXELS", 1000)
    result = run(*arguments(tiny_model, "-o", "b.tif"))
    assert result.code == 0, result.err
    np.testing.assert_array_equal(tifffile.imread("a.tif"), tifffile.imread("b.tif"))
    assert imaging.read("a.tif").metadata == imaging.read("b.tif").metadata


def test_what_does_not_fit_is_refused_with_what_does(run, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)
    scan("scan.tif")
    monkeypatch.setattr(enlarge, "SMALL_PIXELS", 0)
    for module in (enlarge, memory):
        monkeypatch.setattr(module, "resident_bytes", lambda: 0)
    monkeypatch.setattr(enlarge, "free_bytes", lambda: memory.PROCESS_BYTES + 300_000_000)
    result = run(*arguments(tiny_model, "-o", "a.webp", "--scale", "60"))
    assert result.code == 1 and not os.path.exists("a.webp")
    assert "GB of memory" in result.err and "--format tiff writes it row by row" in result.err
    assert run(*arguments(tiny_model, "-o", "a.webp")).code == 0


@pytest.mark.parametrize("name", clit_zoo.list_models("edsr-light-*"))
def test_every_light_model_can_be_estimated(name):
    estimate = memory.Estimate(registry.get(name).config, torch.float32)
    small, large = (estimate.memory((h, 500), (2 * h, 1000), None, 3, True) for h in (200, 400))
    assert memory.PROCESS_BYTES < small < large < 8e9
