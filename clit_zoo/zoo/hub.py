"""A name, a folder or a Hub repository -> the files of a model; loading and publishing them.

Nothing here imports torch until tensors are read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import HubError, ModelNotFoundError, WeightsNotFoundError
from . import registry
from .config import ModelConfig
from .download import Repo, Unreachable, ask, fetch, is_repo_id, is_revision, translated
from .folder import CARD_FILE, CONFIG_FILE, HERE, WEIGHTS_FILE, ModelFiles, files_in, read_weights

if TYPE_CHECKING:
    from torch import Tensor, nn


class Loaded(NamedTuple):
    config: ModelConfig
    state_dict: dict[str, Tensor]
    origin: str
    card: str | None


def load(
    name_or_path: str | os.PathLike[str],
    build: Callable[[ModelConfig], nn.Module],
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> Loaded:
    """Resolves and reads a model. `build` makes its module from the configuration (on the meta device will
    do): the weights must have exactly the tensors of its state dict.

    Returns the configuration, the tensors (CPU, in their stored type), where they came from, and the model
    card if there is one beside them. Raises what `resolve` raises, ConfigError and WeightsError.
    """
    files = resolve(
        name_or_path,
        revision=revision,
        cache_dir=cache_dir,
        token=token,
        local_files_only=local_files_only,
    )
    config = ModelConfig.from_json(files.config_path)
    shapes = {name: tuple(tensor.shape) for name, tensor in build(config).state_dict().items()}
    card = files.config_path.with_name(CARD_FILE)
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else None
    return Loaded(config, read_weights(files.weights_path, shapes), files.origin, text)


def resolve(
    name_or_path: str | os.PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> ModelFiles:
    """Finds the files of a model: a folder that exists; a registered name (weights that ship with the
    library, else its Hub repository at the pinned revision and checksum); any repository "organisation/name".

    revision: a branch, tag or commit of the Hub repository. cache_dir: default: the client's, see HF_HOME.
    token: for private and gated repositories; default: that of `hf auth login`. local_files_only: no network,
    as with HF_HUB_OFFLINE=1.

    Raises ModelNotFoundError, WeightsNotFoundError (the model is known, its weights do not exist), HubError
    (network, refusal, damaged download).
    """
    text = os.fspath(name_or_path) if isinstance(name_or_path, str | os.PathLike) else name_or_path
    if not isinstance(text, str) or not text.strip() or "\0" in text:
        raise ModelNotFoundError(f"{text!r} is no name of a model, folder or Hub repository.")
    if revision is not None and not is_revision(revision):
        raise HubError(f"revision={revision!r} is no branch, tag or commit.")

    folder = Path(text).expanduser()  # os.path asks: unlike Path it takes a name too long for "not there"
    # A folder that merely has the name of a model, such as one with results, does not hide the model.
    if os.path.isdir(folder) and (text not in registry.REGISTRY or (folder / CONFIG_FILE).is_file()):
        _refuse_revision(revision, f"{text} is a folder")
        return files_in(folder, f"folder {folder}")
    if os.path.isfile(folder):
        raise ModelNotFoundError(
            f"{text} is a file; name the folder with {CONFIG_FILE} and {WEIGHTS_FILE}. To turn a checkpoint "
            f"into one: clit-zoo convert {text} -o FOLDER."
        )
    options: dict[str, Any] = {"cache_dir": cache_dir, "token": token}
    if text in registry.REGISTRY:
        entry = registry.get(text)
        if entry.folder is not None and (revision is None or entry.repo_id is None):
            _refuse_revision(revision, f"{text} ships with the library")
            return files_in(entry.folder, "embedded")
        if entry.repo_id is None or entry.revision is None:
            raise WeightsNotFoundError(_no_weights(text))
        # Of another revision than the pinned one the checksum is not known.
        pinned = revision in (None, entry.revision)
        repo = Repo(entry.repo_id, revision or entry.revision, entry.sha256 if pinned else None, **options)
        return fetch(repo, local_files_only)
    if is_repo_id(text):
        return fetch(Repo(text, revision or "main", None, **options), local_files_only)
    if re.search(r"[/\\]|^[.~]", text):
        raise ModelNotFoundError(
            f"There is no folder {text}, and it is no Hub repository ('organisation/name'). Registered "
            f"models: {', '.join(registry.REGISTRY)}."
        )
    registry.get(text)  # raises, with the names that are close
    raise AssertionError("unreachable")


def push(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    token: str | bool | None = None,
    commit_message: str = "Upload a clit_zoo model",
) -> str:
    """Publishes a model folder as a Hub repository, made if need be; returns the address of the commit.

    The folder's configuration is checked first, and its card's usage lines get the repository's name. Raises
    HubError, also where `private` is asked for and the repository is there and public; ConfigError,
    WeightsNotFoundError.
    """
    import huggingface_hub

    files = files_in(Path(folder), f"folder {folder}")
    ModelConfig.from_json(files.config_path)
    if not is_repo_id(repo_id):
        raise HubError(f"{repo_id!r} is no Hub repository; write 'organisation/name'.")
    repo = Repo(repo_id, "main", None, None, token)
    try:
        # The client's own calls have no time limit: see first whether there is a server.
        ask(f"{huggingface_hub.constants.ENDPOINT}/api/models/{repo_id}", repo)
    except Exception as error:
        refusal = translated(error, repo, CONFIG_FILE)
        if isinstance(refusal, Unreachable):
            raise refusal from error
    try:
        api = huggingface_hub.HfApi(token=token, library_name="clit_zoo")
        api.create_repo(repo_id, private=private, exist_ok=True)
        if private and not api.model_info(repo_id).private:  # creating leaves one that is there as it is
            raise HubError(
                f"{repo_id} is a public repository already, and nothing was uploaded: make it private in its "
                "settings, take another name, or leave out private=True."
            )
        add = huggingface_hub.CommitOperationAdd
        operations = [add(name, content) for name, content in _contents(files, repo_id)]
        commit = api.create_commit(repo_id, operations, commit_message=commit_message)
    except HubError:
        raise
    except Exception as error:
        raise translated(error, repo, WEIGHTS_FILE) from error
    return str(commit.commit_url)


def _contents(files: ModelFiles, repo_id: str) -> list[tuple[str, str | bytes]]:
    """Name in the repository, and path or bytes, of each file of a model."""
    contents: list[tuple[str, str | bytes]] = [
        (CONFIG_FILE, str(files.config_path)),
        (WEIGHTS_FILE, str(files.weights_path)),
    ]
    card = files.config_path.with_name(CARD_FILE)
    if card.is_file():
        contents.append((CARD_FILE, card.read_bytes().replace(HERE.encode(), repo_id.encode())))
    return contents


def _no_weights(name: str) -> str:
    ready = [other for other in registry.REGISTRY if registry.status(other) != "no weights yet"]
    return (
        f"{name} is a registered model, but no weights for it have been published yet. Train it "
        "(examples/finetune.py), convert a checkpoint of its authors' code (clit-zoo convert CHECKPOINT -o "
        f"FOLDER) and load that folder, or use another model{': ' + ', '.join(ready) if ready else ''}."
    )


def _refuse_revision(revision: str | None, because: str) -> None:
    if revision is not None:
        raise HubError(f"revision={revision!r} is for Hub repositories, and {because}; leave it out.")
