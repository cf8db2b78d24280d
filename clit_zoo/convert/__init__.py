"""Checkpoints of other people's code -> model folders.

The training scripts of CLIT, LIIF and their relatives pickle {"model": {"name", "args", "sd"}, "optimizer",
"epoch"}: "args" are the arguments of their classes, "sd" the tensors under the names that this library uses
too. ``systems.SYSTEMS`` has a row for each of them; CiaoSR's are of another form (``mmedit``), and the
original Meta-SR's are bare tensors (``meta_rdn``). A checkpoint may come from a stranger, so nothing in it is
run, and what is not understood is refused: it could mean a model that computes something else.
"""

import hashlib
import re
from pathlib import Path
from typing import Any

from ..errors import ConfigError, WeightsError
from ..zoo import registry
from ..zoo.config import ModelConfig, fields
from ..zoo.folder import model_card, write_model_folder
from . import meta_rdn, mmedit
from .checkpoint import arguments, read, tensors
from .encoders import UNUSED, encoder_settings
from .systems import CIAOSR, META_RDN, System, system_of


def convert_checkpoint(
    path: str | Path, out_folder: str | Path, *, name: str | None = None, overwrite: bool = False
) -> Path:
    """Write the model of a checkpoint as a folder that ``from_pretrained`` loads.

    Args:
        path: a .pth file written by the training script of one of ``systems.SYSTEMS``, CiaoSR or Meta-SR.
        out_folder: where config.json, model.safetensors and README.md go; made if need be.
        name: what the model is called; by default as the registered model with the same settings, else as
            the folder.
        overwrite: replace a model that is there already; other files stay.

    Returns:
        The folder.

    Raises:
        ConfigError: the checkpoint holds a model, an argument or a value that this library does not have, or
            is the state of a run of this library's own training.
        WeightsError: it is damaged, holds objects other than tensors and plain values, or its tensors are not
            exactly those of its arguments.
        ClitZooError: the folder holds a model already.
        OSError: the checkpoint cannot be read, or the folder not be written.
    """
    path, out_folder = Path(path), Path(out_folder)
    content = read(path)
    form = content.get("format")
    if isinstance(form, str) and form.startswith("clit_zoo run/"):
        raise ConfigError(
            f"{path} cannot be converted: it is the state of a training run of this library. Its model is in "
            f"{path.parent / 'model'}; if that is not there yet, the command that trained it goes on and "
            "writes it at the end."
        )
    try:
        if "state_dict" in content:
            system, (encoder, decoder, given) = CIAOSR, mmedit.model_of(content)
        elif "P2W.meta_block.0.weight" in content:
            system, (encoder, decoder, given) = META_RDN, meta_rdn.model_of(content)
        else:
            fields(content, "the checkpoint", ("model",), ("optimizer", "epoch", "state"))
            model = fields(content["model"], "model", ("name", "args", "sd"))
            system, given = system_of(model["name"]), model["sd"]
            args = arguments(model["args"], "args", system.arguments)
            encoder, decoder = encoder_settings(args["encoder_spec"]), system.decoder(args)
        config = ModelConfig(name or _name(encoder, decoder, out_folder), encoder, decoder)
        weights = tensors(system.weights(given), config, UNUSED[encoder["name"]])
        card = model_card(
            config,
            repo_id=out_folder.resolve().name,
            summary=f"Converted from `{path.name}`, a checkpoint of the code at <{system.origin}>.",
            body=_provenance(path, content.get("epoch"), system),
        )
        return write_model_folder(out_folder, config, weights, card, overwrite=overwrite)
    except (ConfigError, WeightsError) as error:
        raise type(error)(f"{path} cannot be converted: {error}") from error


def _name(encoder: dict[str, Any], decoder: dict[str, Any], folder: Path) -> str:
    known = registry.name_of(ModelConfig("unnamed", encoder, decoder))
    # a name starts with a letter or digit
    return known or re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("-._")[:96] or "converted"


def _provenance(path: Path, epoch: Any, system: System) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    trained = f", saved after epoch {epoch}" if type(epoch) is int and abs(epoch) < 10**9 else ""
    terms = "has no licence: ask its authors before you pass on those published with it"
    if system.license:
        terms = f"is under the {system.license} licence, and so are those published with it"
    return (
        f"## Source\n\n`{path.name}`{trained}; SHA-256 `{digest}`. {system.changed}\n\nThe code "
        f"that writes such checkpoints {terms}; one that you trained yourself is yours."
    )
