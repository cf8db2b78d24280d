"""A small Hub on the loopback interface: files and commits as the real one serves them, and its accidents."""

import base64
import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from xet_store import XetStore


@dataclass
class Repository:
    """commits: commit -> file name -> bytes. mode: what goes wrong with the weights, see ``Handler._send``.

    hostile: file name -> what answers a question for it instead: (handler, commit, content).
    """

    commits: dict[str, dict[str, bytes]]
    refs: dict[str, str]
    mode: str = "fine"
    hostile: "dict[str, Callable[[Handler, str, bytes], None]]" = field(default_factory=dict)
    private: bool = False
    sent: Counter = field(default_factory=Counter)


def commit_id(files: dict[str, bytes]) -> str:
    return hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()


def etag(name: str, data: bytes) -> str:
    """As the Hub makes it: SHA-256 for large files, the Git blob's SHA-1 for the others."""
    if name.endswith(".safetensors"):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class HubServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, Repository] = {}
        self.requests: list[tuple[str, str, str]] = []  # method, path, Range
        self.objects: dict[str, bytes] = {}  # large files by their SHA-256
        self.xet = XetStore()
        self.released = threading.Event()
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def add(self, repo_id: str, files: dict[str, bytes], *, mode: str = "fine", branch: str = "main") -> str:
        """Adds a commit at the head of a branch; returns its id."""
        commit = commit_id(files)
        repository = self.repositories.setdefault(repo_id, Repository({}, {}, mode))
        repository.commits[commit] = files
        repository.refs[branch] = commit
        return commit

    def bodies(self, repo_id: str, name: str) -> int:
        """How often a whole file was asked for (the client's question for the first byte does not count)."""
        return sum(
            method == "GET"
            and path.startswith(f"/{repo_id}/")
            and path.endswith(name)
            and span != "bytes=0-0"
            for method, path, span in self.requests
        )

    def close(self) -> None:
        self.released.set()
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def _serve(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append((self.command, path, self.headers.get("Range", "")))
        about = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/main)?", path)
        if about and about[1] in self.server.repositories:
            repository = self.server.repositories[about[1]]
            head = {"sha": repository.refs["main"], "private": repository.private}
            return self._answer({"id": about[1], **head})
        asked = re.fullmatch(r"/api/models/([^/]+/[^/]+)/xet-write-token/main", path)
        if asked and self._may_write() and self.server.repositories[asked[1]].mode != "no xet":
            token, end, url = XetStore.TOKEN, 2**33, f"{self.server.url}/xet"
            # in both forms: a client of 1.x reads the headers
            head = {"X-Xet-Cas-Url": url, "X-Xet-Access-Token": token, "X-Xet-Token-Expiration": str(end)}
            return self._answer({"accessToken": token, "exp": end, "casUrl": url}, headers=head)
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/(.+)/([^/]+)", path)
        if match is None:
            return self._refuse(404, "RepoNotFound")
        repo_id, revision, name = match.groups()
        repository = self.server.repositories.get(repo_id)
        if repository is None:
            return self._refuse(401, "RepoNotFound")  # what an anonymous client gets
        if repository.mode == "gated":
            return self._refuse(403, "GatedRepo")
        if repository.mode == "forbidden":
            return self._refuse(403, None)
        if repository.mode == "broken":
            return self._refuse(503, None)
        if repository.mode == "hang":
            self.server.released.wait(60)
            self.close_connection = True
            return None
        commit = repository.refs.get(revision, revision)
        if commit not in repository.commits:
            return self._refuse(404, "RevisionNotFound")
        if name not in repository.commits[commit]:
            return self._refuse(404, "EntryNotFound", commit)
        if name in repository.hostile:
            self.close_connection = True
            return repository.hostile[name](self, commit, repository.commits[commit][name])
        return self._send(repository, commit, name)

    def _send(self, repository: Repository, commit: str, name: str) -> None:
        data = repository.commits[commit][name]
        start, end = 0, len(data)
        if span := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start = int(span[1])
            end = min(end, int(span[2]) + 1) if span[2] else end
        length, body = end - start, data[start:end]
        if self.command == "GET" and length > 1 and name.endswith(".safetensors"):
            repository.sent[name] += 1
            first = repository.sent[name] == 1
            mode = repository.mode
            if mode == "corrupt always" or (mode == "corrupt once" and first):
                body = body[:-1] + bytes([body[-1] ^ 1])
            if mode == "cut always" or (mode == "cut once" and first):
                body = body[: length // 2]  # less than the length promised below
            if mode == "short":
                body = body[: length // 2]
                length = len(body)
        self.send_response(206 if span else 200)
        self.send_header("Content-Length", str(length))
        if span:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
        self.send_header("ETag", f'"{etag(name, data)}"')
        self.send_header("X-Repo-Commit", commit)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
        if len(body) < length:
            self.close_connection = True

    def _refuse(self, status: int, code: str | None, commit: str | None = None) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        if commit:
            self.send_header("X-Repo-Commit", commit)
        self.send_header("Content-Length", "0")
        self.end_headers()

    # Publishing: create a repository, say how each file is to be sent, take the large ones, then a commit.

    def _may_write(self) -> bool:
        return self.headers.get("Authorization") == "Bearer hf_test"

    def do_PUT(self) -> None:
        """A large file, to an address that needs no token and refuses one, as signed ones do."""
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append(("PUT", path, ""))
        data = self.rfile.read(int(self.headers["Content-Length"]))
        sha256 = hashlib.sha256(data).hexdigest()
        if path != f"/lfs/{sha256}" or "Authorization" in self.headers:
            return self._refuse(400, None)
        self.server.objects[sha256] = data
        return self._answer({})

    def do_POST(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.requests.append(("POST", path, ""))
        if path == "/api/validate-yaml":
            return self._answer({"errors": [], "warnings": []})
        if path.startswith("/xet/"):
            if self.headers.get("Authorization") != f"Bearer {XetStore.TOKEN}":
                return self._refuse(401, None)
            answer = self.server.xet.take(path, body)
            self.server.objects |= self.server.xet.files
            return self._answer(answer) if answer else self._refuse(404, None)
        if not self._may_write():
            return self._refuse(401, None)
        if path == "/api/repos/create":
            asked = json.loads(body)
            repo_id = f"{asked['organization']}/{asked['name']}"
            if repo_id in self.server.repositories:
                return self._answer({"url": f"{self.server.url}/{repo_id}"}, 409)
            self.server.add(repo_id, {})
            self.server.repositories[repo_id].private = asked.get("visibility") == "private" or bool(
                asked.get("private")
            )
            return self._answer({"url": f"{self.server.url}/{repo_id}", "id": repo_id})
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
            there = self._head(match[1])
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = ["lfs" if name.endswith(".safetensors") else "regular" for name in names]
            oids = [etag(name, there[name]) if name in there else None for name in names]
            rows = zip(names, modes, oids)
            files = [{"path": n, "uploadMode": m, "shouldIgnore": False, "oid": o} for n, m, o in rows]
            return self._answer({"files": files})
        if path.endswith(".git/info/lfs/objects/batch"):
            asked = json.loads(body)
            assert asked["operation"] == "upload" and asked["hash_algo"] == "sha256"
            wanted = [{"oid": o["oid"], "size": o["size"]} for o in asked["objects"]]
            verify = {"href": f"{self.server.url}/lfs/verify"}
            for large in wanted:
                if large["oid"] not in self.server.objects:
                    upload = {"href": f"{self.server.url}/lfs/{large['oid']}?signature=x"}
                    large["actions"] = {"upload": upload, "verify": verify}
            xet = "xet" in asked["transfers"]  # a client of 1.x lets the server choose
            return self._answer({"transfer": "xet" if xet else "basic", "objects": wanted})
        if path == "/lfs/verify":
            asked = json.loads(body)
            whole = len(self.server.objects.get(asked["oid"], b"")) == asked["size"]
            return self._answer({}) if whole else self._refuse(404, None)
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            files = dict(self._head(match[1]))
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    if value["oid"] not in self.server.objects:
                        return self._refuse(400, None)
                    files[value["path"]] = self.server.objects[value["oid"]]
            commit = self.server.add(match[1], files)
            url = f"{self.server.url}/{match[1]}/commit/{commit}"
            return self._answer({"success": True, "commitOid": commit, "commitUrl": url})
        return self._refuse(404, None)

    def _head(self, repo_id: str) -> dict[str, bytes]:
        repository = self.server.repositories[repo_id]
        return repository.commits[repository.refs["main"]]

    def _answer(
        self, content: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
