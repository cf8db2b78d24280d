"""Fetching the two files of a model from the Hub, with a time limit and a checksum.

Downloads go through huggingface_hub and its cache. Around it: the server is asked first, with a time limit
and without the client's minutes of retries; what arrives is compared with its checksum; every failure becomes
one error of clit_zoo.errors that says what to do. Nothing here imports torch.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import ClitZooError, HubError, ModelNotFoundError, WeightsNotFoundError
from .config import MAX_JSON_BYTES
from .folder import CONFIG_FILE, MAX_WEIGHTS_BYTES, WEIGHTS_FILE, ModelFiles

log = logging.getLogger(__name__)

# Seconds without a sign of life from the server. HF_HUB_ETAG_TIMEOUT overrides it, as it does for the client.
TIMEOUT_S = 10.0
_LIMITS = {CONFIG_FILE: MAX_JSON_BYTES, WEIGHTS_FILE: MAX_WEIGHTS_BYTES}
_NAME = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?"
_REPO_ID = re.compile(f"{_NAME}/{_NAME}")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")
_COMMIT = re.compile(r"[0-9a-f]{40}")


class Unreachable(HubError):
    """The server did not answer, or only with an error of its own: a cached copy may stand in."""


@dataclass(frozen=True)
class Repo:
    """A repository at a revision, and how to get at it. sha256: of model.safetensors, where it is pinned."""

    repo_id: str
    revision: str
    sha256: str | None = None
    cache_dir: str | Path | None = None
    token: str | bool | None = None

    def __str__(self) -> str:
        return f"{self.repo_id} (revision {self.revision})"


def is_repo_id(text: str) -> bool:
    """Whether the Hub could have a repository "organisation/name" of this name."""
    odd = ".." in text or "--" in text or text.endswith(".git")
    return len(text) <= 96 and _REPO_ID.fullmatch(text) is not None and not odd


def is_revision(text: str) -> bool:
    """Whether this can be a branch, tag or commit; not "..", for the cache makes a path of it."""
    return _REVISION.fullmatch(text) is not None and ".." not in text


def fetch(repo: Repo, local_files_only: bool) -> ModelFiles:
    from huggingface_hub import constants

    if local_files_only or constants.HF_HUB_OFFLINE:
        why = "local_files_only=True" if local_files_only else "HF_HUB_OFFLINE"
        files = _from_cache(repo)
        if files is None:
            raise HubError(
                f"{repo} is not complete in the cache and the network is switched off ({why}). Load it once "
                "with the network, or copy the cache (HF_HOME, cache_dir) from a machine that has it."
            )
        return files
    if _COMMIT.fullmatch(repo.revision) and (files := _from_cache(repo)) is not None:
        return files  # a commit never changes
    try:
        _knock(repo, CONFIG_FILE)
    except Unreachable as error:
        files = _from_cache(repo)
        if files is None:
            raise
        log.warning("%s Using the copy in the cache.", error)
        return files
    config_path = _download(repo, CONFIG_FILE)
    # The weights of the same commit, should the branch move meanwhile: snapshots/<commit>/config.json
    commit = config_path.parent.name
    at_commit = replace(repo, revision=commit)
    if _cached(at_commit, WEIGHTS_FILE) is None:
        _knock(at_commit, WEIGHTS_FILE)
    weights_path = _download(at_commit, WEIGHTS_FILE)
    return ModelFiles(config_path, weights_path, f"hub {repo.repo_id}@{commit}")


def _from_cache(repo: Repo) -> ModelFiles | None:
    """The files of the revision as cached, or None if one is missing or damaged."""
    config_path, weights_path = _cached(repo, CONFIG_FILE), _cached(repo, WEIGHTS_FILE)
    if config_path is None or weights_path is None:
        return None
    if not (_intact(config_path, None) and _intact(weights_path, repo.sha256)):
        log.warning("The copy of %s in the cache is damaged.", repo)
        return None
    return ModelFiles(config_path, weights_path, f"hub {repo.repo_id}@{config_path.parent.name}")


def _cached(repo: Repo, filename: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo.repo_id, filename, cache_dir=repo.cache_dir, revision=repo.revision)
    return Path(found) if isinstance(found, str) else None


def _knock(repo: Repo, filename: str) -> None:
    """Asks for the first byte: finds at once what else would take the client's retries, or gigabytes."""
    from huggingface_hub import hf_hub_url

    try:
        size = ask(hf_hub_url(repo.repo_id, filename, revision=repo.revision), repo)
    except Exception as error:
        raise translated(error, repo, filename) from error
    if size is not None and size > _LIMITS[filename]:
        raise HubError(f"{filename} of {repo} has {size:,} bytes; at most {_LIMITS[filename]:,} are loaded.")


def ask(url: str, repo: Repo) -> int | None:
    """GETs the first byte of `url`; returns the size of the whole where the server tells."""
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    headers = build_hf_headers(token=repo.token, library_name="clit_zoo")
    headers |= {"Range": "bytes=0-0", "Accept-Encoding": "identity"}
    with get_session().stream("GET", url, headers=headers, timeout=_timeout()) as response:
        if response.status_code == 416:  # an empty file has no first byte
            return 0
        hf_raise_for_status(response)
        total = response.headers.get("Content-Range", "").rpartition("/")[2]  # "bytes 0-0/1234"
        total = total or response.headers.get("Content-Length", "")
        return int(total) if total.isdecimal() else None


def _timeout() -> float:
    from huggingface_hub import constants

    changed = constants.HF_HUB_ETAG_TIMEOUT != constants.DEFAULT_ETAG_TIMEOUT
    return float(constants.HF_HUB_ETAG_TIMEOUT) if changed else TIMEOUT_S


def _download(repo: Repo, filename: str) -> Path:
    """The file, from the cache or the Hub, its checksum compared; a damaged one is fetched once more."""
    from huggingface_hub import hf_hub_download

    sha256 = repo.sha256 if filename == WEIGHTS_FILE else None
    for force in (False, True):
        try:
            found = hf_hub_download(
                repo.repo_id,
                filename,
                revision=repo.revision,
                cache_dir=repo.cache_dir,
                token=repo.token,
                library_name="clit_zoo",
                etag_timeout=_timeout(),
                force_download=force,
            )
            path = Path(found)
            if _intact(path, sha256):
                return path
            log.warning(
                "%s of %s is damaged; deleting it%s.", filename, repo, "" if force else " to try again"
            )
            _blob(path).unlink(missing_ok=True)
            path.unlink(missing_ok=True)
        except Exception as error:
            raise translated(error, repo, filename) from error
    expected = f"its SHA-256 is not {sha256}" if sha256 else "its checksum is not the one the server gave"
    raise HubError(
        f"{filename} of {repo} arrived damaged twice: {expected}. Something between here and the Hub changes "
        "files (a proxy, a mirror, a failing disk); try another network or HF_ENDPOINT."
    )


def _intact(path: Path, sha256: str | None) -> bool:
    """Compares a file with its pinned SHA-256, or with the checksum that names it in the cache.

    The cache names a file by its ETag: SHA-256 for large files, the Git blob's SHA-1 for others (some mirrors
    send the plain SHA-1). A name that is neither says nothing.
    """
    tag = sha256 or _blob(path).name
    try:
        if re.fullmatch(r"[0-9a-f]{64}", tag):
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == tag
        if _COMMIT.fullmatch(tag) and path.stat().st_size <= MAX_JSON_BYTES:
            data = path.read_bytes()
            git = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False)
            return tag in (git.hexdigest(), hashlib.sha1(data, usedforsecurity=False).hexdigest())
    except OSError as error:
        raise HubError(f"{path} cannot be read ({error.strerror or error}).") from error
    return True


def _blob(path: Path) -> Path:
    """What a file of a snapshot links to. One step only: the blob may itself be a link, named otherwise."""
    return path.parent / path.readlink() if path.is_symlink() else path


# ---------------------------------------------------------------------------------------------------------
# What went wrong, in words.


def translated(error: Exception, repo: Repo, filename: str) -> ClitZooError:
    """An error of the client, the network or the disk as one of ours."""
    from huggingface_hub import constants, errors

    if isinstance(error, ClitZooError):
        return error
    where = constants.ENDPOINT
    kind = type(error).__name__
    status = getattr(getattr(error, "response", None), "status_code", None)
    log_in = "run `hf auth login` or pass token=… of an account that has access"
    if isinstance(error, errors.GatedRepoError):
        return HubError(f"{repo} is gated: accept its terms at {where}/{repo.repo_id}, then {log_in}.")
    if isinstance(error, errors.RepositoryNotFoundError):
        return ModelNotFoundError(
            f"There is no folder {repo.repo_id} here and no such repository on {where}, or it is private: "
            f"check the name, or {log_in}."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return HubError(
            f"{repo.repo_id} has no revision {repo.revision!r}: name a branch, tag or commit of it."
        )
    if isinstance(error, errors.EntryNotFoundError) and status == 404:
        return WeightsNotFoundError(
            f"{repo} has no {filename}; a model of this library has {CONFIG_FILE} and {WEIGHTS_FILE}. To "
            "turn another checkpoint into one: clit-zoo convert."
        )
    if status in (401, 403):
        return HubError(f"{where} refuses {repo} (HTTP {status}): {log_in}.")
    if status == 404:
        return HubError(f"{where} has no {filename} of {repo} (HTTP 404). Is HF_ENDPOINT a Hub?")
    if status is not None:
        again = "too many requests" if status == 429 else "an error of the server"
        return Unreachable(f"{where} could not serve {repo}: HTTP {status}, {again}. Try again later.")
    if "Timeout" in kind:
        return Unreachable(f"{where} gave no answer within {_timeout():g} s, asked for {repo}. {_NETWORK}")
    if isinstance(error, OSError) and error.errno in _DISK:
        place = repo.cache_dir or constants.HF_HUB_CACHE
        return HubError(
            f"{filename} of {repo} cannot be stored in {place} ({error.strerror}). Make room or rights "
            "there, or name another folder with cache_dir=… or HF_HOME."
        )
    if "Consistency check failed" in str(error):
        return HubError(f"{filename} of {repo} arrived incomplete: the transfer was cut off. Try again.")
    if "RemoteProtocol" in kind or "ReadError" in kind:
        return Unreachable(
            f"The transfer of {filename} of {repo} from {where} broke off. Try again. {_NETWORK}"
        )
    first = (str(error).strip() or kind).splitlines()[0][:200]
    if isinstance(error, ConnectionError) or "Connect" in kind or "Proxy" in kind or "Network" in kind:
        return Unreachable(f"{where} cannot be reached ({first}), asked for {repo}. {_NETWORK}")
    if isinstance(error, errors.LocalEntryNotFoundError):
        return Unreachable(f"{repo} could not be fetched from {where}. {_NETWORK}")
    return HubError(f"{filename} of {repo} could not be loaded from {where}: {kind}: {first}")


_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)
_NETWORK = "Check the network, proxy settings and HF_ENDPOINT; what is in the cache loads without a network."
