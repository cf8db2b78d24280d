"""Checkpoints as the authors' training scripts write them -> model folders; and hostile ones."""

import copy
import json
import math
import os
import zipfile

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from clit_zoo.commands.convert import command
from clit_zoo.convert import convert_checkpoint
from clit_zoo.errors import ClitZooError, ConfigError, WeightsError
from clit_zoo.model import SuperResolver
from clit_zoo.pretrained import from_pretrained
from clit_zoo.training.checkpoint import save_checkpoint
from clit_zoo.zoo.config import ModelConfig

EDSR = {"name": "edsr-baseline", "args": {"no_upsampling": True, "n_resblocks": 1, "n_feats": 8}}
ARGS = {
    "base_dim": 16,
    "head": 2,
    "r": 1,
    "imnet_num": 2,
    "conv_num": 2,
    "is_cell": True,
    "local_attn": True,
    "encoder_spec": EDSR,
    "pb_spec": {
        "name": "posenc",
        "args": {
            "posenc_type": "sinusoid",
            "posenc_scale": 10,
            "hidden_dims": 64,
            "enc_dims": 64,
            "gamma": 1,
        },
    },
    "imnet_spec": {"name": "mlp", "args": {"out_dim": 3, "hidden_list": [8, 12], "act": "gelu"}},
}
CONV = (3, 3)
EDSR_SHAPES = {
    "encoder.sub_mean": (3, 3, 1, 1),
    "encoder.add_mean": (3, 3, 1, 1),
    "encoder.head.0": (8, 3, *CONV),
    "encoder.body.0.body.0": (8, 8, *CONV),
    "encoder.body.0.body.2": (8, 8, *CONV),
    "encoder.body.1": (8, 8, *CONV),
}
RDN_SHAPES = {
    "SFENet1": (4, 3, *CONV),
    "SFENet2": (4, 4, *CONV),
    "GFF.0": (4, 80, 1, 1),
    "GFF.1": (4, 4, *CONV),
}
for block in range(20):
    RDN_SHAPES |= {f"RDBs.{block}.convs.{i}.conv.0": (32, 4 + 32 * i, *CONV) for i in range(6)}
    RDN_SHAPES[f"RDBs.{block}.LFF"] = (4, 4 + 32 * 6, 1, 1)
DECODER_SHAPES = {
    "conv_vs.0": (16, 16, *CONV),
    "conv_vs.1": (16, 16, *CONV),
    "conv_qs.0": (16, 16, *CONV),
    "conv_qs.1": (16, 16, *CONV),
    "conv_ks.0": (16, 16, *CONV),
    "conv_ks.1": (16, 16, *CONV),
    "pb_encoder.proj": (2, 64),
    "imnets.0.layers.0": (8, 9 * 16 + 2),
    "imnets.0.layers.2": (12, 8),
    "imnets.0.layers.4": (3, 12),
    "imnets.1.layers.0": (8, 9 * 16 + 2),
    "imnets.1.layers.2": (12, 8),
    "imnets.1.layers.4": (3, 12),
}


def tensors(shapes):
    made = {}
    for name, shape in shapes.items():
        made[f"{name}.weight"] = torch.randn(shape) * 0.1
        made[f"{name}.bias"] = torch.randn(shape[:1]) * 0.1
    return made


def checkpoint(encoder=EDSR, shapes=EDSR_SHAPES, channels=8):
    torch.manual_seed(0)
    sd = tensors({**shapes, "conv_ch": (16, channels, *CONV), **DECODER_SHAPES})
    args = copy.deepcopy({**ARGS, "encoder_spec": encoder})
    optimizer = {"name": "adam", "args": {"lr": 1e-4}, "sd": {"state": {}, "param_groups": []}}
    return {
        "model": {"name": "clit", "args": args, "sd": sd},
        "optimizer": optimizer,
        "epoch": 1000,
        "state": torch.get_rng_state(),
    }


def liif_checkpoint(encoder=EDSR, shapes=EDSR_SHAPES, channels=8, **switches):
    torch.manual_seed(0)
    given = {"feat_unfold": True, "cell_decode": True} | switches
    inputs = channels * (9 if given["feat_unfold"] else 1) + 2 + 2 * given["cell_decode"]
    mlp = {"imnet.layers.0": (8, inputs), "imnet.layers.2": (12, 8), "imnet.layers.4": (3, 12)}
    imnet = {"name": "mlp", "args": {"out_dim": 3, "hidden_list": [8, 12]}}
    args = copy.deepcopy({"encoder_spec": encoder, "imnet_spec": imnet, **switches})
    return {
        "model": {"name": "liif", "args": args, "sd": tensors({**shapes, **mlp})},
        "optimizer": {"name": "adam", "args": {"lr": 1e-4}, "sd": {"state": {}, "param_groups": []}},
        "epoch": 1000,
    }


def metasr_checkpoint():
    torch.manual_seed(0)
    mlp = {"imnet.layers.0": (256, 3), "imnet.layers.2": (8 * 27, 256)}
    args = copy.deepcopy({"encoder_spec": EDSR})
    return {
        "model": {"name": "metasr", "args": args, "sd": tensors({**EDSR_SHAPES, **mlp})},
        "optimizer": {"name": "adam", "args": {"lr": 1e-4}, "sd": {"state": {}, "param_groups": []}},
        "epoch": 1000,
    }


def itsrn_checkpoint():
    torch.manual_seed(0)
    mlp = {"imnet.layers.0": (8, 4), "imnet.layers.2": (12, 8), "imnet.layers.4": (8 * 27, 12)}
    mlp |= {"Weight.layers.0": (256, 4), "Weight.layers.2": (1, 256)}
    mlp |= {"Score.layers.0": (256, 2), "Score.layers.2": (1, 256)}
    imnet = {"name": "mlp", "args": {"hidden_list": [8, 12], "act": "gelu"}}
    args = {"encoder_spec": EDSR, "imnet_spec": imnet, "feat_unfold": True, "scale_token": True}
    return {
        "model": {"name": "ITNSR", "args": copy.deepcopy(args), "sd": tensors({**EDSR_SHAPES, **mlp})},
        "optimizer": {"name": "adam", "args": {"lr": 2e-4}, "sd": {"state": {}, "param_groups": []}},
        "epoch": 1000,
        "state": torch.get_rng_state(),
    }


def same(folder, sd):
    """Whether a folder's model holds the decoder's and encoder's tensors of a checkpoint, and loads."""
    weights = from_pretrained(folder, device="cpu").state_dict()
    given = {
        name: t.tolist() for name, t in sd.items() if not name.startswith(("encoder.sub", "encoder.add"))
    }
    return {name.removeprefix("decoder."): t.tolist() for name, t in weights.items()} == given


def lit_checkpoint(**switches):
    torch.manual_seed(0)
    args = {key: ARGS[key] for key in ("base_dim", "head", "encoder_spec", "pb_spec", "imnet_spec")}
    waves = {"posenc_type": "sinusoid", "posenc_scale": 10, "complex_transform": True, "enc_dims": 8}
    args = copy.deepcopy({**args, "pe_spec": {"name": "posenc", "args": waves}, **switches})
    attends = switches.get("local_attn", True)
    inputs = (49 if attends else 1) * (16 + 8) + 2 * switches.get("is_cell", True)
    shapes = {f"conv_{name}": (16, 8, *CONV) for name in ("vqk" if attends else "v")}
    shapes |= {"pb_encoder.proj": (2, 64)} if attends else {}
    shapes |= {"imnet.layers.0": (8, inputs), "imnet.layers.2": (12, 8), "imnet.layers.4": (3, 12)}
    shapes |= {"conv_freq": (4, 8, *CONV), "pe_encoder.proj": (1, 8)}
    return {
        "model": {"name": "lit", "args": args, "sd": tensors({**EDSR_SHAPES, **shapes})},
        "optimizer": {"name": "adam", "args": {"lr": 1e-4}, "sd": {"state": {}, "param_groups": []}},
        "epoch": 1000,
    }


def msit_checkpoint(rim=True):
    """As the authors write it after training's second stage, or, plain, after the first."""
    torch.manual_seed(0)
    args = {
        key: ARGS[key] for key in ("base_dim", "head", "r", "is_cell", "local_attn", "pb_spec", "imnet_spec")
    }
    args |= {
        "encoder_spec": EDSR,
        "imnet_num": 1,
        "conv_num": 1,
        "use_lem": True,
        "MsC_heads": 2,
        "MsSA_q": 4,
    }
    shapes = {"conv_ch": (16, 8, 1, 1), "amsno.sim0": (32, 8, 1, 1), "amsno.sim1": (16, 32, 1, 1)}
    shapes |= {"amsno.proj": (16, 16, 1, 1), "multi_conv_qs.0.proj0": (16, 16, 1, 1)}
    shapes |= {"multi_conv_qs.0.proj1": (32, 4, 1, 1), "multi_conv_qs.0.proj2": (16, 32, 1, 1)}
    shapes |= {name: shape for name, shape in DECODER_SHAPES.items() if "imnets.0" in name or "pb_" in name}
    convs = {f"amsno.Ms_conv_{i + 1}": (8, 8, 3 + 2 * i, 3 + 2 * i) for i in range(2)}
    convs |= {f"multi_conv_qs.0.local_conv_{i + 1}": (4, 4, 3 + 2 * i, 3 + 2 * i) for i in range(4)}
    sd = tensors({**EDSR_SHAPES, **shapes, **convs, "conv_vs.0": (16, 16, *CONV)})
    sd |= {f"amsno.{name}.weight": torch.randn(16, 16, 1, 1) for name in "vs"}
    mask = torch.zeros(16, 1, 3, 3)
    mask[0::4, 0, 1, 2] = mask[1::4, 0, 1, 0] = mask[2::4, 0, 2, 1] = mask[3::4, 0, 0, 1] = 1
    mask[4::8, 0, 0, 2] = mask[5::8, 0, 2, 0] = mask[6::8, 0, 2, 2] = mask[7::8, 0, 0, 0] = 1
    sd |= {"amsno.lem.mask": mask, "amsno.lem.mix_margin": torch.tensor(1.0)}
    for name in ("amsno.bn", "multi_conv_qs.0.bn"):
        sd |= {f"{name}.{part}": torch.rand(32) for part in ("weight", "bias", "running_mean", "running_var")}
        sd[f"{name}.num_batches_tracked"] = torch.tensor(7)
    if rim:
        for name in [*convs, "conv_vs.0"]:
            planes = math.prod(sd[f"{name}.weight"].shape[:2])
            sd[f"{name}.convmap.weight"] = torch.randn(planes, 1, 3, 3)
            sd[f"{name}.linear.weight"] = torch.randn(planes, 1, 1, 1)
    optimizer = {"name": "adam", "args": {"lr": 1e-5}, "sd": {"state": {}, "param_groups": []}}
    model = {"name": "amsit", "args": copy.deepcopy(args), "sd": sd}
    return {"model": model, "optimizer": optimizer, "epoch": 1050, "state": torch.get_rng_state()}


def lte_checkpoint(plus=False, encoder=EDSR, shapes=EDSR_SHAPES, channels=8):
    torch.manual_seed(0)
    decoder = {"coef": (8, channels, *CONV), "freq": (8, channels, *CONV)}
    args = {"encoder_spec": encoder, "hidden_dim": 8}
    if plus:
        decoder |= {f"layers.{i}": (out, 8, 1, 1) for i, out in ((0, 8), (2, 8), (4, 3))}
        args |= {"num_layer": 2, "out_dim": 3}
    else:
        decoder |= {"imnet.layers.0": (12, 8), "imnet.layers.2": (10, 12), "imnet.layers.4": (3, 10)}
        args["imnet_spec"] = {"name": "mlp", "args": {"out_dim": 3, "hidden_list": [12, 10]}}
    content = liif_checkpoint()
    sd = tensors({**shapes, **decoder}) | {"phase.weight": torch.randn(4, 2)}
    content["model"] = {"name": "lte-fast" if plus else "lte", "args": copy.deepcopy(args), "sd": sd}
    return content


def convert(content, tmp_path, **options):
    torch.save(content, tmp_path / "epoch-last.pth")
    return convert_checkpoint(tmp_path / "epoch-last.pth", tmp_path / "my model", **options)


def test_edsr_becomes_a_folder_that_loads(tmp_path):
    content = checkpoint()
    folder = convert(content, tmp_path)
    assert sorted(os.listdir(folder)) == ["README.md", "config.json", "model.safetensors"]
    assert json.loads((folder / "config.json").read_text()) == {
        "format": "clit_zoo/1",
        "name": "my-model",
        "encoder": {"name": "edsr", "channels": 8, "blocks": 1},
        "decoder": {
            "name": "clit",
            "dim": 16,
            "heads": 2,
            "radius": 1,
            "stages": 2,
            "hidden_dims": [8, 12],
        },
    }
    weights = load_file(folder / "model.safetensors")
    given = {name: t for name, t in content["model"]["sd"].items() if "_mean." not in name}
    assert {name.removeprefix("decoder."): t.tolist() for name, t in weights.items()} == {
        name: t.tolist() for name, t in given.items()
    }
    SuperResolver(ModelConfig.from_json(folder / "config.json")).load_state_dict(weights, strict=True)
    card = (folder / "README.md").read_text()
    assert "epoch-last.pth" in card and "epoch 1000" in card and "SHA-256" in card
    assert "https://github.com/jaroslaw1007/CLIT" in card and "BSD-3-Clause" in card


@pytest.mark.parametrize(
    "switches", [{}, {"feat_unfold": False}, {"cell_decode": False}, {"local_ensemble": False}]
)
def test_liif(tmp_path, switches):
    content = liif_checkpoint(**switches)
    folder = convert(content, tmp_path, name="mine")
    config = ModelConfig.from_json(folder / "config.json")
    on = {"feat_unfold": True, "local_ensemble": True, "cell_decode": True}
    assert config.decoder == {"name": "liif", "hidden_dims": [8, 12], **on, **switches}
    weights = from_pretrained(folder, device="cpu").state_dict()
    given = {name: t for name, t in content["model"]["sd"].items() if "_mean." not in name}
    assert {name.removeprefix("decoder."): t.tolist() for name, t in weights.items()} == {
        name: t.tolist() for name, t in given.items()
    }
    card = (folder / "README.md").read_text()
    assert "https://github.com/yinboc/liif" in card and "BSD-3-Clause" in card


def test_metasr(tmp_path):
    content = metasr_checkpoint()
    folder = convert(content, tmp_path, name="mine")
    config = ModelConfig.from_json(folder / "config.json")
    assert config.decoder == {"name": "metasr", "hidden_dims": [256], "original": False}
    assert same(folder, content["model"]["sd"])
    assert "https://github.com/yinboc/liif" in (folder / "README.md").read_text()


def test_itsrn(tmp_path):
    content = itsrn_checkpoint()
    folder = convert(content, tmp_path, name="mine")
    config = ModelConfig.from_json(folder / "config.json")
    assert config.decoder == {"name": "itsrn", "hidden_dims": [8, 12], "merge_dim": 256}
    assert same(folder, content["model"]["sd"])
    card = (folder / "README.md").read_text()
    assert "https://github.com/codyshen0000/ITSRN" in card and "has no licence" in card


def meta_rdn_checkpoint():
    """As Meta-SR's authors save it: bare tensors, the encoder's without a prefix."""
    torch.manual_seed(0)
    means = {"sub_mean": (3, 3, 1, 1), "add_mean": (3, 3, 1, 1)}
    mlp = {"P2W.meta_block.0": (256, 3), "P2W.meta_block.2": (4 * 27, 256)}
    return tensors({**means, **RDN_SHAPES, **mlp})


@pytest.mark.parametrize("legacy", [True, False])
def test_meta_rdn(tmp_path, legacy):
    content = meta_rdn_checkpoint()
    torch.save(content, tmp_path / "model_1000.pt", _use_new_zipfile_serialization=not legacy)
    folder = convert_checkpoint(tmp_path / "model_1000.pt", tmp_path / "out", name="mine")
    config = ModelConfig.from_json(folder / "config.json")
    assert config.decoder == {"name": "metasr", "hidden_dims": [256], "original": True}
    assert config.encoder == {"name": "rdn", "channels": 4, "blocks": 20, "layers": 6, "growth": 32}
    found = from_pretrained(folder, device="cpu").state_dict()
    assert len(found) == len(content)
    for name, tensor in content.items():
        named = name.replace("P2W.meta_block", "decoder.imnet.layers")
        named = named.replace("sub_", "decoder.normalisation.sub_").replace(
            "add_", "decoder.normalisation.add_"
        )
        assert torch.equal(found[named if named != name else f"encoder.{name}"], tensor)
    card = (folder / "README.md").read_text()
    assert "https://github.com/XuecaiHu/Meta-SR-Pytorch" in card and "has no licence: ask its authors" in card


META_RDN_CHANGES = [
    ({"sub_mean.bias": None}, r"1 tensor missing \(decoder.normalisation.sub_mean.bias\)"),
    ({"RDBs.3.LFF.bias": None}, r"1 tensor missing \(encoder.RDBs.3.LFF.bias\)"),
    ({"epoch": 3}, r"1 tensor unknown \(decoder.epoch\)"),
    ({7: torch.zeros(3)}, r"1 tensor unknown \(decoder.7\)"),
    ({"SFENet1.weight": torch.zeros(8, 3, 3, 3)}, "shape 4, expected 8"),
    ({"SFENet1.weight": [3]}, "SFENet1.weight: "),
    ({"P2W.meta_block.0.weight": torch.full((256, 3), torch.nan)}, "not finite"),
]


@pytest.mark.parametrize(("change", "message"), META_RDN_CHANGES)
def test_meta_rdns_tensors_are_checked(tmp_path, change, message):
    content = {key: t for key, t in (meta_rdn_checkpoint() | change).items() if t is not None}
    with pytest.raises(WeightsError, match=r"epoch-last\.pth.*" + message):
        convert(content, tmp_path)


@pytest.mark.parametrize(
    "switches", [{}, {"is_cell": False}, {"local_ensemble": True}, {"local_attn": False, "pb_spec": None}]
)
def test_lits_variants(tmp_path, switches):
    content = lit_checkpoint(**switches)
    folder = convert(content, tmp_path, name="mine")
    assert ModelConfig.from_json(folder / "config.json").decoder == {
        "name": "lit",
        "dim": 16,
        "heads": 2,
        "radius": 3 if switches.get("local_attn", True) else 0,
        "freq_dims": 8,
        "local_ensemble": switches.get("local_ensemble", False),
        "cell_decode": switches.get("is_cell", True),
        "hidden_dims": [8, 12],
    }
    given = content["model"]["sd"]
    given = {name: t for name, t in given.items() if "_mean." not in name and "pe_encoder" not in name}
    weights = from_pretrained(folder, device="cpu").state_dict()
    assert {name.removeprefix("decoder."): t.tolist() for name, t in weights.items()} == {
        name: t.tolist() for name, t in given.items()
    }


@pytest.mark.parametrize("rim", [True, False])
def test_msit(tmp_path, rim):
    content = msit_checkpoint(rim)
    folder = convert(content, tmp_path, name="mine")
    assert ModelConfig.from_json(folder / "config.json").decoder == {
        "name": "msit", "dim": 16, "heads": 2, "radius": 1, "kernels": 2, "query_kernels": 4, "fem": True,
        "hidden_dims": [8, 12],
    }  # fmt: skip
    sd, weights = content["model"]["sd"], from_pretrained(folder, device="cpu").state_dict()
    left_out = (
        "_mean.weight",
        "_mean.bias",
        "convmap.weight",
        "linear.weight",
        "tracked",
        "mask",
        "mix_margin",
    )
    given = {name: t for name, t in sd.items() if not name.endswith(left_out)}
    assert {name.removeprefix("decoder.") for name in weights} == set(given)
    for name, found in weights.items():
        kernel = given[name.removeprefix("decoder.")]
        stem = name.removeprefix("decoder.").removesuffix("weight")
        if f"{stem}convmap.weight" in sd:
            learnt, factor = (
                sd[f"{stem}{part}.weight"].view(*kernel.shape[:2], -1) for part in ("convmap", "linear")
            )
            padded = torch.nn.functional.pad(kernel, (1, 1, 1, 1))
            side = kernel.shape[-1]
            seen = sum(
                padded[..., y : y + side, x : x + side] * learnt[..., 3 * y + x, None, None]
                for y in range(3)
                for x in range(3)
            )
            kernel = kernel + seen * kernel * factor.unsqueeze(-1)
            torch.testing.assert_close(found, kernel, rtol=1e-6, atol=1e-6)
        else:
            assert torch.equal(found, kernel)
    card = (folder / "README.md").read_text()
    assert "https://github.com/Jinchen2028/MSIT" in card and "MIT licence" in card and "folded" in card


@pytest.mark.parametrize("plus", [False, True])
def test_lte(tmp_path, plus):
    content = lte_checkpoint(plus)
    folder = convert(content, tmp_path, name="mine")
    widths = [8, 8] if plus else [12, 10]
    assert ModelConfig.from_json(folder / "config.json").decoder == {
        "name": "lte",
        "dim": 8,
        "hidden_dims": widths,
        "plus": plus,
        "max_scale_cell": 4.0,
    }
    weights = from_pretrained(folder, device="cpu").decoder.state_dict()
    given = {k: t for k, t in content["model"]["sd"].items() if not k.startswith("encoder.")}
    assert {k: t.tolist() for k, t in weights.items()} == {k: t.tolist() for k, t in given.items()}
    card = (folder / "README.md").read_text()
    assert "https://github.com/jaewon-lee-b/lte" in card and "BSD-3-Clause" in card


def test_rdn(tmp_path):
    shapes = {f"encoder.{name}": shape for name, shape in RDN_SHAPES.items()}
    spec = {"name": "rdn", "args": {"no_upsampling": True, "G0": 4, "RDNconfig": "A"}}
    folder = convert(checkpoint(spec, shapes, channels=4), tmp_path)
    assert ModelConfig.from_json(folder / "config.json").encoder == {
        "name": "rdn",
        "channels": 4,
        "blocks": 20,
        "layers": 6,
        "growth": 32,
    }
    assert len(load_file(folder / "model.safetensors")) == 2 * (len(shapes) + 1 + len(DECODER_SHAPES))


def test_swinir_loses_its_buffers(tmp_path):
    around = {"conv_first": (180, 3, *CONV), "conv_after_body": (180, 180, *CONV)}
    around |= {"conv_before_upsample.0": (64, 180, *CONV), "patch_embed.norm": (180,), "norm": (180,)}
    inside = {"norm1": (180,), "norm2": (180,), "attn.qkv": (540, 180), "attn.proj": (180, 180)}
    inside |= {"mlp.fc1": (360, 180), "mlp.fc2": (180, 360)}
    blocks = [f"layers.{i}.residual_group.blocks.{j}" for i in range(6) for j in range(6)]
    shapes = around | {f"layers.{i}.conv": (180, 180, *CONV) for i in range(6)}
    shapes |= {f"{block}.{name}": shape for block in blocks for name, shape in inside.items()}
    shapes = {f"encoder.{name}": shape for name, shape in shapes.items()}
    content = checkpoint({"name": "swinir", "args": {"no_upsampling": True}}, shapes, channels=64)
    sd = content["model"]["sd"]
    for i, block in enumerate(blocks):
        sd[f"encoder.{block}.attn.relative_position_bias_table"] = torch.randn(225, 6)
        sd[f"encoder.{block}.attn.relative_position_index"] = torch.zeros(64, 64, dtype=torch.int64)
        if i % 2:
            sd[f"encoder.{block}.attn_mask"] = torch.zeros(36, 64, 64)
    weights = load_file(convert(content, tmp_path) / "model.safetensors")
    assert len(weights) == len(sd) - 36 - 18
    assert not [name for name in weights if name.endswith(("relative_position_index", "attn_mask"))]


def test_name(tmp_path):
    assert ModelConfig.from_json(convert(checkpoint(), tmp_path, name="mine") / "config.json").name == "mine"
    with pytest.raises(ConfigError, match="name is"):
        convert(checkpoint(), tmp_path, name="../mine", overwrite=True)


@pytest.mark.parametrize(("folder", "name"), [("模型.v1", "v1"), (".-_", "converted"), ("a b", "a-b")])
def test_a_folder_gives_the_name(tmp_path, folder, name):
    torch.save(checkpoint(), tmp_path / "a.pth")
    written = convert_checkpoint(tmp_path / "a.pth", tmp_path / folder)
    assert ModelConfig.from_json(written / "config.json").name == name


def test_a_registered_models_settings_give_its_name(tmp_path):
    # edsr-light-lit: the smallest registered model
    wide = ["head.0", *(f"body.{i}.body.{j}" for i in range(12) for j in (0, 2)), "body.12"]
    shapes = {f"encoder.{name}": (64, 3 if name == "head.0" else 64, *CONV) for name in wide}
    shapes |= dict.fromkeys(("conv_ch", "conv_vs.0", "conv_qs.0", "conv_ks.0"), (64, 64, *CONV))
    mlp = [(128, 9 * 64 + 2), (64, 128), (64, 64), (64, 64), (3, 64)]
    shapes |= {f"imnets.0.layers.{2 * i}": shape for i, shape in enumerate(mlp)}
    content = checkpoint({"name": "edsr-baseline", "args": {"no_upsampling": True, "n_resblocks": 12}})
    content["model"]["sd"] = tensors({**shapes, "pb_encoder.proj": (4, 64)})
    content["model"]["args"] |= {"base_dim": 64, "head": 4, "imnet_num": 1, "conv_num": 1}
    content["model"]["args"]["imnet_spec"]["args"]["hidden_list"] = [128, 64, 64, 64]
    folder = convert(content, tmp_path)
    assert ModelConfig.from_json(folder / "config.json").name == "edsr-light-lit"


def test_a_folder_in_use_is_left_alone(tmp_path):
    folder = convert(checkpoint(), tmp_path)
    before = (folder / "config.json").read_bytes()
    with pytest.raises(ClitZooError, match="already holds"):
        convert(checkpoint(), tmp_path, name="other")
    assert (folder / "config.json").read_bytes() == before
    convert(checkpoint(), tmp_path, name="other", overwrite=True)
    assert ModelConfig.from_json(folder / "config.json").name == "other"


def set_at(*path_and_value):
    *path, last, value = path_and_value

    def change(content):
        for key in path:
            content = content[key]
        content[last] = value

    return change


def drop(name):
    return lambda content: content["model"]["sd"].pop(name)


SD = ("model", "sd")
SPEC = ("model", "args")
CONFIG_CHANGES = [
    (set_at("model", "name", "lit2"), r'"lit2"; allowed is one of clit, lit, liif, ITNSR, metasr'),
    (set_at("model", "name", "srno"), r'"srno"; allowed is'),
    (set_at("model", "name", "metasr"), "args.base_dim is unknown"),
    (set_at("model", "name", "liif"), "args.base_dim is unknown"),
    (set_at("model", "name", torch.zeros(2)), "name is a Tensor"),
    (set_at("model", "args", [1]), "args must be an object"),
    (set_at("scheduler", {}), "checkpoint.scheduler is unknown"),
    (set_at("model", "notes", ""), "model.notes is unknown"),
    (set_at(*SPEC, "ensemble", True), "args.ensemble is unknown"),
    (set_at(*SPEC, "is_cell", False), "is_cell is false"),
    (set_at(*SPEC, "local_attn", False), "local_attn is false"),
    (set_at(*SPEC, "conv_num", 3), "conv_num is 3; allowed is 2"),
    (set_at(*SPEC, "base_dim", 10**9), "decoder.dim"),
    (set_at(*SPEC, "base_dim", torch.tensor(16)), "base_dim is a Tensor"),
    (set_at(*SPEC, "pb_spec", None), "pb_spec must be an object"),
    (set_at(*SPEC, "pb_spec", "args", "posenc_scale", 6), "posenc_scale is 6"),
    (set_at(*SPEC, "pb_spec", "args", "posenc_type", "ipe"), 'posenc_type is "ipe"'),
    (set_at(*SPEC, "pb_spec", "name", "other"), "pb_spec.name"),
    (set_at(*SPEC, "imnet_spec", "args", "act", "relu"), 'act is "relu"'),
    (set_at(*SPEC, "imnet_spec", "args", "out_dim", 4), "out_dim is 4"),
    (set_at(*SPEC, "encoder_spec", "name", "rcan"), r'encoder_spec.name is "rcan".*swinir'),
    (set_at(*SPEC, "encoder_spec", "name", ["rdn"]), "encoder_spec.name"),
    (set_at(*SPEC, "encoder_spec", "args", "no_upsampling", False), "no_upsampling is false"),
    (set_at(*SPEC, "encoder_spec", "args", "res_scale", 0.1), "res_scale is 0.1"),
    (set_at(*SPEC, "encoder_spec", "args", "act", "gelu"), "args.act is unknown"),
]


@pytest.mark.parametrize(("change", "message"), CONFIG_CHANGES)
def test_unknown_content_is_named(tmp_path, change, message):
    content = checkpoint()
    change(content)
    with pytest.raises(ConfigError, match=r"epoch-last\.pth.*" + message):
        convert(content, tmp_path)
    assert not (tmp_path / "my model").exists()


LIIF_CHANGES = [
    (set_at(*SPEC, "imnet_spec", None), ConfigError, "imnet_spec must be an object"),
    (set_at(*SPEC, "imnet_spec", "args", "act", "gelu"), ConfigError, "args.act is unknown"),
    (set_at(*SPEC, "imnet_spec", "args", "out_dim", 4), ConfigError, "out_dim is 4"),
    (set_at(*SPEC, "cell_decode", 1), ConfigError, "cell_decode is 1; allowed is true or false"),
    (set_at(*SPEC, "base_dim", 64), ConfigError, "args.base_dim is unknown"),
    (set_at(*SPEC, "cell_decode", False), WeightsError, "imnet.layers.0.weight: shape 8×76, expected 8×74"),
    (drop("imnet.layers.2.bias"), WeightsError, r"1 tensor missing \(decoder.imnet.layers.2.bias\)"),
    (
        set_at(*SD, "imnet.layers.6.bias", torch.zeros(3)),
        WeightsError,
        r"1 tensor unknown \(decoder.imnet.layers.6.bias\)",
    ),
]


ITSRN_CHANGES = [
    (set_at(*SPEC, "local_ensemble", False), ConfigError, "local_ensemble is false"),
    (set_at(*SPEC, "embedding_coord", {"name": "mlp"}), ConfigError, "embedding_coord is an object of 1"),
    (set_at(*SPEC, "imnet_spec", None), ConfigError, "imnet_spec must be an object"),
    (set_at(*SPEC, "imnet_spec", "args", {"hidden_list": [8, 12]}), ConfigError, 'act is "sine"'),
    (set_at(*SPEC, "cell_decode", True), ConfigError, "args.cell_decode is unknown"),
    (drop("Score.layers.2.bias"), WeightsError, r"1 tensor missing \(decoder.Score.layers.2.bias\)"),
    (set_at(*SD, "embedding_q.a", torch.zeros(3)), WeightsError, r"unknown \(decoder.embedding_q.a\)"),
]
METASR_CHANGES = [
    (set_at(*SPEC, "imnet_spec", {}), ConfigError, "args.imnet_spec is unknown"),
    (set_at(*SPEC, "encoder_spec", None), ConfigError, "encoder_spec must be an object"),
    (drop("imnet.layers.0.bias"), WeightsError, r"1 tensor missing \(decoder.imnet.layers.0.bias\)"),
    (set_at(*SD, "P2W.0.bias", torch.zeros(3)), WeightsError, r"1 tensor unknown \(decoder.P2W.0.bias\)"),
    (
        set_at(*SD, "imnet.layers.2.bias", torch.zeros(9)),
        WeightsError,
        "layers.2.bias: shape 9, expected 216",
    ),
]


@pytest.mark.parametrize(
    ("made", "change", "error", "message"),
    [
        *((liif_checkpoint, *row) for row in LIIF_CHANGES),
        *((metasr_checkpoint, *row) for row in METASR_CHANGES),
        *((itsrn_checkpoint, *row) for row in ITSRN_CHANGES),
    ],
)
def test_content_is_checked(tmp_path, made, change, error, message):
    content = made()
    change(content)
    with pytest.raises(error, match=r"epoch-last\.pth.*" + message):
        convert(content, tmp_path)


LIT_CHANGES = [
    (set_at(*SPEC, "local_attn", 2), ConfigError, "local_attn is 2; allowed is true or false"),
    (set_at(*SPEC, "pb_spec", None), ConfigError, "pb_spec must be an object"),
    (set_at(*SPEC, "pe_spec", None), ConfigError, "pe_spec must be an object"),
    (set_at(*SPEC, "pe_spec", "args", "complex_transform", False), ConfigError, "complex_transform is false"),
    (set_at(*SPEC, "pe_spec", "args", "posenc_scale", 6), ConfigError, "pe_spec.args.posenc_scale is 6"),
    (set_at(*SPEC, "pe_spec", "args", "enc_dims", 6), ConfigError, "freq_dims is 6; .* multiple of 4"),
    (set_at(*SPEC, "r", 3), ConfigError, "args.r is unknown"),
    (drop("conv_freq.bias"), WeightsError, r"1 tensor missing \(decoder.conv_freq.bias\)"),
    (set_at(*SD, "conv_ch.bias", torch.zeros(16)), WeightsError, "1 tensor unknown"),
    (set_at(*SPEC, "local_attn", False), WeightsError, "6 tensors unknown"),
]


@pytest.mark.parametrize(("change", "error", "message"), LIT_CHANGES)
def test_the_content_of_lits_variants_is_checked(tmp_path, change, error, message):
    content = lit_checkpoint()
    change(content)
    with pytest.raises(error, match=r"epoch-last\.pth.*" + message):
        convert(content, tmp_path)


CONV_1 = "amsno.Ms_conv_1"
MSIT_CHANGES = [
    (set_at(*SPEC, "imnet_num", 2), ConfigError, "imnet_num is 2"),
    (set_at(*SPEC, "is_cell", False), ConfigError, "is_cell is false"),
    (set_at(*SPEC, "MsC_heads", 3), ConfigError, "dim is 16; allowed is a multiple of decoder.kernels, 3"),
    (set_at(*SPEC, "gamma", 3), ConfigError, "args.gamma is unknown"),
    (set_at(*SPEC, "use_lem", 1), ConfigError, "fem is 1; allowed is true or false"),
    (set_at("model", "sd", []), ConfigError, "model.sd is a list of 0; allowed is a dict"),
    (drop(f"{CONV_1}.linear.weight"), WeightsError, f"{CONV_1}.linear.weight are not the three tensors"),
    (drop(f"{CONV_1}.weight"), WeightsError, f"{CONV_1}.linear.weight are not the three tensors"),
    (drop(f"{CONV_1}.convmap.weight"), WeightsError, "1 tensor unknown .*linear.weight"),
    (drop(f"{CONV_1}.bias"), WeightsError, r"1 tensor missing \(decoder.amsno.Ms_conv_1.bias\)"),
    (drop("amsno.bn.running_var"), WeightsError, "1 tensor missing"),
    (
        set_at(*SD, f"{CONV_1}.convmap.weight", torch.zeros(64, 1, 5, 5)),
        WeightsError,
        "not the three tensors",
    ),
    (set_at(*SD, f"{CONV_1}.weight", torch.zeros(0, 8, 3, 3)), WeightsError, "not the three tensors"),
    (set_at(*SD, f"{CONV_1}.weight", torch.full((8, 8, 3, 3), torch.nan)), WeightsError, "not finite"),
    (set_at(*SD, "amsno.Ms_conv_3.convmap.weight", torch.zeros(1)), WeightsError, "not the three tensors"),
    (set_at(*SD, "multi_conv_qs.1.proj0.bias", torch.zeros(16)), WeightsError, "1 tensor unknown"),
    (set_at(*SD, "amsno.lem.mix_margin", torch.tensor(2.0)), WeightsError, "mix_margin is missing, or not"),
    (set_at(*SD, "amsno.lem.mask", torch.zeros(16, 1, 3, 3)), WeightsError, "mask is missing, or not"),
    (drop("amsno.lem.mask"), WeightsError, "mask is missing, or not"),
]


@pytest.mark.parametrize(("change", "error", "message"), MSIT_CHANGES)
def test_msits_content_is_checked(tmp_path, change, error, message):
    content = msit_checkpoint()
    change(content)
    with pytest.raises(error, match=r"epoch-last\.pth.*" + message):
        convert(content, tmp_path)
    assert not (tmp_path / "my model" / "config.json").exists()


LTE_CHANGES = [
    (False, set_at(*SPEC, "imnet_spec", None), ConfigError, "imnet_spec must be an object"),
    (False, set_at(*SPEC, "imnet_spec", "args", "out_dim", 4), ConfigError, "out_dim is 4"),
    (False, set_at(*SPEC, "num_layer", 3), ConfigError, "args.num_layer is unknown"),
    (False, set_at("model", "name", "lte-fast"), ConfigError, "args.imnet_spec is unknown"),
    (False, set_at(*SPEC, "hidden_dim", 9), ConfigError, "dim is 9; allowed is a multiple of 2"),
    (False, drop("phase.weight"), WeightsError, r"1 tensor missing \(decoder.phase.weight\)"),
    (False, set_at(*SD, "phase.bias", torch.zeros(4)), WeightsError, "1 tensor unknown"),
    (True, set_at(*SPEC, "imnet_spec", None), ConfigError, "args.imnet_spec is unknown"),
    (True, set_at(*SPEC, "out_dim", 4), ConfigError, "out_dim is 4"),
    (True, set_at(*SPEC, "num_layer", 10**9), ConfigError, "num_layer is 1000000000; allowed is 1 to 8"),
    (True, set_at(*SPEC, "num_layer", 2.0), ConfigError, "num_layer is 2.0; allowed is 1 to 8"),
    (True, set_at(*SPEC, "num_layer", 3), WeightsError, "tensors missing"),
    (True, drop("layers.2.bias"), WeightsError, r"1 tensor missing \(decoder.layers.2.bias\)"),
    (True, set_at(*SD, "layers.4.weight", torch.zeros(3, 8)), WeightsError, "shape 3×8, expected 3×8×1×1"),
]


@pytest.mark.parametrize(("plus", "change", "error", "message"), LTE_CHANGES)
def test_ltes_content_is_checked(tmp_path, plus, change, error, message):
    content = lte_checkpoint(plus)
    change(content)
    with pytest.raises(error, match=r"epoch-last\.pth.*" + message):
        convert(content, tmp_path)


RDN_CHANGES = [("RDNconfig", "C"), ("RDNconfig", ["A"]), ("RDNkSize", 5), ("no_upsampling", False)]


@pytest.mark.parametrize(("key", "value"), RDN_CHANGES)
def test_rdns_arguments_are_checked(tmp_path, key, value):
    content = checkpoint({"name": "rdn", "args": {"no_upsampling": True, key: value}})
    with pytest.raises(ConfigError, match=f"encoder_spec.args.{key} is"):
        convert(content, tmp_path)


WEIGHT_CHANGES = [
    (drop("conv_ch.bias"), r"1 tensor missing \(decoder.conv_ch.bias\)"),
    (set_at(*SD, "conv_ch.extra", torch.zeros(1)), r"1 tensor unknown \(decoder.conv_ch.extra\)"),
    (set_at(*SD, "encoder.layers.0.residual_group.blocks.0.attn_mask", torch.zeros(1)), "1 tensor unknown"),
    (set_at(*SD, "conv_ch.bias", torch.zeros(17)), r"conv_ch.bias: shape 17, expected 16"),
    (set_at(*SD, "conv_ch.bias", torch.zeros(16, dtype=torch.int32)), r"conv_ch.bias: int32"),
    (set_at(*SD, "conv_ch.bias", torch.zeros(16).to_sparse()), r"conv_ch.bias: no plain tensor"),
    (set_at(*SD, "conv_ch.bias", [0.0] * 16), r"conv_ch.bias: no plain tensor"),
    (set_at(*SD, "conv_ch.bias", torch.full((16,), torch.nan)), "not finite.*conv_ch.bias"),
]


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
@pytest.mark.parametrize(("change", "message"), WEIGHT_CHANGES)
def test_tensors_must_be_those_of_the_arguments(tmp_path, change, message):
    content = checkpoint()
    change(content)
    with pytest.raises(WeightsError, match=r"epoch-last\.pth.*" + message):
        convert(content, tmp_path)
    assert not (tmp_path / "my model" / "config.json").exists()


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    content = checkpoint()
    content["state"] = Bomb(str(tmp_path / "ran"))
    with pytest.raises(WeightsError, match=r"could run code.*mkdir"):
        convert(content, tmp_path)
    assert not (tmp_path / "ran").exists()
    # the file would have run it
    torch.load(tmp_path / "epoch-last.pth", weights_only=False)
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"\x80\x02.", b"PK\x03\x04 not a zip", b"text", b"\x89PNG\r\n"])
def test_damaged_files(tmp_path, content):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=r"x\.pth") as error:
        convert_checkpoint(tmp_path / "x.pth", tmp_path / "out")
    # torch advises weights_only=False, which runs whatever a stranger put into the file
    assert "weights" not in str(error.value).lower()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"), "takes too much memory"),
        (MemoryError(), "takes too much memory"),
    ],
)
def test_a_sound_file_is_not_called_damaged(tmp_path, monkeypatch, error, words):
    def load(*_, **__):
        raise error

    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(WeightsError, match=words):
        convert(checkpoint(), tmp_path)


@pytest.mark.parametrize("kind", ["compressed", "overlapping"])
def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch, kind):
    """A few kB that stand for 100 MB, as torch.load would find them."""
    torch.save(checkpoint(), tmp_path / "sound.pth")
    with zipfile.ZipFile(tmp_path / "sound.pth") as sound, zipfile.ZipFile(tmp_path / "x.pth", "w") as bomb:
        for record in sound.infolist():
            bomb.writestr(record.filename, sound.read(record), zipfile.ZIP_STORED)
        if kind == "compressed":
            bomb.writestr("archive/data/99", bytes(100_000_000), zipfile.ZIP_DEFLATED)
        else:  # many entries for the same bytes
            bomb.filelist += bomb.filelist * 50
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("was unpacked"))
    with pytest.raises(WeightsError, match="not compressed"):
        convert_checkpoint(tmp_path / "x.pth", tmp_path / "out")


def test_truncated_checkpoint(tmp_path):
    convert(checkpoint(), tmp_path)
    path = tmp_path / "epoch-last.pth"
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(WeightsError, match=r"epoch-last\.pth"):
        convert_checkpoint(path, tmp_path / "out")


def test_what_is_no_checkpoint(tmp_path):
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ConfigError, match=r"list\.pth is a list of 2; allowed is a training script's dict"):
        convert_checkpoint(tmp_path / "list.pth", tmp_path / "out")


def test_a_training_runs_state_is_told_apart(tmp_path):
    save_checkpoint(tmp_path / "checkpoint.pt", {"step": 3, "model": {"a": torch.zeros(1)}})
    with pytest.raises(ConfigError, match="state of a training run") as error:
        convert_checkpoint(tmp_path / "checkpoint.pt", tmp_path / "out")
    assert f"model is in {tmp_path / 'model'};" in str(error.value) and "goes on" in str(error.value)
    assert not (tmp_path / "out").exists()


def test_command(tmp_path):
    torch.save(checkpoint(), tmp_path / "x.pth")
    arguments = [str(tmp_path / "x.pth"), "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(command, [*arguments, "--name", "mine"])
    assert result.exit_code == 0, result.output
    assert "mine, 0.0 million parameters" in result.output
    assert isinstance(CliRunner().invoke(command, arguments).exception, ClitZooError)
    assert CliRunner().invoke(command, [*arguments, "--overwrite"]).exit_code == 0
