"""``clit-zoo train`` from end to end, what it says to mistakes, and the same from Python."""

import inspect
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_training import PATCH, tiny_model

import clit_zoo
from clit_zoo.training import Recipe, Run
from clit_zoo.training import train as train_from_python
from clit_zoo.training.card import Provenance, training_card
from clit_zoo.training.log import Pace, duration, read_log
from clit_zoo.training.state import RunState
from clit_zoo.zoo.card import front_matter
from clit_zoo.zoo.config import ModelConfig


def test_an_interrupted_run_ends_like_an_interrupted_program(train, arguments, tmp_path, monkeypatch):
    update = Run._update

    def interrupted(run, parts):
        signal.raise_signal(signal.SIGINT)
        return update(run, parts)

    monkeypatch.setattr(Run, "_update", interrupted)
    printed = train(*arguments, code=130)  # "&&" in a shell stops there
    assert "stopped at step 1 of 12; the same command goes on" in printed
    assert not (tmp_path / "run" / "model").exists()


def test_a_cascade_from_a_one_stage_model(train, arguments, pictures, tmp_path):
    broken = pictures / "broken.png"
    broken.write_bytes(b"no picture")
    words = [*arguments, "--stages", "3", "--val", str(pictures), "--val-scales", "2,6", "--val-every", "12"]
    words += ["--val-limit", "1", "--license", "apache-2.0"]
    try:
        printed = train(*words)
    finally:
        broken.unlink()
    assert "left out broken.png" in printed
    assert "s a step: the 2 left take about 0 seconds, until " in printed  # said after ten steps

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
        "made a cascade of 3 stages (new ones: copy)", "strategy cumulative", "clit-zoo train --model ",
        "12 of 12 steps of 4 patches of 16×16 (48 patches)", "| ×2 | ×6 |",
    ):  # fmt: skip
        assert part in card, part
    assert str(tmp_path) not in card and str(pictures.parent) not in card
    # finished: the same command changes nothing
    before = (run / "model" / "model.safetensors").read_bytes()
    train(*words)
    assert (run / "model" / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    "options",
    [
        "--queries uniform --schedule trapezoid --warmup 2 --clip 0.5 --ema 0 --loss charbonnier",
        "--optimizer muon --channels-last --bf16 --freeze-encoder --strategy alternating --threads 1",
    ],
)
def test_options(train, arguments, tiny, tmp_path, options):
    train(*arguments, *options.split(), "--cache", str(tmp_path / "cache"))
    old = clit_zoo.from_pretrained(tiny, device="cpu").state_dict()
    new = clit_zoo.from_pretrained(tmp_path / "run" / "model", device="cpu").state_dict()
    changed = {name.split(".")[0] for name in old if not torch.equal(old[name], new[name])}
    assert changed == ({"decoder"} if "--freeze-encoder" in options else {"encoder", "decoder"})
    assert (tmp_path / "cache" / "pictures.pt").exists()


@pytest.mark.parametrize(
    ("decoder", "share"),
    [("clit", 0.5), ("liif", 0.85)],  # LIIF has the image itself to learn, which CLIT adds
)
def test_training_lowers_the_loss_and_beats_the_start(train, arguments, pictures, tmp_path, decoder, share):
    model = tiny_model(decoder=decoder).save_pretrained(tmp_path / "start")
    more = "--from-scratch --steps 24 --lr 3e-3 --schedule cosine --ema 0.9 --val-scales 3 --val-every 4"
    train(*arguments, "--model", str(model), *more.split(), "--val", str(pictures))
    psnr = [next(iter(row["val"].values())) for row in read_log(tmp_path / "run") if "val" in row]
    losses = [row["loss"] for row in read_log(tmp_path / "run") if "loss" in row]
    assert psnr[-1] > psnr[0] + 1 and sum(losses[-3:]) < share * sum(losses[:3])


def test_from_python_some_minutes_at_a_time(pictures, tiny, tmp_path):
    recipe = Recipe(steps=2, batch=2, patch=PATCH)
    options = {"device": "cpu", "tensorboard": False, "workers": 1}
    assert train_from_python(tiny, pictures, tmp_path / "run", recipe, minutes=0, **options) is None
    folder = train_from_python(tiny, pictures, tmp_path / "run", recipe, **options)
    assert folder == tmp_path / "run" / "model"
    card = (folder / "README.md").read_text()
    trained = front_matter(folder)["trained"]
    assert trained.startswith("2 steps in ") and ", from the weights of tiny (" in trained
    assert "2 of 2 steps" in card and "train --model" not in card
    assert clit_zoo.from_pretrained(folder, device="cpu").config.name == "tiny"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--data": "nowhere"}, "Error: nowhere cannot be used (No such"),
        ({"--model": "edsr-lite"}, "Did you mean"),
        ({"--batch": "3", "--accumulate": "2"}, "batch is 3; allowed is a multiple of 2"),
        ({"--steps": "0"}, "Error: steps is 0"),
        ({"--stages": "2", "--strategy": "u112"}, "allowed is 'cumulative' for this model of 2"),
        ({"--val": "nowhere"}, "nowhere cannot be used (No such file"),
        ({"--val-scales": "0.5", "--val": "."}, "×0.5 cannot be evaluated"),
        ({"--patch": "100"}, "no usable picture (4 unreadable or smaller than 200 pixels)"),
        ({"--device": "cuda:9"}, "Error: device 'cuda:9'"),
        ({"--out": "DATA/run"}, "run lies in --data"),
        ({"--cache": "DATA"}, "lies in --data"),
        ({"--seed": "9" * 23}, "allowed is 0 to 9.2"),
    ],
)
def test_mistakes_end_with_one_line(train, arguments, change, message):
    words = list(arguments)
    change = {key: value.replace("DATA", words[3]) for key, value in change.items()}
    for option, value in change.items():
        if option in words:
            words[words.index(option) + 1] = value
        else:
            words += [option, value]
    assert message in train(*words, code=1).splitlines()[-1]
    assert not any(Path(words[5]).glob("checkpoint*"))  # nothing was trained before it showed


@pytest.mark.parametrize("option", ["--threads", "--workers", "--minutes"])
@pytest.mark.parametrize("value", ["-1", "two"])
def test_numbers_that_are_none(train, arguments, option, value):
    assert f"Invalid value for '{option}'" in train(*arguments, option, value, code=2)


def test_a_resumed_run_tells_what_it_was_before(train, arguments, pictures, tmp_path):
    train(*arguments, "--steps", "4")
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(pictures / "a.png", other)
    words = [*arguments, "--steps", "6", "--lr", "5e-4", "--data", str(other), "--data-name", "mine"]
    refused = train(*words, "--from-scratch", code=1)
    assert "holds a run with another start (the weights of" in refused
    assert "going on from step 4; on 1 picture" in train(*words)
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert "on 4 pictures" in card and "from step 4: on 1 picture (" in card and "of mine; " in card
    assert "lr 0.0001 → 0.0005" in card
    train(*words, "--steps", "8")  # no more is told twice
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert card.count("from step 4: ") == 1 and "from step 6: steps 6 → 8" in card


def test_the_card_names_no_folders_but_the_hubs():
    shown = "--model org/name --data={} --val {} --val {} --out {} --datasets org/one --datasets org/two"
    typed = shown.format("/home/me/photos", "sets/Set5", "sets/B100/", "../runs/x").split()
    provenance = Provenance("random weights", "photos", ("clit-zoo", "train", *typed))
    recipe = Recipe(steps=2, ema=0)
    card = training_card(provenance, recipe, RunState.at_start(tiny_model(), recipe), "CPU")
    assert f"clit-zoo train {shown.format('photos', 'Set5', 'B100', 'x')}\n" in card
    assert "The weights are the average" not in card
    recipe = Recipe(steps=2)
    averaged = training_card(provenance, recipe, RunState.at_start(tiny_model(), recipe), "CPU")
    assert "The weights are the average" in averaged


def test_the_forecast_leaves_the_first_step_out():
    pace = Pace()
    for seconds in (60.0, 2.0, 4.0):
        pace.add(seconds, 0.0)
    assert pace.forecast(2400).startswith("3 s a step: the 2,400 left take about 2.0 hours, until ")
    words = [duration(s) for s in (0.2, 130, 3600, 86400, 2e6)]
    assert words == ["0 seconds", "2 minutes", "60 minutes", "24.0 hours", "23.1 days"]


def test_every_option_reaches_python():
    from clit_zoo.commands.train import command

    given = {param.name for param in command.params}
    names = set(inspect.signature(train_from_python).parameters) - {"recipe", "validation", "command"}
    assert names <= given and set(Recipe.__dataclass_fields__) <= given
