"""A name, a folder or a Hub repository -> the files of a model; loading and publishing them."""

import contextlib
import hashlib
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError
from torch import Tensor

from ..errors import ClitZooError, HubError, ModelNotFoundError, WeightsNotFoundError
from . import download, registry
from .card import CARD_FILE, front_matter, read_card
from .config import ModelConfig
from .folder import CONFIG_FILE, HERE, WEIGHTS_FILE, ModelFiles, files_in, read_weights
from .skeleton import shapes

_NAME = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?"
_REPO_ID = re.compile(f"{_NAME}/{_NAME}")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")


class Loaded(NamedTuple):
    """A model as read: its settings, its tensors (CPU, in their stored type), and the text of its card."""

    config: ModelConfig
    state_dict: dict[str, Tensor]
    card: str | None


class Published(NamedTuple):
    """A commit with a model: its address, its id, and the SHA-256 of its model.safetensors."""

    address: str
    revision: str
    sha256: str


def load(name_or_path: str | os.PathLike[str], **options: Any) -> Loaded:
    """Resolve and read a model.

    Args:
        name_or_path: as ``resolve`` takes it, and so are ``options``.

    Raises:
        ModelNotFoundError, WeightsNotFoundError, HubError: as ``resolve``.
        ConfigError, WeightsError: its files are damaged, too large or do not belong together.
    """
    return _read(resolve(name_or_path, **options))


def _read(files: ModelFiles) -> Loaded:
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
        name_or_path: a folder that exists; a registered name (weights that came with the package or the
            checkout, else its Hub repository at the pinned revision and checksum); or any repository
            "organisation/name".
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
            _refuse_revision(revision, f"{entry.name} came with the library")
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
    message: str = "Upload a clit_zoo model",
) -> Published:
    """Publish a model folder as a Hub repository, in one commit.

    The folder is read as ``load`` reads it first, and its card's usage lines get the repository's name.

    Args:
        folder: config.json, model.safetensors and README.md are uploaded; the card names the licence.
        repo_id: "organisation/name"; made if need be.
        private: make it so.
        token: that of ``hf auth login`` where left out.
        message: the title of the commit.

    Raises:
        HubError: there is no token, the Hub cannot be reached or refuses, or the repository is public and
            shall be private.
        WeightsNotFoundError, ConfigError, WeightsError: the folder holds no model, or a damaged one.
        ClitZooError: its card names no licence.
    """
    files = files_in(Path(folder), f"folder {folder}")
    _read(files)
    if not front_matter(Path(folder)).get("license"):
        raise ClitZooError(
            f"{Path(folder, CARD_FILE)} names no licence, without which nobody may use the model: begin it "
            "with the lines ---, license: apache-2.0 (or another of the Hub's identifiers) and ---."
        )
    if not is_repo_id(repo_id):
        raise HubError(f"{repo_id!r} is no Hub repository; write 'organisation/name'.")
    if not (isinstance(token, str) or (token is not False and huggingface_hub.get_token())):
        raise HubError(f"{repo_id} cannot be published without a token: run `hf auth login` or set HF_TOKEN.")
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
        # One commit of three files; upload_folder would take whatever else lies there, and split it.
        commit = api.create_commit(repo_id, operations, commit_message=message)
    except ClitZooError:
        raise
    except HfHubHTTPError as error:
        answer = error.response
        raise download.refusal(answer.status_code, answer.headers, repo, WEIGHTS_FILE) from error
    except Exception as error:  # of whatever library the client uses
        reason = str(error).strip()[:200].rstrip(".")
        xet = "xet" in reason.lower()
        lfs = " To send the weights by Git LFS instead: HF_HUB_DISABLE_XET=1." if xet else ""
        raise HubError(f"{repo_id} could not be published ({reason}).{lfs}") from error
    with files.weights_path.open("rb") as file:
        return Published(commit.commit_url, commit.oid, hashlib.file_digest(file, "sha256").hexdigest())


def is_repo_id(text: str) -> bool:
    """Whether the Hub could have a repository "organisation/name" of this name."""
    odd = ".." in text or "--" in text or text.endswith(".git")
    return len(text) <= 96 and _REPO_ID.fullmatch(text) is not None and not odd


def is_revision(text: str) -> bool:
    """Whether this can be a branch, tag or commit; not "..", for the cache makes a path of it."""
    return _REVISION.fullmatch(text) is not None and ".." not in text


def _contents(files: ModelFiles, repo_id: str) -> list[tuple[str, str | bytes]]:
    """Name in the repository, and path or bytes, of each file of a model."""
    card = files.config_path.with_name(CARD_FILE).read_bytes()
    return [
        (CONFIG_FILE, str(files.config_path)),
        (WEIGHTS_FILE, str(files.weights_path)),
        (CARD_FILE, card.replace(HERE.encode(), repo_id.encode())),
    ]


def _no_weights(name: str) -> str:
    ready = registry.with_weights()
    return (
        f"{name} is a registered model, but no weights for it came with this copy of the library (a checkout "
        "may have more than a package), and none have been published yet. Train it "
        "(clit-zoo train --from-scratch), convert a checkpoint of its authors' code (clit-zoo convert "
        "CHECKPOINT -o FOLDER) and load that folder, or use another model"
        f"{': ' + ', '.join(ready) if ready else ''}."
    )


def _refuse_revision(revision: str | None, because: str) -> None:
    if revision is not None:
        raise HubError(f"revision={revision!r} is for Hub repositories, and {because}; leave it out.")
