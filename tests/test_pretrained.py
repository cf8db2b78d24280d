"""Names to models: what ``create_model`` and ``from_pretrained`` take, and the card that stays with them."""

import os
import subprocess
import sys

import pytest
import torch

import clit_zoo
from clit_zoo.errors import ConfigError, is_out_of_memory
from clit_zoo.pretrained import pick_device
from clit_zoo.zoo import hub

SMALL = {"encoder": {"blocks": 1, "channels": 8}, "decoder": {"dim": 8, "heads": 2, "hidden_dims": [8]}}


def test_a_changed_model_can_have_a_name():
    assert clit_zoo.create_model("edsr-light-lit", name="mine", **SMALL).config.name == "mine"


def test_letter_case_does_not_matter():
    assert clit_zoo.from_pretrained("EDSR-Light-LIT", device="cpu").config.name == "edsr-light-lit"
    assert clit_zoo.create_model("Edsr-Light-Lit", **SMALL).config.name == "edsr-light-lit"


def test_a_giant_is_refused():
    with pytest.raises(ConfigError, match=r"asks for [\d,]+ parameters"):
        clit_zoo.create_model("rdn-clit", decoder={"dim": 1024, "radius": 12, "hidden_dims": [2048]})


SCARCE = """
import os, resource, sys, torch
from clit_zoo import from_pretrained
from clit_zoo.errors import ClitZooError
pages = int(open("/proc/self/statm").read().split()[0])
for room in (0.5, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 200):
    limit = pages * resource.getpagesize() + int(room * 2**20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    try:
        from_pretrained("edsr-light-lit", device="cpu")
        words = "loaded"
    except ClitZooError as error:
        words = str(error)
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(words)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc and RLIMIT_AS")
def test_without_memory_there_is_one_sentence():
    # a thread that OpenMP cannot start ends the process
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", SCARCE], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    words = done.stdout.splitlines()
    assert words[-1] == "loaded" and words.count("loaded") < len(words)
    for sentence in set(words) - {"loaded"}:
        assert sentence.startswith("edsr-light-lit does not fit into the memory of cpu: close other programs")


@pytest.mark.parametrize(
    ("error", "yes"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"),
            True,
        ),
        (RuntimeError("could not create a primitive"), True),
        (RuntimeError("unable to mmap 4662220 bytes from file <x>: Cannot allocate memory (12)"), True),
        (OSError(12, "Cannot allocate memory"), True),
        (RuntimeError("shape mismatch"), False),
        (OSError(28, "No space left on device"), False),
    ],
)
def test_what_lack_of_memory_looks_like(error, yes):
    assert is_out_of_memory(error) is yes


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("xpu", "none that this library knows"),
        ("meta", "none that"),
        ("gpu", "is unknown"),
        (None, "unknown"),
    ],
)
def test_devices_refused(device, words):
    with pytest.raises(ConfigError, match=words):
        pick_device(device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_device_that_is_not_here():
    with pytest.raises(ConfigError, match="'cuda' is not available on this machine: take auto or cpu"):
        pick_device(torch.device("cuda"))


def test_the_card_travels(tmp_path, monkeypatch):
    made = clit_zoo.create_model("edsr-light-lit", **SMALL)
    assert made.card is None
    plain = (made.save_pretrained(tmp_path / "plain") / "README.md").read_text(encoding="utf-8")
    assert "# edsr-light-lit" in plain
    text = "# Mine\n\n## Training\n\nOf my own: «ü».\n"
    folder = made.save_pretrained(tmp_path / "a", card=text)
    loaded = clit_zoo.from_pretrained(folder, device="cpu")
    assert loaded.card == text
    again = loaded.save_pretrained(tmp_path / "b")
    assert (again / "README.md").read_text(encoding="utf-8") == text
    pushed = []

    def push(where, repo_id, **options):
        pushed.append((where, repo_id, options))
        assert hub.files_in(hub.Path(where), "").config_path.with_name("README.md").read_text() == text
        return hub.Published("address", "0" * 40, "0" * 64)

    monkeypatch.setattr(hub, "push", push)
    assert loaded.push_to_hub("me/mine", private=True) == "address"
    assert pushed[0][1:] == ("me/mine", {"private": True, "token": None})
    loaded.card = "other"
    other = loaded.save_pretrained(tmp_path / "c")
    assert (other / "README.md").read_text() == "other"
    (folder / "README.md").unlink()
    assert clit_zoo.from_pretrained(folder, device="cpu").card is None
