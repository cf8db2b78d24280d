"""Reading strangers' weights and writing our own."""

import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

from clit_zoo.errors import ClitZooError, WeightsError, WeightsNotFoundError
from clit_zoo.model import SuperResolver
from clit_zoo.zoo import hub, registry
from clit_zoo.zoo.card import read_card
from clit_zoo.zoo.config import ModelConfig
from clit_zoo.zoo.folder import (
    HERE,
    files_in,
    model_card,
    read_weights,
    write_model_folder,
)

CONFIG = registry.get("edsr-lit").config
TINY = ModelConfig(
    "tiny",
    {"name": "edsr", "channels": 8, "blocks": 1},
    {"name": "clit", "dim": 8, "heads": 2, "radius": 1, "stages": 1, "hidden_dims": [8, 8]},
)
SHAPES = {"a.weight": (3, 2), "a.bias": (3,)}


def state(**changes):
    return {"a.weight": torch.arange(6.0).reshape(3, 2), "a.bias": torch.ones(3)} | changes


def saved(tmp_path, tensors):
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file({name: np.asarray(tensor) for name, tensor in tensors.items()}, path)
    return path


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_round_trip(tmp_path, dtype):
    tensors = {name: tensor.to(dtype) for name, tensor in state().items()}
    folder = write_model_folder(tmp_path / "new" / "model", CONFIG, tensors, "# card\n")
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    found = read_weights(folder / "model.safetensors", SHAPES)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == dtype and torch.equal(found[name], tensor)
    assert ModelConfig.from_json(folder / "config.json") == CONFIG
    assert (folder / "README.md").read_text() == "# card\n"


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_all_files_have_the_permissions_of_new_ones(tmp_path, mask):
    before = os.umask(mask)
    try:
        folder = write_model_folder(tmp_path / "x", CONFIG, state(), "")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o666 & ~mask}


def test_shared_and_strided_tensors(tmp_path):
    base = torch.arange(9.0).reshape(3, 3)
    folder = write_model_folder(tmp_path / "x", CONFIG, {"a.weight": base.t()[:, :2], "a.bias": base[0]}, "")
    found = read_weights(folder / "model.safetensors", SHAPES)
    assert torch.equal(found["a.weight"], base.t()[:, :2]) and torch.equal(found["a.bias"], base[0])


def test_load(tmp_path):
    made = SuperResolver(TINY)
    folder = write_model_folder(tmp_path / "x", TINY, made.state_dict(), "# card")
    loaded = hub.load(folder)
    assert loaded.config == TINY and loaded.card == "# card"
    assert loaded.state_dict.keys() == made.state_dict().keys()
    for name, tensor in made.state_dict().items():
        assert torch.equal(loaded.state_dict[name], tensor)
    (folder / "config.json").write_text(CONFIG.to_json())
    with pytest.raises(WeightsError, match="does not fit its configuration"):
        hub.load(folder)


class Cards:
    """README.md as it should not be: name -> what makes it, given its path."""

    missing = staticmethod(lambda path: path.unlink())
    folder = staticmethod(lambda path: (path.unlink(), path.mkdir()))
    huge = staticmethod(lambda path: os.truncate(path, 10**12))
    memory = staticmethod(lambda path: (path.unlink(), path.symlink_to("/proc/self/mem")))
    pipe = staticmethod(lambda path: (path.unlink(), os.mkfifo(path)))
    loop = staticmethod(lambda path: (path.unlink(), path.symlink_to(path)))


@pytest.mark.parametrize("case", ["missing", "folder", "huge", "memory", "pipe", "loop"])
def test_a_card_is_an_ornament(tmp_path, case):
    """Without one that can be read the model loads all the same."""
    folder = write_model_folder(tmp_path / "x", TINY, SuperResolver(TINY).state_dict(), "# card")
    getattr(Cards, case)(folder / "README.md")
    assert hub.load(folder).card is None


def test_a_card_that_may_not_be_read(tmp_path, monkeypatch, caplog):
    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "README.md").write_text("# card")
    monkeypatch.setattr(Path, "open", denied)
    assert read_card(tmp_path) is None and "Permission denied" in caplog.text


def test_weights_that_may_not_be_read(tmp_path, monkeypatch):
    """safetensors says "No such file or directory"."""

    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    path = saved(tmp_path, state())
    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(PermissionError):
        read_weights(path, SHAPES)


@pytest.mark.parametrize(
    "tensors, words",
    [
        ({"a.weight": np.zeros((3, 2), "f4")}, ["1 tensor missing (a.bias)"]),
        (state(b=np.zeros(1, "f4")), ["1 tensor unknown (b)"]),
        (state(**{"a.weight": np.zeros((2, 3), "f4")}), ["a.weight", "2×3", "expected 3×2"]),
        (state(**{"a.bias": np.zeros(3, "f8")}), ["a.bias: F64"]),
        (state(**{"a.bias": np.zeros(3, "i8")}), ["a.bias: I64"]),
        (state(**{"a.bias": np.float32([1, np.nan, 1])}), ["not finite", "a.bias"]),
        (state(**{"a.bias": np.float32([1, np.inf, 1])}), ["not finite", "a.bias"]),
        (state(**{f"x{i}": np.zeros(1, "f4") for i in range(9)}), ["9 tensors unknown", "and 5 more"]),
    ],
)
def test_tensors_refused(tmp_path, tensors, words):
    path = saved(tmp_path, tensors)
    with pytest.raises(WeightsError) as error:
        read_weights(path, SHAPES)
    for word in [*words, str(path)]:
        assert word in str(error.value)


def damaged(data: bytes) -> dict[str, bytes]:
    header = json.dumps(
        {"a.weight": {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 24]}}
    ).encode()
    return {
        "empty": b"",
        "truncated": data[:-5],
        "longer": data + b"x",
        "pickle": b"\x80\x04\x95" + data,
        "header of exabytes": struct.pack("<Q", 2**60) + data[8:],
        "shape beyond the data": struct.pack("<Q", len(header)) + header + b"\0" * 24,
    }


@pytest.mark.parametrize("case", damaged(b"-" * 99))
def test_damaged_file(tmp_path, case):
    path = saved(tmp_path, state())
    path.write_bytes(damaged(path.read_bytes())[case])
    with pytest.raises(WeightsError, match="is damaged or no safetensors file"):
        read_weights(path, SHAPES)


def test_what_could_not_be_loaded_is_not_saved(tmp_path):
    for bad, words in (
        (torch.tensor([1.0, torch.nan, 1.0]), "not finite"),
        (torch.ones(3).double(), "float64"),
    ):
        with pytest.raises(WeightsError, match=words):
            write_model_folder(tmp_path / "x", CONFIG, state(**{"a.bias": bad}), "")
    assert not (tmp_path / "x").exists()


def test_a_card_that_is_no_utf8_is_escaped(tmp_path):
    """It may name a file whose name is none."""
    folder = write_model_folder(tmp_path / "x", CONFIG, state(), "from \udcff.pth")
    assert (folder / "README.md").read_text() == "from \\udcff.pth"


def test_the_folder_of_a_training_run(tmp_path):
    def refusal():
        with pytest.raises(WeightsNotFoundError, match=r"has no config\.json") as error:
            files_in(tmp_path, "here")
        return str(error.value)

    (tmp_path / "checkpoint.pt").touch()
    assert "clit-zoo convert" in refusal()
    (tmp_path / "log.jsonl").touch()
    assert "not ended" in refusal() and str(tmp_path / "model") in refusal() and "convert" not in refusal()
    write_model_folder(tmp_path / "best", CONFIG, state(), "")
    assert refusal().endswith(f"Did you mean {tmp_path / 'best'}?")
    write_model_folder(tmp_path / "model", CONFIG, state(), "")
    assert refusal().endswith(f"Did you mean {tmp_path / 'model'} or {tmp_path / 'best'}?")


def test_overwrite(tmp_path):
    folder = write_model_folder(tmp_path / "x", CONFIG, state(), "first")
    with pytest.raises(ClitZooError, match=r"already holds .*config\.json"):
        write_model_folder(folder, CONFIG, state(), "second")
    assert (folder / "README.md").read_text() == "first"
    write_model_folder(folder, CONFIG, state(), "second", overwrite=True)
    assert (folder / "README.md").read_text() == "second"
    assert len(list(folder.iterdir())) == 3


def test_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    folder = write_model_folder(tmp_path / "x", CONFIG, state(), "first")
    before = (folder / "model.safetensors").read_bytes()

    def fail(path, data):
        path.write_text("half a fi")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match=r"No space left.*model\.safetensors"):
        write_model_folder(folder, CONFIG, state(), "second", overwrite=True)
    assert (folder / "model.safetensors").read_bytes() == before
    assert len(list(folder.iterdir())) == 3


def test_an_interrupted_write_can_be_repeated(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_model_folder(tmp_path / "x", CONFIG, state(), "card")
    assert os.listdir(tmp_path / "x") == []
    write_model_folder(tmp_path / "x", CONFIG, state(), "card")


def test_card():
    text = model_card(
        CONFIG, repo_id="org/x", license="apache-2.0", datasets=("org/data",), body="Trained so."
    )
    assert text.startswith("---\nlicense: apache-2.0\nlibrary_name: clit_zoo\npipeline_tag: image-to-image\n")
    for part in (
        'from_pretrained("org/x")',
        "Trained so.",
        "| decoder | radius | 3 |",
        "| model | parameters | 6,549,067 |",
        "CVPR 2023",
    ):
        assert part in text
    assert "license" not in model_card(CONFIG)
    # a model of the same name may be another one
    assert f'from_pretrained("{CONFIG.name}")' not in model_card(CONFIG) and HERE in model_card(CONFIG)
