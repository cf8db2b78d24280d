"""Command lines of every kind: exit code 0, 1 or 2, a reason where it is not 0, never a traceback."""

import click
import pytest
import torch
from huggingface_hub import constants
from hypothesis import strategies as st
from PIL import Image

from clit_zoo.commands import cli, doctor, threads
from clit_zoo.decoders import DECODERS

# What takes long: compiled kernels, and as many processes or threads as somebody asks for.
LEFT_OUT = {"--compile", "--workers", "--threads"}

NUMBERS = ("0", "1", "2", "-1", "2.5", "1e9", "99999999999999999999", "nan", "inf", "x", "")
WORDS = (
    "a.png", "tiny", "missing.png", "text.txt", "loop", "in", "out", "new/deep/b.png", ".", "", " ",
    "é", "\udcff.png", "x" * 300, "a\0b", "--", "-", "-h", "--nope", "https://x.org/a.png", "edsr-light-lit",
    "edsr-lit", "edsr", "bicubic", "org/name", "../x", "~", "*", "8x8", "0x0", "8x", "1,2", "2,,x", "white",
    "#123", "png", "cpu", "cuda:99", "torch", "reference", "auto", "json",
)  # fmt: skip

# Each command with what makes its work small; later words may change any of it.
USUAL = {
    "upscale": "a.png -o out -m tiny -s 2",
    "compare": "a.png -m tiny -s 2 --overwrite",
    "list": "",
    "info": "tiny",
    "eval": "in -m bicubic -s 2",
    "train": "--model tiny --data in --out run --steps 1 --minutes 0 --batch 1 --patch 8 --device cpu",
    "bench": "-m tiny --input 8x8 -s 2 --seconds 0 --device cpu",
    "convert": "x.pth -o converted",
    "push": "tiny org/name",
    "doctor": "--json",
}


def _lines():
    """The usual words of a command, some left out, with options of it and their values."""
    context = click.Context(cli.group)
    word = st.sampled_from(WORDS) | st.sampled_from(NUMBERS) | st.text(max_size=5)
    lines = []
    for name, line in USUAL.items():
        usual = line.split()
        command = cli.group.get_command(context, name)
        extras = [word.map(lambda text: [text])]
        for option in (p for p in command.params if isinstance(p, click.Option)):
            given = option.opts[-1]
            if given in LEFT_OUT:
                continue
            if option.is_flag:
                extras.append(st.just([given]))
                continue
            kind = option.type
            if isinstance(kind, click.Choice):
                value = st.sampled_from(list(kind.choices)) | word
            elif isinstance(kind, click.types._NumberParamTypeBase):
                value = (
                    st.sampled_from(NUMBERS) if given != "--minutes" else st.sampled_from(("0", "-1", "x"))
                )
            else:
                value = word
            extras.append(value.map(lambda value, given=given: [given, value]))
        more = st.lists(st.one_of(extras), max_size=4).map(
            lambda lists: [w for words in lists for w in words]
        )
        gone = st.just(set()) | st.sets(st.integers(0, max(len(usual) - 1, 0)), max_size=2)
        kept = gone.map(lambda gone, usual=usual: [w for i, w in enumerate(usual) if i not in gone])
        lines.append(st.builds(lambda kept, more, name=name: [name, *kept, *more], kept, more))
    often = [lines[list(USUAL).index("upscale")]] * 3
    return st.one_of(*often, *lines, st.lists(word, max_size=4))


@pytest.fixture
def place(tmp_path, monkeypatch, tiny_model, save):
    """A folder with pictures, a model and what is neither, which is the current one."""
    save("a.png", 3, 2)
    save("in/b.png", 40, 30)
    Image.new("LA", (5, 5)).save("in/alpha.png")
    (tmp_path / "text.txt").write_text("text")
    (tmp_path / "x.pth").write_bytes(b"PK\x03\x04")
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.setattr(threads, "use_free_cores", lambda: 1)
    monkeypatch.setattr(doctor, "DECODERS", {"liif": DECODERS["liif"]})  # all take six seconds
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_lines(campaign, place, capfd):
    def attempt(words):
        state = torch.get_num_threads(), torch.get_rng_state()
        try:
            code = cli.run(words)
        finally:
            torch.set_num_threads(state[0])
            torch.set_rng_state(state[1])
        told = capfd.readouterr()
        assert code in (0, 1, 2)
        assert "Traceback" not in told.err + told.out
        assert code == 0 or told.err.strip()
        return f"exit {code}"

    campaign(attempt, _lines(), quick=40, long=1_000)
