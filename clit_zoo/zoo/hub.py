"""A name, a folder or a Hub repository -> the files of a model; loading and publishing them."""

import contextlib
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError
from torch import Tensor

from ..errors import ClitZooError, HubError, ModelNotFoundError, WeightsNotFoundError
from . import download, registry
from .config import ModelConfig
from .folder import CARD_FILE, CONFIG_FILE, HERE, WEIGHTS_FILE, ModelFiles, files_in, read_card, read_weights
from .skeleton import shapes

_NAME = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?"
_REPO_ID = re.compile(f"{_NAME}/{_NAME}")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")


class Loaded(NamedTuple):
    """A model as read: its settings, its tensors (CPU, in their stored type), and the text of its card."""

    config: ModelConfig
    state_dict: dict[str, Tensor]
    card: str | None


def load(name_or_path: str | os.PathLike[str], **options: Any) -> Loaded:
    """Resolve and read a model.

    Args:
        name_or_path: as ``resolve`` takes it, and so are ``options``.

    Raises:
        ModelNotFoundError, WeightsNotFoundError, HubError: as ``resolve``.
        ConfigError, WeightsError: its files are damaged, too large or do not belong together.
    """
    files = resolve(name_or_path, **options)
    config = ModelConfig.from_json(files.config_path)
    tensors = read_weights(files.weights_path, shapes(config))
    return Loaded(config, tensors, read_card(files.config_path.parent))


def resolve(
    name_or_path: str | os.PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> ModelFiles:
    """Find the files of a model.

    Args:
        name_or_path: a folder that exists; a registered name (weights that ship with the library, else its
            Hub repository at the pinned revision and checksum); or any repository "organisation/name".
        revision: a branch, tag or commit of the Hub repository.
        cache_dir: where downloads are kept; the Hub client's own cache (``HF_HOME``) where left out.
        token: for private and gated repositories; that of ``hf auth login`` where left out.
        local_files_only: use no network, as with ``HF_HUB_OFFLINE=1``.

    Raises:
        ModelNotFoundError: nothing goes by this name.
        WeightsNotFoundError: the model is known, its weights do not exist.
        HubError: network, refusal, damaged download.
    """
    text = os.fspath(name_or_path) if isinstance(name_or_path, str | os.PathLike) else name_or_path
    if not isinstance(text, str) or not text.strip() or "\0" in text:
        raise ModelNotFoundError(f"{text!r} is no name of a model, folder or Hub repository.")
    if revision is not None and not is_revision(revision):
        raise HubError(f"revision={revision!r} is no branch, tag or commit.")

    folder = Path(text).expanduser()  # os.path asks: unlike Path it takes a name too long for "not there"
    entry = registry.find(text)
    # A folder that merely has the name of a model, such as one with results, does not hide the model.
    if os.path.isdir(folder) and (entry is None or (folder / CONFIG_FILE).is_file()):
        _refuse_revision(revision, f"{text} is a folder")
        return files_in(folder, f"folder {folder}")
    if os.path.isfile(folder):
        raise ModelNotFoundError(
            f"{text} is a file; name the folder with {CONFIG_FILE} and {WEIGHTS_FILE}. To turn a checkpoint "
            f"into one: clit-zoo convert {text} -o FOLDER."
        )
    if entry is not None:
        if entry.folder is not None and (revision is None or entry.repo_id is None):
            _refuse_revision(revision, f"{entry.name} ships with the library")
            return files_in(entry.folder, "embedded")
        if entry.repo_id is None or entry.revision is None:
            raise WeightsNotFoundError(_no_weights(entry.name))
        # Of another revision than the pinned one the checksum is not known.
        sha256 = entry.sha256 if revision in (None, entry.revision) else None
        repo = download.Repo(entry.repo_id, revision or entry.revision, sha256, cache_dir, token)
    elif is_repo_id(text):
        repo = download.Repo(text, revision or "main", None, cache_dir, token)
    else:
        if re.search(r"[/\\]|^[.~]", text):
            raise ModelNotFoundError(
                f"There is no folder {text}, and it is no Hub repository ('organisation/name'). "
                "`clit-zoo list` shows the registered models."
            )
        raise registry.unknown(text)
    return download.fetch(repo, local_files_only)


def push(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    token: str | bool | None = None,
    commit_message: str = "Upload a clit_zoo model",
) -> str:
    """Publish a model folder as a Hub repository.

    The folder's configuration is checked first, and its card's usage lines get the repository's name.

    Args:
        folder: config.json, model.safetensors and, if there is one, README.md are uploaded.
        repo_id: "organisation/name"; made if need be.
        private: make it so.
        token: that of ``hf auth login`` where left out.
        commit_message: the title of the commit.

    Returns:
        The address of the commit.

    Raises:
        HubError: the Hub cannot be reached or refuses, or the repository is public and shall be private.
        ConfigError, WeightsNotFoundError: the folder holds no model.
    """
    files = files_in(Path(folder), f"folder {folder}")
    ModelConfig.from_json(files.config_path)
    if not is_repo_id(repo_id):
        raise HubError(f"{repo_id!r} is no Hub repository; write 'organisation/name'.")
    repo = download.Repo(repo_id, "main", None, None, token)
    # The client's own calls have no time limit: see first whether there is a server.
    address = f"{huggingface_hub.constants.ENDPOINT}/api/models/{repo_id}"
    with contextlib.closing(download.get(address, token)) as question:
        status, headers = next(question)
    if status >= 500:
        raise download.refusal(status, headers, repo, CONFIG_FILE)
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
    except ClitZooError:
        raise
    except HfHubHTTPError as error:
        answer = error.response
        raise download.refusal(answer.status_code, answer.headers, repo, WEIGHTS_FILE) from error
    except Exception as error:  # of whatever library the client uses
        raise HubError(f"{repo_id} could not be published ({str(error).strip()[:200]}).") from error
    return str(commit.commit_url)


def is_repo_id(text: str) -> bool:
    """Whether the Hub could have a repository "organisation/name" of this name."""
    odd = ".." in text or "--" in text or text.endswith(".git")
    return len(text) <= 96 and _REPO_ID.fullmatch(text) is not None and not odd


def is_revision(text: str) -> bool:
    """Whether this can be a branch, tag or commit; not "..", for the cache makes a path of it."""
    return _REVISION.fullmatch(text) is not None and ".." not in text


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
    ready = registry.with_weights()
    return (
        f"{name} is a registered model, but no weights for it have been published yet. Train it "
        "(clit-zoo train --from-scratch), convert a checkpoint of its authors' code (clit-zoo convert "
        "CHECKPOINT -o FOLDER) and load that folder, or use another model"
        f"{': ' + ', '.join(ready) if ready else ''}."
    )


def _refuse_revision(revision: str | None, because: str) -> None:
    if revision is not None:
        raise HubError(f"revision={revision!r} is for Hub repositories, and {because}; leave it out.")
