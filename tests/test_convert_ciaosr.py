"""Checkpoints as CiaoSR's code writes them, settings and names told from tensors -> model folders."""

from collections import OrderedDict

import pytest
import torch
from safetensors.torch import load_file
from test_convert import convert, set_at

from clit_zoo.encoders import build_encoder
from clit_zoo.errors import ConfigError, WeightsError
from clit_zoo.pretrained import from_pretrained
from clit_zoo.zoo.config import ModelConfig
from clit_zoo.zoo.registry import get
from clit_zoo.zoo.skeleton import shapes

SMALL = {
    "edsr": {"name": "edsr", "channels": 8, "blocks": 2},
    "rdn": {"name": "rdn", "channels": 6, "blocks": 3, "layers": 2, "growth": 4},
    "swinir": {
        "name": "swinir", "channels": 12, "depths": [2, 1], "heads": [2, 3], "window": 4, "mlp_ratio": 1.5,
        "out_channels": 0,
    },
}  # fmt: skip


def encoder_names(kind: str) -> dict[str, str]:
    """Ours to mmedit's."""
    if kind == "edsr":
        names = {"head.0": "conv_first", "body.2": "conv_after_body"}
        return names | {f"body.{i}.body.{2 * j}": f"body.{i}.conv{j + 1}" for i in (0, 1) for j in (0, 1)}
    names = {"SFENet1": "sfe1", "SFENet2": "sfe2", "GFF.0": "gff.0", "GFF.1": "gff.1"}
    for i in range(3):
        names[f"RDBs.{i}.LFF"] = f"rdbs.{i}.lff"
        names |= {f"RDBs.{i}.convs.{j}.conv.0": f"rdbs.{i}.layers.{j}.conv" for j in (0, 1)}
    return names


def ciaosr_checkpoint(kind="edsr", prefix="generator."):
    torch.manual_seed(0)
    settings = dict(SMALL[kind])
    ours = build_encoder(settings.pop("name"), **settings).state_dict()
    sd = {}
    for name, tensor in ours.items():
        module, _, last = name.rpartition(".")
        sd[name if kind == "swinir" else f"{encoder_names(kind)[module]}.{last}"] = tensor.clone()
    if kind == "swinir":
        for i, j in ((0, 0), (0, 1), (1, 0)):
            block = f"layers.{i}.residual_group.blocks.{j}"
            sd[f"{block}.attn.relative_position_index"] = torch.zeros(16, 16, dtype=torch.int64)
        sd["layers.0.residual_group.blocks.1.attn_mask"] = torch.zeros(4, 16, 16)
    c = settings["channels"]
    made = {"cs_attn.conv_match_1.0": (c // 2, c, 1, 1), "cs_attn.conv_match_2.0": (c // 2, c, 1, 1)}
    made |= {"cs_attn.conv_assembly.0": (c, c, 1, 1), "cs_attn.down": (c, c, 3, 3)}
    for mlp, fan_in, fan_out in (("k", 9 * c + 4, 9 * c), ("v", 10 * c + 4, 10 * c), ("q", 10 * c, 3)):
        widths = [fan_in, 16, 24, fan_out]
        made |= {f"imnet_{mlp}.layers.{2 * i}": (widths[i + 1], widths[i]) for i in range(3)}
    for name, shape in made.items():
        sd |= {f"{name}.weight": torch.randn(shape) * 0.1, f"{name}.bias": torch.randn(shape[:1]) * 0.1}
    sd |= {f"cs_attn.conv_{part}.1.weight": torch.rand(1) for part in ("match_1", "match_2", "assembly")}
    sd["cs_attn.escape_NaN"] = torch.tensor([1e-4])
    state = OrderedDict((prefix + name, tensor) for name, tensor in sd.items())
    return {"meta": {"iter": 1000, "epoch": 3, "config": "x = 1"}, "state_dict": state}


@pytest.mark.parametrize("prefix", ["generator.", "generator_ema.", ""])
@pytest.mark.parametrize("kind", SMALL)
def test_settings_and_names_are_told_from_the_tensors(tmp_path, kind, prefix):
    content = ciaosr_checkpoint(kind, prefix)
    folder = convert(content, tmp_path, name="mine")
    config = ModelConfig.from_json(folder / "config.json")
    assert config.encoder == SMALL[kind]
    assert config.decoder == {"name": "ciaosr", "hidden_dims": [16, 24], "tile": 192}
    given = {name.removeprefix(prefix): tensor for name, tensor in content["state_dict"].items()}
    buffers = ("escape_NaN", "relative_position_index", "attn_mask")
    found = load_file(folder / "model.safetensors")
    for name, tensor in found.items():
        there = name.removeprefix("decoder.").removeprefix("encoder.")
        if name.startswith("encoder.") and kind != "swinir":
            module, _, last = there.rpartition(".")
            there = f"{encoder_names(kind)[module]}.{last}"
        assert torch.equal(tensor, given.pop(there))
    assert all(name.endswith(buffers) for name in given), "nothing is left out but buffers"
    out = from_pretrained(folder, device="cpu").upscale(torch.rand(3, 5, 6), 2)
    assert out.shape == (3, 10, 12)
    card = (folder / "README.md").read_text()
    assert "https://github.com/caojiezhang/CiaoSR" in card and "CC-BY-NC-4.0" in card


def test_averaged_weights_are_taken_where_both_are_there(tmp_path):
    content, other = ciaosr_checkpoint(), ciaosr_checkpoint(prefix="generator_ema.")
    changed = {name: tensor + 1 for name, tensor in other["state_dict"].items() if "escape" not in name}
    content["state_dict"] |= changed
    content["optimizer"] = {"generator": {"state": {}, "param_groups": []}}
    found = load_file(convert(content, tmp_path) / "model.safetensors")
    assert torch.equal(found["decoder.cs_attn.down.bias"], changed["generator_ema.cs_attn.down.bias"])


SD = "state_dict"
CHANGES = [
    (set_at("model", {}), ConfigError, "checkpoint.model is unknown"),
    (set_at(SD, []), ConfigError, "state_dict is .*; allowed is a dict of named tensors"),
    (set_at(SD, {1: torch.zeros(1)}), ConfigError, "state_dict is .*; allowed is a dict of named tensors"),
    (set_at(SD, {}), ConfigError, "conv_first.weight is null; allowed is a tensor of 4"),
    (set_at(SD, "generator.conv_first.weight", [0]), ConfigError, "conv_first.weight is a list of 1"),
    (set_at(SD, "generator.cs_attn.escape_NaN", torch.tensor([1e-3])), ConfigError, "allowed is 1e-4"),
    (set_at(SD, "generator.cs_attn.escape_NaN", torch.zeros(1, dtype=torch.complex64)), ConfigError, "1e-4"),
    (set_at(SD, "generator.cs_attn.downx3.bias", torch.zeros(8)), WeightsError, "1 tensor unknown"),
    (set_at(SD, "pixel_loss.weight", torch.zeros(1)), WeightsError, "1 tensor unknown"),
    (lambda c: c[SD].pop("generator.imnet_v.layers.4.bias"), WeightsError, "1 tensor missing"),
    (lambda c: c[SD].pop("generator.cs_attn.conv_match_1.1.weight"), WeightsError, "1 tensor missing"),
    (
        lambda c: c[SD].pop("generator.imnet_k.layers.0.weight"),
        ConfigError,
        "imnet_k.layers.0.weight is null",
    ),
    (lambda c: c[SD].pop("generator.body.1.conv2.bias"), WeightsError, "1 tensor missing"),
]


@pytest.mark.parametrize(("change", "error", "message"), CHANGES)
def test_what_is_not_understood_is_refused(tmp_path, change, error, message):
    content = ciaosr_checkpoint()
    change(content)
    with pytest.raises(error, match=rf"epoch-last\.pth.*({message})"):
        convert(content, tmp_path)
    assert not (tmp_path / "my model").exists()


def test_the_papers_settings_give_the_registered_name(tmp_path):
    content, wanted = ciaosr_checkpoint(), shapes(get("edsr-ciaosr").config)
    names = {"encoder.head.0": "conv_first", "encoder.body.16": "conv_after_body"}
    for i in range(16):
        names |= {f"encoder.body.{i}.body.{2 * j}": f"body.{i}.conv{j + 1}" for j in (0, 1)}
    state = {}
    for name, shape in wanted.items():
        module, _, last = name.rpartition(".")
        there = names.get(module, module.removeprefix("decoder."))
        state[f"{there}.{last}"] = torch.zeros(shape)
    content[SD] = state
    folder = convert(content, tmp_path)
    assert ModelConfig.from_json(folder / "config.json").name == "edsr-ciaosr"
