"""The example script from end to end, and what it says to mistakes."""

import json
import runpy
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import clit_zoo
from clit_zoo.errors import ClitZooError
from clit_zoo.training.card import Training, training_card
from clit_zoo.training.log import read_log
from clit_zoo.training.recipe import Recipe
from clit_zoo.zoo.config import ModelConfig


def run_as_program(script, words: list[str], monkeypatch) -> str:
    """What the program says when it ends with an error; one line and no traceback."""
    monkeypatch.setattr(sys, "argv", ["finetune.py", *words])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(script.__file__, run_name="__main__")
    assert isinstance(end.value.code, str) and end.value.code.count("\n") == 0
    return end.value.code


def test_an_interrupted_run_ends_like_an_interrupted_program(
    script, arguments, tmp_path, monkeypatch, capsys
):
    update = script.Run._update

    def interrupted(run, parts):
        signal.raise_signal(signal.SIGINT)
        return update(run, parts)

    monkeypatch.setattr(script.Run, "_update", interrupted)
    with pytest.raises(SystemExit) as end:
        script.main(arguments)
    assert end.value.code == 130  # "&&" in a shell stops there
    assert "stopped at step 1 of 12; the same command goes on" in capsys.readouterr().out
    assert not (tmp_path / "run" / "model").exists()


def test_a_cascade_from_a_one_stage_model(script, arguments, pictures, tmp_path, monkeypatch, capsys):
    broken = pictures / "broken.png"
    broken.write_bytes(b"no picture")
    try:
        words = [*arguments, "--stages", "3", "--val", str(pictures), "--val-scales", "2", "6"]
        script.main([*words, "--val-every", "12", "--val-limit", "1", "--license", "apache-2.0"])
    finally:
        broken.unlink()
    printed = capsys.readouterr()
    assert "left out broken.png" in printed.out + printed.err

    run = tmp_path / "run"
    rows = read_log(run)
    first, last = rows[0], rows[-1]
    assert first["event"] == "start" and first["pictures"] == 4 and len(first["skipped"]) == 1
    trained = [row for row in rows if "loss" in row]
    assert [row["step"] for row in trained] == [2, 4, 6, 8, 10, 12]
    assert all(0 <= row["data_share"] <= 1 and row["steps_per_s"] > 0 for row in trained)
    assert set(last["val"]) == {f"{pictures.name}×2", f"{pictures.name}×6"}
    assert [row["step"] for row in rows if "val" in row] == [12]
    sample = np.asarray(Image.open(run / "samples" / "step_0000012.png"))
    assert sample.shape == (120, 3 * 160, 3)

    model = clit_zoo.from_pretrained(run / "model", device="cpu")
    assert model.config.decoder["stages"] == 3
    assert model.upscale(np.zeros((10, 12, 3), np.uint8), scale=7.3).shape == (73, 88, 3)
    best = ModelConfig.from_json(run / "best" / "config.json")
    assert best == model.config
    card = (run / "model" / "README.md").read_text()
    for part in (
        "license: apache-2.0", "From the weights of tiny (",  "on 4 pictures", "--stages 3",
        "strategy cumulative",
        "12 of 12 steps of 4 patches of 16×16 (48 patches)", "| ×2 | ×6 |",
    ):  # fmt: skip
        assert part in card, part
    assert str(tmp_path) not in card and str(pictures.parent) not in card
    # finished: the same command changes nothing
    before = (run / "model" / "model.safetensors").read_bytes()
    script.main(words)
    assert (run / "model" / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    "options",
    [
        ["--queries", "uniform", "--schedule", "trapezoid", "--warmup", "2", "--clip", "0.5", "--ema", "0"],
        ["--optimizer", "muon", "--channels-last", "--bf16", "--freeze-encoder", "--strategy", "alternating"],
    ],
)
def test_options(script, arguments, tiny, tmp_path, options):
    script.main([*arguments, *options, "--cache", str(tmp_path / "cache")])
    old = clit_zoo.from_pretrained(tiny, device="cpu").state_dict()
    new = clit_zoo.from_pretrained(tmp_path / "run" / "model", device="cpu").state_dict()
    changed = {name.split(".")[0] for name in old if not torch.equal(old[name], new[name])}
    assert changed == ({"decoder"} if "--freeze-encoder" in options else {"encoder", "decoder"})
    assert (tmp_path / "cache" / "pictures.json").exists()


def test_training_lowers_the_loss_and_beats_the_start(script, arguments, pictures, tmp_path):
    more = ["--from-scratch", "--steps", "24", "--lr", "3e-3", "--schedule", "cosine", "--ema", "0.9"]
    script.main([*arguments, *more, "--val", str(pictures), "--val-scales", "3", "--val-every", "4"])
    psnr = [next(iter(row["val"].values())) for row in read_log(tmp_path / "run") if "val" in row]
    losses = [row["loss"] for row in read_log(tmp_path / "run") if "loss" in row]
    assert psnr[-1] > psnr[0] + 1 and sum(losses[-3:]) < 0.5 * sum(losses[:3])


def test_in_legs_from_machine_to_machine(script, arguments, tmp_path):
    words = [*arguments, "--steps", "4"]
    script.main(words)
    leg = tmp_path / "leg"
    for number in range(4):  # with no minutes, one step each
        machine = tmp_path / f"machine{number}"
        handed = ["--out", str(machine), "--minutes", "0", "--leg-in", str(leg), "--leg-out", str(leg)]
        script.main([*words, *handed])
        assert json.loads((leg / "leg.json").read_text())["step"] == number + 1
        assert (machine / "model").exists() == (number == 3)
    rows = [row["step"] for row in read_log(machine) if "loss" in row]
    assert rows == [row["step"] for row in read_log(tmp_path / "run") if "loss" in row]
    a = clit_zoo.from_pretrained(tmp_path / "run" / "model", device="cpu").state_dict()
    b = clit_zoo.from_pretrained(machine / "model", device="cpu").state_dict()
    for name, value in a.items():
        torch.testing.assert_close(b[name], value, rtol=0, atol=5e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--data": "nowhere"}, "Error: nowhere is not a folder"),
        ({"--model": "edsr-lite"}, "Did you mean"),
        ({"--batch": "3", "--accumulate": "2"}, "does not divide into 2 equal parts"),
        ({"--steps": "0"}, "Error: steps is 0"),
        ({"--stages": "2", "--strategy": "u112"}, "trains one stage, and this model has 2"),
        ({"--val": "nowhere"}, "nowhere does not exist"),
        ({"--val-scales": "0.5", "--val": "."}, "×0.5 cannot be evaluated"),
        ({"--val": "DATA", "--val-limit": "0"}, "validation on 0 pictures"),
        ({"--patch": "100"}, "no usable picture (4 unreadable or smaller than 200 pixels)"),
        ({"--device": "cuda:9"}, "Error: device 'cuda:9'"),
        ({"--license": "a:b"}, "'a:b' is no identifier of a licence"),
        ({"--leg-out": "legs", "--leg-size": "0"}, "MiB in float16, a leg -1"),
        ({"--out": "DATA/run"}, "run lies in --data"),
        ({"--cache": "DATA"}, "lies in --data"),
        ({"--seed": "9" * 23}, "it must be below 2**63"),
    ],
)
def test_mistakes_end_with_one_line(script, arguments, monkeypatch, change, message):
    words = list(arguments)
    change = {key: value.replace("DATA", words[3]) for key, value in change.items()}
    for option, value in change.items():
        if option in words:
            words[words.index(option) + 1] = value
        else:
            words += [option, value]
    assert message in run_as_program(script, words, monkeypatch)
    assert not any(Path(words[5]).glob("checkpoint*"))  # nothing was trained before it showed


@pytest.mark.parametrize("option", ["--threads", "--workers", "--minutes"])
@pytest.mark.parametrize("value", ["-1", "nan", "two"])
def test_numbers_that_are_none(script, arguments, option, value, capsys):
    with pytest.raises(SystemExit) as end:
        script.main([*arguments, option, value])
    assert end.value.code == 2 and f"argument {option}: {value!r} is not a" in capsys.readouterr().err


def test_a_resumed_run_tells_what_it_was_before(script, arguments, pictures, tmp_path, monkeypatch):
    script.main([*arguments, "--steps", "4"])
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(pictures / "a.png", other)
    words = [*arguments, "--steps", "6", "--lr", "5e-4", "--data", str(other), "--data-name", "mine"]
    assert "holds a run that started from the weights of" in run_as_program(
        script, [*words, "--from-scratch"], monkeypatch
    )
    script.main(words)
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert "on 4 pictures" in card and "from step 4: on 1 picture (" in card and "of mine; " in card
    assert "lr 0.0001 → 0.0005" in card
    script.main([*words, "--steps", "8"])  # no more is told twice
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert card.count("from step 4: ") == 1 and "from step 6: steps 6 → 8" in card


def test_a_leg_that_is_not_there_yet_is_said(script, arguments, tmp_path, capsys):
    script.main([*arguments, "--steps", "1", "--leg-in", str(tmp_path / "mistyped")])
    printed = capsys.readouterr()
    assert f"no leg in {tmp_path / 'mistyped'} yet: starting anew" in printed.out + printed.err


def test_processes_part_after_success_only(script, arguments, monkeypatch):
    closed = []
    monkeypatch.setattr(script.Processes, "close", lambda self: closed.append(True))
    with pytest.raises(ClitZooError):
        script.main([*arguments, "--steps", "0"])
    assert not closed
    script.main([*arguments, "--steps", "1"])
    assert closed


def test_one_of_several_processes_says_its_error_and_leaves_at_once(script, monkeypatch, capsys):
    codes = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(script.os, "_exit", codes.append)
    script.fail("Error: no room")
    assert codes == [1] and capsys.readouterr().err == "Error: no room\n"


def test_the_card_names_no_folders_but_the_hubs(tiny):
    words = ["python", "examples/finetune.py", "--model", "org/name", "--data=/home/me/photos", "--val"]
    words += [
        "sets/Set5",
        "sets/B100/",
        "--out",
        "../runs/x",
        "--datasets",
        "org/one",
        "org/two",
        "--lr=1e-4",
    ]
    recipe = Recipe(steps=2, ema=0)
    config = clit_zoo.from_pretrained(tiny, device="cpu").config
    card = training_card(config, recipe, Training("random weights", "photos", 2, 1.0, "CPU", command=words))
    shown = "--model org/name --data=photos --val Set5 B100 --out x --datasets org/one org/two --lr=1e-4"
    assert f"python examples/finetune.py {shown}\n" in card
    assert "The weights are the average" not in card
    averaged = training_card(config, Recipe(steps=2), Training("random weights", "photos", 2, 1.0, "CPU"))
    assert "The weights are the average" in averaged
