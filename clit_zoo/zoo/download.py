"""Fetching a model's files from the Hub into the cache of huggingface_hub.

Addresses, headers, token, proxies and the cache's layout are the client's. The transfer is ours, because the
client's trusts the server: it names files after what the server sends, writes whatever comes, sleeps as long
as it is told to and retries for minutes. Here the server names nothing, bytes are counted while they come,
nothing is retried but a damaged file, and a server slower than ``SLOWEST`` is left.
"""

import contextlib
import hashlib
import logging
import queue
import re
import threading
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import constants, hf_hub_url, try_to_load_from_cache
from huggingface_hub.utils import build_hf_headers, get_session, tqdm

from ..atomic import remove_stale, replacing
from ..errors import ClitZooError, HubError, ModelNotFoundError, WeightsNotFoundError
from .config import MAX_JSON_BYTES
from .folder import CONFIG_FILE, MAX_WEIGHTS_BYTES, WEIGHTS_FILE, ModelFiles

log = logging.getLogger(__name__)

GRACE = 30.0
"""Seconds in which a server must answer."""

SLOWEST = 16 * 1024
"""Bytes a second that must come on average after that: at worst 5 minutes for 4.7 MB."""

MAX_REDIRECTS = 5

_LIMITS = {CONFIG_FILE: MAX_JSON_BYTES, WEIGHTS_FILE: MAX_WEIGHTS_BYTES}
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NETWORK = "Check the network, proxy settings and HF_ENDPOINT; what is in the cache loads without a network."


class Unreachable(HubError):
    """The server did not answer, or only with an error of its own: a cached copy may stand in."""


class _Damaged(Exception):
    """A checksum is not the one expected."""


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


def fetch(repo: Repo, local_files_only: bool) -> ModelFiles:
    """The two files of a model, from the cache or the Hub.

    Raises:
        HubError, ModelNotFoundError, WeightsNotFoundError: they cannot be had; the message says why.
    """
    if local_files_only or constants.HF_HUB_OFFLINE:
        if files := _from_cache(repo):
            return files
        why = "local_files_only=True" if local_files_only else "HF_HUB_OFFLINE"
        raise HubError(
            f"{repo} is not complete in the cache and the network is switched off ({why}). Load it once "
            "with the network, or copy the cache (HF_HOME, cache_dir) from a machine that has it."
        )
    if _COMMIT.fullmatch(repo.revision) and (files := _from_cache(repo)):
        return files  # a commit never changes
    try:
        config_path = _download(repo, repo.revision, CONFIG_FILE)
        commit = config_path.parent.name  # the weights of the same one, should the branch move meanwhile
        weights_path = _cached(repo, commit, WEIGHTS_FILE) or _download(repo, commit, WEIGHTS_FILE)
    except Unreachable as error:
        if files := _from_cache(repo):
            log.warning("%s Using the copy in the cache.", error)
            return files
        raise
    return ModelFiles(config_path, weights_path, f"hub {repo.repo_id}@{commit}")


def _from_cache(repo: Repo) -> ModelFiles | None:
    config_path = _cached(repo, repo.revision, CONFIG_FILE)
    weights_path = _cached(repo, repo.revision, WEIGHTS_FILE)
    if config_path is None or weights_path is None:
        return None
    return ModelFiles(config_path, weights_path, f"hub {repo.repo_id}@{config_path.parent.name}")


def _cached(repo: Repo, revision: str, name: str) -> Path | None:
    """The file in the cache, or None if it is missing or not the one pinned."""
    found = try_to_load_from_cache(repo.repo_id, name, cache_dir=repo.cache_dir, revision=revision)
    if not isinstance(found, str):
        return None
    if repo.sha256 and name == WEIGHTS_FILE:
        with open(found, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != repo.sha256:
                log.warning("The copy of %s in the cache is damaged.", repo)
                return None
    return Path(found)


def _download(repo: Repo, revision: str, name: str) -> Path:
    """The file, fetched into the cache; one with a wrong checksum is fetched once more."""
    url = hf_hub_url(repo.repo_id, name, revision=revision)
    cache = Path(repo.cache_dir or constants.HF_HUB_CACHE, "--".join(("models", *repo.repo_id.split("/"))))
    for last in (False, True):
        try:
            with contextlib.closing(get(url, repo.token)) as answer:
                return _store(answer, cache, repo, revision, name)
        except _Damaged as error:
            if last:
                raise HubError(str(error)) from None
        except ClitZooError:
            raise
        except OSError as error:
            raise HubError(
                f"{name} of {repo} cannot be stored in {cache} ({error.strerror or error}). Make room or "
                "rights there, or name another folder with cache_dir=… or HF_HOME."
            ) from error
    raise AssertionError("unreachable")


def _store(answer: Iterator[Any], cache: Path, repo: Repo, revision: str, name: str) -> Path:
    status, headers = next(answer)
    if status != 200:
        raise refusal(status, headers, repo, name)
    commit = headers.get("x-repo-commit", "")
    if not _COMMIT.fullmatch(commit) or (_COMMIT.fullmatch(revision) and commit != revision):
        raise HubError(f"{name} of {repo} comes without its commit. Is HF_ENDPOINT a Hub?")
    # A file, not a link into blobs/: the client makes one too where links take special rights.
    path = cache / "snapshots" / commit / name
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_stale(path.parent, name)
    with replacing(path) as part:
        _write(part, answer, headers, repo, name)
    if revision != commit:
        ref = cache / "refs" / revision
        ref.parent.mkdir(parents=True, exist_ok=True)
        with replacing(ref) as part:
            part.write_text(commit)
    return path


def _write(part: Path, body: Iterator[Any], headers: Mapping[str, str], repo: Repo, name: str) -> None:
    """Write a body as it comes, and compare it with the checksum pinned, or with the one the Hub tells."""
    what, limit, length = f"{name} of {repo}", _LIMITS[name], headers.get("content-length", "")
    size = int(length) if length.isdecimal() else None
    if headers.get("content-encoding", "identity") != "identity":
        raise HubError(f"{what} arrives compressed, which was not asked for. Is HF_ENDPOINT a Hub?")
    if size is not None and size > limit:
        raise HubError(f"{what} has {size:,} bytes; at most {limit:,} are loaded.")
    digest, quiet = hashlib.sha256(), name == CONFIG_FILE
    with (
        part.open("wb") as file,
        tqdm(total=size, unit="B", unit_scale=True, desc=name, disable=quiet) as bar,
    ):
        for piece in body:
            if file.tell() + len(piece) > limit:
                raise HubError(f"{what} goes on beyond the {limit:,} bytes that are loaded.")
            file.write(piece)
            digest.update(piece)
            bar.update(len(piece))
    tag = headers.get("x-linked-etag", headers.get("etag", "")).removeprefix("W/").strip('"')
    wanted = (repo.sha256 if name == WEIGHTS_FILE else None) or tag
    if _SHA256.fullmatch(wanted) and digest.hexdigest() != wanted:
        raise _Damaged(
            f"{what} arrived damaged twice: its SHA-256 is not {wanted}. Something between here and the Hub "
            "changes files (a proxy, a mirror, a failing disk). Try again, or another network or HF_ENDPOINT."
        )


# ---------------------------------------------------------------------------------------------------------
# The transfer.


def get(url: str, token: str | bool | None) -> Generator[Any]:
    """GET ``url``: first (status, headers in lower case), then the body in pieces.

    Another thread reads from the network. The client's timeouts are per read, so a server that sends its
    headers, or the sizes of its chunks, byte by byte could hold the reader for hours: it is left behind then.

    Raises:
        Unreachable: no answer, a broken transfer, or one slower than ``GRACE`` and ``SLOWEST`` allow.
    """
    pieces: queue.Queue[Any] = queue.Queue(maxsize=16)
    left_behind = threading.Event()
    threading.Thread(target=_read, args=(url, token, pieces, left_behind), daemon=True).start()
    start, received = time.monotonic(), 0
    try:
        while True:
            rest = start + GRACE + received / SLOWEST - time.monotonic()
            try:
                piece = pieces.get(timeout=max(rest, 0))
            except queue.Empty:
                raise Unreachable(
                    f"{constants.ENDPOINT} is too slow: {received:,} bytes of {url} in "
                    f"{time.monotonic() - start:.0f} s. Try again later. {_NETWORK}"
                ) from None
            if isinstance(piece, Exception):
                reason = (str(piece).strip() or type(piece).__name__).splitlines()[0][:200]
                raise Unreachable(
                    f"{url} cannot be reached, or broke off ({reason}). Try again. {_NETWORK}"
                ) from piece
            if piece is None:
                return
            if isinstance(piece, bytes):
                received += len(piece)
            yield piece
    finally:
        left_behind.set()
        with contextlib.suppress(queue.Empty):
            while True:  # the reader may wait for room
                pieces.get_nowait()


def _read(
    url: str, token: str | bool | None, pieces: "queue.Queue[Any]", left_behind: threading.Event
) -> None:
    """Put what ``get`` yields into ``pieces``, then None; or the exception that came."""
    try:
        client = get_session()
        headers = build_hf_headers(token=token, library_name="clit_zoo") | {"Accept-Encoding": "identity"}
        timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
        request = client.build_request("GET", url, headers=headers, timeout=timeout)
        told: dict[str, str] = {}
        # Followed here: the client would read the body of a redirection, however long. It does take the token
        # out of a request to another host.
        for _ in range(1 + MAX_REDIRECTS):
            with contextlib.closing(client.send(request, stream=True, follow_redirects=False)) as response:
                # The Hub itself tells the commit and the checksum, the store that it points to the size.
                told = dict(response.headers) | {k: v for k, v in told.items() if k.startswith("x-")}
                if response.next_request is not None:
                    request = response.next_request
                    continue
                pieces.put((response.status_code, told))
                for piece in response.iter_raw(64 * 1024):
                    if left_behind.is_set():
                        return
                    pieces.put(piece)
                pieces.put(None)
                return
        raise RuntimeError(f"more than {MAX_REDIRECTS} redirections")
    except Exception as error:
        pieces.put(error)


_REFUSALS: dict[str | int, tuple[type[ClitZooError], str]] = {
    "GatedRepo": (HubError, "{repo} is gated: accept its terms at {hub}/{repo.repo_id}, then {log_in}."),
    "RepoNotFound": (
        ModelNotFoundError,
        "There is no folder {repo.repo_id} here and no such repository on {hub}, or it is private: check the "
        "name, or {log_in}.",
    ),
    "RevisionNotFound": (
        HubError,
        "{repo.repo_id} has no revision {repo.revision!r}: name a branch, tag or commit of it.",
    ),
    "EntryNotFound": (
        WeightsNotFoundError,
        "{repo} has no {name}; a model of this library has config.json and model.safetensors. To turn "
        "another checkpoint into one: clit-zoo convert.",
    ),
    401: (HubError, "{hub} refuses {repo} (HTTP 401): check the name, or {log_in}."),
    403: (HubError, "{hub} refuses {repo} (HTTP 403): {log_in}."),
    404: (HubError, "{hub} has no {name} of {repo} (HTTP 404). Is HF_ENDPOINT a Hub?"),
    429: (Unreachable, "{hub} has had too many requests, asked for {repo} (HTTP 429). Try again later."),
}


def refusal(status: int, headers: Mapping[str, str], repo: Repo, name: str) -> ClitZooError:
    """An answer of the Hub other than 200, as one of our errors."""
    other = Unreachable, "{hub} could not serve {repo} (HTTP {status}). Try again later."
    kind, text = _REFUSALS.get(headers.get("x-error-code", ""), _REFUSALS.get(status, other))
    log_in = "run `hf auth login`, or give the token (HF_TOKEN, token=…) of an account that has access"
    return kind(text.format(hub=constants.ENDPOINT, repo=repo, name=name, status=status, log_in=log_in))
