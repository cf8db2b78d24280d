import copy
import json
import subprocess
import sys

import pytest

from clit_zoo.errors import ConfigError
from clit_zoo.zoo.config import ModelConfig

LIGHT = {
    "format": "clit_zoo/1",
    "name": "edsr-light-lit",
    "encoder": {"name": "edsr", "channels": 64, "blocks": 12},
    "decoder": {
        "name": "clit",
        "dim": 64,
        "heads": 4,
        "radius": 1,
        "stages": 1,
        "hidden_dims": [128, 64, 64, 64],
    },
}


def edited(path: str, value) -> dict:
    data = copy.deepcopy(LIGHT)
    *parents, key = path.split(".")
    inner = data
    for parent in parents:
        inner = inner[parent]
    inner[key] = value
    return data


def test_round_trip(tmp_path):
    config = ModelConfig.from_dict(LIGHT)
    assert config.to_dict() == LIGHT
    path = tmp_path / "config.json"
    path.write_text(config.to_json())
    assert ModelConfig.from_json(path) == config
    assert hash(ModelConfig.from_json(path)) == hash(config)


def test_defaults_are_the_papers():
    def complete(encoder):
        return ModelConfig("x", {"name": encoder}, {"name": "clit"})

    assert complete("edsr").encoder == {"name": "edsr", "channels": 64, "blocks": 16}
    assert complete("rdn").encoder == {"name": "rdn", "channels": 64, "blocks": 16, "layers": 8, "growth": 64}
    assert complete("swinir").encoder == {
        "name": "swinir",
        "channels": 180,
        "depths": [6] * 6,
        "heads": [6] * 6,
        "window": 8,
        "mlp_ratio": 2.0,
        "out_channels": 64,
    }
    assert complete("edsr").decoder == {
        "name": "clit",
        "dim": 256,
        "heads": 8,
        "radius": 3,
        "stages": 1,
        "hidden_dims": [256] * 4,
    }


def test_equal_models_compare_equal():
    tuples = ModelConfig("x", {"name": "swinir", "depths": (6,) * 6, "mlp_ratio": 2}, {"name": "clit"})
    assert tuples == ModelConfig("x", {"name": "swinir"}, {"name": "clit"})


def test_what_it_is_given_stays_the_callers():
    data = copy.deepcopy(LIGHT)
    config = ModelConfig.from_dict(data)
    data["decoder"]["hidden_dims"].append(9)
    config.to_dict()["decoder"]["hidden_dims"].append(9)
    assert config.to_dict() == LIGHT


@pytest.mark.parametrize(
    "path, value, words",
    [
        ("encoder.chanels", 64, ["encoder.chanels", "did you mean 'channels'", "blocks"]),
        ("decodr", {}, ["decodr", "did you mean 'decoder'", "encoder"]),
        ("encoder.name", "edrs", ["encoder.name", "did you mean 'edsr'", "rdn, swinir"]),
        ("encoder.name", ["edsr"], ["encoder.name", "a list of 1"]),
        ("decoder", "clit", ["decoder", "object", '"clit"']),
        ("encoder.blocks", True, ["encoder.blocks", "whole number", "true"]),
        ("encoder.blocks", 12.0, ["encoder.blocks", "whole number", "12.0"]),
        ("encoder.blocks", "12", ["encoder.blocks", "whole number", '"12"']),
        ("encoder.blocks", None, ["encoder.blocks", "null"]),
        ("encoder.blocks", 0, ["encoder.blocks", "1 to 64"]),
        ("encoder.channels", 513, ["encoder.channels", "513", "1 to 512"]),
        ("encoder.channels", 10**400, ["encoder.channels", "bits"]),
        ("decoder.radius", -1, ["decoder.radius", "0 to 12"]),
        ("decoder.radius", 13, ["decoder.radius", "0 to 12"]),
        ("decoder.stages", 5, ["decoder.stages", "1 to 4"]),
        ("decoder.dim", 66, ["decoder.dim", "66", "decoder.heads", "4"]),
        ("decoder.hidden_dims", [], ["decoder.hidden_dims", "a list of 0", "1 to 8"]),
        ("decoder.hidden_dims", [64] * 9, ["decoder.hidden_dims", "a list of 9", "1 to 8"]),
        ("decoder.hidden_dims", [64, 4096], ["decoder.hidden_dims[1]", "8 to 2048"]),
        ("decoder.hidden_dims", 64, ["decoder.hidden_dims", "a list"]),
        ("name", "a/b", ["name", "a/b"]),
        ("name", "../x", ["name"]),
        ("name", 3, ["name", "3"]),
        ("format", "clit_zoo/2", ["format", "clit_zoo/2", "clit_zoo/1"]),
    ],
)
def test_refused(path, value, words):
    with pytest.raises(ConfigError) as error:
        ModelConfig.from_dict(edited(path, value))
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"heads": [6] * 5}, ["encoder.depths", "as many entries as encoder.heads"]),
        ({"heads": [6] * 5 + [7]}, ["encoder.channels", "180", "encoder.heads", "7"]),
        ({"window": 17}, ["window", "2 to 16"]),
        ({"mlp_ratio": float("nan")}, ["mlp_ratio", "0.5 to 8"]),
        ({"mlp_ratio": True}, ["mlp_ratio", "true"]),
    ],
)
def test_swinir_refused(settings, words):
    with pytest.raises(ConfigError) as error:
        ModelConfig("x", {"name": "swinir", **settings}, {"name": "clit"})
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("value", [1, 0, "true", None])
def test_a_switch_is_true_or_false(value):
    with pytest.raises(ConfigError, match=r"decoder\.cell_decode is .*; allowed is true or false"):
        ModelConfig("x", {"name": "edsr"}, {"name": "liif", "cell_decode": value})


@pytest.mark.parametrize("missing", ["format", "name", "encoder", "decoder", "encoder.name"])
def test_missing(missing):
    data = copy.deepcopy(LIGHT)
    if "." in missing:
        del data["encoder"]["name"]
    else:
        del data[missing]
    with pytest.raises(ConfigError, match=f"{missing}.* is missing"):
        ModelConfig.from_dict(data)


def test_overrides():
    config = ModelConfig.from_dict(LIGHT)
    changed = config.with_overrides(name="mine", decoder={"radius": 2})
    assert (changed.name, changed.decoder["radius"], changed.decoder["dim"]) == ("mine", 2, 64)
    assert config.to_dict() == LIGHT
    # Another encoder starts from its own defaults: EDSR's settings are not RDN's.
    assert config.with_overrides(encoder="rdn").encoder["layers"] == 8
    with pytest.raises(ConfigError, match=r"decodr.*did you mean 'decoder'"):
        config.with_overrides(decodr={})
    with pytest.raises(ConfigError, match="radios"):
        config.with_overrides(decoder={"radios": 1})


TEXT = json.dumps(LIGHT)


@pytest.mark.parametrize(
    "content, words",
    [
        (TEXT.replace(": 12", ": NaN"), "blocks is nan"),
        (TEXT.replace(": 12", ": -Infinity"), "blocks is -inf"),
        (TEXT[:-1], "line 1 column"),
        ("[" * 20_000, "recursion"),
        ("1" * 10_000, "digits"),
        ("[1]", "object"),
        ("", "line 1 column 1"),
        (b"\xff\xfe{", "utf-8"),
        (" " * 70_000, "65,536"),
    ],
)
def test_file_refused(tmp_path, content, words):
    path = tmp_path / "config.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError) as error:
        ModelConfig.from_json(path)
    assert words in str(error.value)
    assert str(path) in str(error.value)


def test_names_do_not_need_torch():
    """`clit-zoo list` answers at once: neither the settings nor the registry imports torch."""
    imports = "import sys, clit_zoo, clit_zoo.commands.list"
    code = f"{imports}; clit_zoo.list_models(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
