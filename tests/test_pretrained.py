"""Names to models: what `create_model` and `from_pretrained` take, and the card that stays with them."""

import pytest
import torch

import clit_zoo
from clit_zoo.errors import ConfigError
from clit_zoo.pretrained import pick_device
from clit_zoo.zoo import hub

SMALL = {"encoder": {"blocks": 1, "channels": 8}, "decoder": {"dim": 8, "heads": 2, "hidden_dims": [8]}}


def test_a_changed_model_can_have_a_name():
    assert clit_zoo.create_model("edsr-light-lit", name="mine", **SMALL).config.name == "mine"


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
        return "address"

    monkeypatch.setattr(hub, "push", push)
    assert loaded.push_to_hub("me/mine", private=True) == "address"
    assert pushed[0][1:] == ("me/mine", {"private": True, "token": None})
    loaded.card = "other"
    other = loaded.save_pretrained(tmp_path / "c")
    assert (other / "README.md").read_text() == "other"
    (folder / "README.md").unlink()
    assert clit_zoo.from_pretrained(folder, device="cpu").card is None
