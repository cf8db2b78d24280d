"""Strangers' checkpoints: a folder with their tensors, or one ClitZooError and no folder; no code is run."""

import io
import json
import os
import shutil
import zipfile
from collections import OrderedDict

import pytest
import torch
from hypothesis import strategies as st
from mutants import NUMBERS, mutant, mutants
from safetensors.torch import load_file
from test_convert import checkpoint, liif_checkpoint, lte_checkpoint
from test_convert_ciaosr import ciaosr_checkpoint

from clit_zoo.convert import convert_checkpoint
from clit_zoo.errors import ClitZooError

SOUND = {
    "ciaosr": ciaosr_checkpoint,
    "clit": checkpoint,
    "liif": liif_checkpoint,
    "lte": lte_checkpoint,
}


class Runs:
    """What a pickle can ask for when it is loaded: here, a folder made."""

    def __init__(self, call, *words):
        self.call, self.words = call, words

    def __reduce__(self):
        return self.call, self.words


def _payload(folder):
    path = str(folder / "ran")
    calls = [(os.mkdir, path), (os.system, f"mkdir {path}"), (eval, f"__import__('os').mkdir({path!r})")]
    return st.sampled_from(calls).map(lambda call: Runs(*call))


_odd = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([*NUMBERS, -1, float("nan"), "", "clit", "rdn", [], {}, [[]], b"x", {1: 2}]),
    st.text(max_size=9),
    st.builds(
        torch.zeros,
        st.lists(st.integers(0, 4), max_size=3),
        dtype=st.sampled_from((torch.float32, torch.float16, torch.float64, torch.int64, torch.bool)),
    ),
    st.just(OrderedDict(a=torch.nan * torch.ones(2))),
)


def _places(content, path=()):
    """The path of every value in nested dicts."""
    for key, value in content.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from _places(value, (*path, key))


def saved(content, old_format):
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=not old_format)
    return file.getvalue()


def _changed(payload):
    """Files of sound checkpoints in which one value is another, gone or named differently."""

    def build(system, old_format, which, action, value):
        content = SOUND[system]()
        places = sorted(_places(content), key=repr)
        *path, last = places[which % len(places)]
        inside = content
        for key in path:
            inside = inside[key]
        if action == "set":
            inside[last] = value
        elif action == "add":
            inside["more"] = value
        else:
            taken = inside.pop(last)
            if action == "rename":
                inside[str(value)[:9]] = taken
        return saved(content, old_format)

    action = st.sampled_from(("set", "set", "add", "leave out", "rename"))
    return st.builds(
        build, st.sampled_from(sorted(SOUND)), st.booleans(), st.integers(0, 10**4), action, _odd | payload
    )


def _packed(sound):
    """Zip files of sound checkpoints with records compressed, twice, of other names or larger than told."""

    def build(action, which, name):
        file = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(sound)) as old, zipfile.ZipFile(file, "w") as new:
            for i, record in enumerate(old.infolist()):
                chosen = i == which % len(old.infolist())
                kind = zipfile.ZIP_DEFLATED if chosen and action == "compress" else zipfile.ZIP_STORED
                called = name if chosen and action == "rename" else record.filename
                new.writestr(zipfile.ZipInfo(called), old.read(record), kind)
            if action == "repeat":
                new.filelist += new.filelist * 3
        return file.getvalue()

    names = st.sampled_from(("../../out", "/tmp/out", "archive/data.pkl", "x/.data/serialization_id", "é"))
    return st.builds(
        build, st.sampled_from(("compress", "rename", "repeat", "keep")), st.integers(0, 40), names
    )


@pytest.mark.filterwarnings("ignore")  # duplicate names in zip files
def test_checkpoints(campaign, tmp_path):
    files = {
        f"{name}{'-old' * old}.pth": saved(make(), old) for name, make in SOUND.items() for old in (0, 1)
    }
    damaged = mutants(files).map(lambda case: mutant(files, case))
    path, out = tmp_path / "x.pth", tmp_path / "out"

    def attempt(data):
        path.write_bytes(data)
        shutil.rmtree(out, ignore_errors=True)
        try:
            convert_checkpoint(path, out)
        except ClitZooError as error:
            assert str(path) in str(error) or str(out) in str(error)
            assert "\n" not in str(error) and len(str(error)) < 2000
            assert not out.exists()
            return "refused"
        finally:
            assert sorted(p.name for p in tmp_path.iterdir()) in (["out", "x.pth"], ["x.pth"])
        content = torch.load(path, map_location="cpu", weights_only=True)
        given = content["state_dict"] if "state_dict" in content else content["model"]["sd"]
        found = load_file(out / "model.safetensors")
        assert json.loads((out / "config.json").read_text())["decoder"]["name"] in SOUND
        for tensor in found.values():  # CiaoSR's have other names
            same = [t for t in given.values() if isinstance(t, torch.Tensor) and t.shape == tensor.shape]
            assert any(torch.equal(t, tensor) for t in same)
        assert len(found) + 4 >= len(given)  # the mean shifts are left out
        return "converted"

    cases = st.one_of(
        damaged, _changed(_payload(tmp_path)), _packed(files["clit.pth"]), _packed(files["liif.pth"])
    )
    campaign(attempt, cases, quick=80, long=2_000)
