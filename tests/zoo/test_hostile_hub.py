"""A Hub, mirror or proxy that lies or dawdles: one of our errors, in bounded time, inside the cache."""

import gzip
import hashlib
import itertools
import shutil
import time
from pathlib import Path

import pytest
from hypothesis import strategies as st

GRACE = 3  # seconds, see conftest.py
ENDLESS = 200_000_000
BOMB = gzip.compress(b" " * 20_000_000, 1)


def answer(handler, commit, length=None, status=200, **headers):
    handler.send_response(status)
    for key, value in ({"X-Repo-Commit": commit} | headers).items():
        if value is not None:
            handler.send_header(key.replace("_", "-"), value)
    if length is not None:
        handler.send_header("Content-Length", str(length))
    handler.end_headers()


def slowly(handler, data):
    """A byte a second, as long as somebody listens."""
    for byte in data:
        handler.wfile.write(bytes([byte]))
        handler.wfile.flush()
        if handler.server.released.wait(1):
            return


def odd_tag(tag):
    def send(handler, commit, data):
        answer(handler, commit, len(data), ETag=tag)
        handler.wfile.write(data)

    return send


def slow_headers(handler, commit, data):
    slowly(handler, b"HTTP/1.1 200 OK\r\nX-Slow: " + b"y" * 600)


def slow_body(handler, commit, data):
    answer(handler, commit, len(data))
    slowly(handler, data)


def slow_chunk_size(handler, commit, data):
    answer(handler, commit, Transfer_Encoding="chunked")
    slowly(handler, b"1;" + b"y" * 600)


def silent(handler, commit, data):
    answer(handler, commit, len(data))
    handler.wfile.write(data[:1])
    handler.wfile.flush()
    handler.server.released.wait(60)


def endless(handler, commit, data):
    answer(handler, commit, Transfer_Encoding="chunked")
    sent = 0
    try:
        while sent < ENDLESS:
            handler.wfile.write(b"10000\r\n" + b" " * 65536 + b"\r\n")
            sent += 65536
    finally:
        handler.server.endless_sent = sent


def inflating(handler, commit, data):
    answer(handler, commit, len(BOMB), Content_Encoding="gzip")
    handler.wfile.write(BOMB)


def redirecting_in_circles(handler, commit, data):
    answer(handler, commit, 0, 302, Location=handler.path)


def redirecting_at_length(handler, commit, data):
    answer(handler, commit, status=302, Location="/elsewhere", Transfer_Encoding="chunked")
    endless_body(handler)


def endless_body(handler):
    while True:
        handler.wfile.write(b"10000\r\n" + b" " * 65536 + b"\r\n")


def refusing_at_length(handler, commit, data):
    answer(handler, commit, status=500, Transfer_Encoding="chunked")
    endless_body(handler)


def rate_limiting(handler, commit, data):
    answer(handler, commit, 0, 429, Retry_After="3600")


def petabytes(handler, commit, data):
    answer(handler, commit, 10**15)


def without_commit(handler, commit, data):
    answer(handler, None, len(data))
    handler.wfile.write(data)


def odd_commit(handler, commit, data):
    answer(handler, "../../../../outside", len(data))
    handler.wfile.write(data)


DAWDLING = [
    (slow_headers, "too slow", "config.json"),
    (slow_body, "too slow", "model.safetensors"),
    (slow_chunk_size, "too slow", "config.json"),
    (silent, "timed out", "model.safetensors"),
]
LYING = [
    (endless, "goes on beyond"),
    (inflating, "arrives compressed"),
    (redirecting_in_circles, "redirections"),
    (redirecting_at_length, "no such repository"),
    (refusing_at_length, "HTTP 500"),
    (rate_limiting, "too many requests"),
    (petabytes, "1,000,000,000,000,000 bytes"),
    (without_commit, "without its commit"),
    (odd_commit, "without its commit"),
]


FILES = ["config.json", "model.safetensors"]
CASES = DAWDLING + [(lie, words, name) for lie, words in LYING for name in FILES]
CASES.remove((endless, "goes on beyond", "model.safetensors"))  # whose limit is a gigabyte


@pytest.mark.parametrize(("hostile", "words", "name"), CASES, ids=[f"{c[0].__name__}-{c[2]}" for c in CASES])
def test_an_error_in_bounded_time(server, client, model, tmp_path, hostile, words, name):
    repo_id = f"org/{hostile.__name__}-{name}"
    server.add(repo_id, model)
    server.repositories[repo_id].hostile[name] = hostile
    found = client("resolve", repo_id, cache_dir=tmp_path / "cache")
    assert found["error"] in ("HubError", "Unreachable", "ModelNotFoundError"), found
    assert words in found["message"]
    assert found["seconds"] < GRACE + 3
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) < 2000
    assert {path.name for path in tmp_path.iterdir()} <= {"cache"}


def test_an_endless_answer_is_not_read_on(server, client, model, tmp_path):
    server.endless_sent = 0
    server.add("org/endless", model)
    server.repositories["org/endless"].hostile["config.json"] = endless
    assert client("resolve", "org/endless", cache_dir=tmp_path)["error"] == "HubError"
    for _ in range(50):
        if server.endless_sent:
            break
        time.sleep(0.1)
    assert 0 < server.endless_sent < ENDLESS / 4  # what the sockets and the queue hold


@pytest.mark.parametrize("tag", ["{outside}", "../../../../outside", "a/b", "", "\u00e9"])
@pytest.mark.parametrize("name", FILES)
def test_a_tag_names_no_file(server, client, model, tmp_path, tag, name):
    """A client that names files after it would write where the server says."""
    repo_id = f"org/tag-{name}"
    server.add(repo_id, model)
    server.repositories[repo_id].hostile[name] = odd_tag(f'"{tag.format(outside=tmp_path / "outside")}"')
    found = client("resolve", repo_id, cache_dir=tmp_path / "deep" / "cache")["result"]
    assert Path(found["weights_path"]).read_bytes() == model["model.safetensors"]
    files = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {"config.json", "model.safetensors", "main"}
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]


def test_a_token_stays_with_the_hub(server, client, model, tmp_path):
    """Large files are in another place, which is not told the token."""
    asked = []

    def elsewhere(handler, commit, data):
        asked.append((handler.headers["Host"], handler.headers["Authorization"]))
        if handler.headers["Host"].startswith("127.0.0.1"):
            other = f"http://localhost:{server.server_address[1]}{handler.path}"
            return answer(handler, commit, 0, 302, Location=other)
        answer(handler, None, len(data))
        return handler.wfile.write(data)

    server.add("org/elsewhere", model)
    server.repositories["org/elsewhere"].hostile["model.safetensors"] = elsewhere
    found = client("resolve", "org/elsewhere", cache_dir=tmp_path, token="hf_test")
    assert Path(found["result"]["weights_path"]).read_bytes() == model["model.safetensors"]
    port = server.server_address[1]
    assert asked == [(f"127.0.0.1:{port}", "Bearer hf_test"), (f"localhost:{port}", None)]


def test_a_server_that_dawdles_leaves_the_cached_copy(server, client, model, tmp_path):
    server.add("org/dawdling", model)
    first = client("resolve", "org/dawdling", cache_dir=tmp_path)
    server.repositories["org/dawdling"].hostile["config.json"] = slow_headers
    assert client("resolve", "org/dawdling", cache_dir=tmp_path)["result"] == first["result"]


ODD = ("", "x", "-1", "0", "1", "99999999999999999999", "../../out", "/tmp/out", "a" * 64, "0" * 40, "\u00e9")
HEADERS = {
    "Content-Length": st.sampled_from(ODD),
    "ETag": st.sampled_from(ODD).map('"{}"'.format),
    "X-Linked-ETag": st.sampled_from(ODD).map('"{}"'.format),
    "X-Linked-Size": st.sampled_from(ODD),
    "X-Repo-Commit": st.sampled_from(ODD),
    "X-Error-Code": st.sampled_from(("GatedRepo", "RepoNotFound", "EntryNotFound", "RevisionNotFound", "x")),
    "Retry-After": st.sampled_from(ODD),
    "Content-Encoding": st.sampled_from(("gzip", "br", "identity", "x")),
    "Transfer-Encoding": st.sampled_from(("chunked", "gzip", "x")),
    "Location": st.sampled_from(
        ("", "/", "x", "file:///etc/passwd", "//", "http://127.0.0.1:1/x", "http://[")
    ),
    "Content-Range": st.sampled_from(ODD),
    "Set-Cookie": st.sampled_from(ODD),
}
STATUS = st.sampled_from(
    (200, 200, 200, 200, 204, 206, 301, 302, 304, 307, 400, 401, 403, 404, 416, 429, 500)
)


def drawn(status, headers, keep, more, raw):
    """An answer made up: any status, any headers, a body cut or longer, or no HTTP at all."""

    def send(handler, commit, data):
        body = data[: round(len(data) * keep)] + more
        if raw:
            handler.wfile.write(more + b"\r\n\r\n" + body)
            return
        handler.send_response(status)
        for key, value in ({"Content-Length": str(len(body)), "X-Repo-Commit": commit} | headers).items():
            handler.send_header(key, value)
        handler.end_headers()
        handler.wfile.write(body)

    return send


def test_any_answer(campaign, server, client, model, tmp_path):
    """The weights pinned, or one of our errors."""
    turn = itertools.count()
    answers = st.builds(
        drawn,
        STATUS,
        st.lists(st.sampled_from(sorted(HEADERS)), max_size=3, unique=True).flatmap(
            lambda names: st.fixed_dictionaries({name: HEADERS[name] for name in names})
        ),
        st.sampled_from((1, 1, 1, 0, 0.5)),
        st.just(b"") | st.binary(max_size=99) | st.just(BOMB[:20_000]),
        st.sampled_from((False,) * 9 + (True,)),
    )

    def attempt(case):
        name, hostile = case
        repo_id, cache = f"org/any-{next(turn)}", tmp_path / "deep" / "cache"
        commit = server.add(repo_id, model)
        server.repositories[repo_id].hostile[name] = hostile
        digest = hashlib.sha256(model["model.safetensors"]).hexdigest()
        row = {"name": "rdn-lit", "repo_id": repo_id, "revision": commit, "sha256": digest}
        found = client("resolve", "rdn-lit", cache_dir=cache, row=row)
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert found["seconds"] < 2 * (GRACE + 3)  # what is damaged is fetched twice
        assert {path.name for path in files} <= {"config.json", "model.safetensors"}
        assert [path.name for path in tmp_path.iterdir()] in ([], ["deep"])
        assert sum(path.stat().st_size for path in files) < 2 * sum(map(len, model.values()))
        if "error" in found:
            shutil.rmtree(tmp_path / "deep", ignore_errors=True)
            assert not found["error"].startswith("not ours"), found
            assert "\n" not in found["message"]
            return "refused"
        assert Path(found["result"]["weights_path"]).read_bytes() == model["model.safetensors"]
        shutil.rmtree(tmp_path / "deep")
        return "fetched"

    campaign(attempt, st.tuples(st.sampled_from(FILES), answers), quick=30, long=200)
