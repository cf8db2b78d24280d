"""What a stranger can send to the page: each gets a sentence, and nothing else happens."""

import functools
import io
import json
import os
import socket
import struct
import subprocess
import sys
import time
import zlib
from contextlib import suppress

import pytest
from page_server import Client, Served
from PIL import Image

from clit_zoo.page import app as page_app
from clit_zoo.page import pictures as page_pictures
from clit_zoo.page import server as page_server

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def hostile(tiny):
    served = Served(tiny)
    yield served
    client = served.client
    # after all of it: it still serves, and no upload is left
    assert client.get("/").status == 200
    client.wait("/api/status", lambda status: status["waiting"] == 0)
    assert not list(served.page.folder.iterdir())
    served.stop()


@pytest.fixture
def client(hostile):
    return hostile.client


@pytest.fixture
def opened(client, png):
    return client.upload(png()).body["id"]


@functools.cache
def bomb(side):
    """A PNG of side x side black pixels, a thousandth as long."""
    row = zlib.compress(bytes(side // 8 + 1) * side, 9)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", row) + chunk(b"IEND", b"")


def until(what):
    end = time.monotonic() + 10
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


def refused(answer, *statuses):
    assert answer.status in statuses, (answer.status, answer.body)
    sentence = answer.body["error"]
    assert 10 < len(sentence) < 500
    assert "/tmp" not in sentence and "Traceback" not in sentence and os.sep + "upload" not in sentence
    return sentence


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "a/../../b.png", "C:\\x\\y.png", "", "\0\n.png", "x" * 5000, "..."]
)
def test_names_of_uploads(client, png, name):
    answer = client.upload(png(seed=len(name)), name)
    assert answer.status == 201
    shown = answer.body["name"]
    assert 0 < len(shown) <= 100 and not set(shown) & set("/\\\0\n") and shown not in ("..", ".")
    wish = json.dumps({"scale": 1.5})
    save = client("POST", f"/api/pictures/{answer.body['id']}/saves", wish).body
    path = f"/api/saves/{save['id']}"
    client.wait(path, lambda one: one["state"] == "done")
    sent = client("GET", f"{path}/file", raw=True).headers["Content-Disposition"]
    assert "/" not in sent.replace("''", "").split("filename", 1)[1] and "\n" not in sent
    client("DELETE", path)


def cases(png):
    whole = png(40, 50)
    jpeg = png(40, 50, form="JPEG")
    return {
        "nothing": b"",
        "text": b"no picture",
        "html": b"<html><script>alert(1)</script>",
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        "zip": b"PK\3\4" + bytes(100),
        "pickle": b"\x80\x04cos\nsystem\n(S'touch /tmp/hacked'\ntR.",
        "half a PNG": whole[: len(whole) // 2],
        "half a JPEG": jpeg[: len(jpeg) // 2],
        "a PNG of 0 pixels": whole[:16] + bytes(8) + whole[24:],
        "a PNG that says it is huge": whole[:16] + struct.pack(">II", 2**31 - 1, 2**31 - 1) + whole[24:],
        "flipped bytes": bytes(b ^ 255 if i > 60 else b for i, b in enumerate(whole)),
        "a bomb of 400 million pixels": bomb(20000),
        "a TIFF that points nowhere": b"II*\0\xff\xff\xff\x7f",
        "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    }


@pytest.mark.parametrize("case", list(cases(lambda *_, **__: bytes(100))))
@pytest.mark.parametrize("name", ["a.png", "b.tif"])
def test_uploads_that_are_no_picture(client, png, case, name):
    before = client.get("/api/pictures").body
    answer = client.upload(cases(png)[case], name)
    assert name in refused(answer, 422, 413) or "million" in answer.body["error"]
    assert client.get("/api/pictures").body == before


def test_too_many_pixels_or_bytes(client, png, monkeypatch):
    monkeypatch.setattr(page_pictures, "MAX_PIXELS", 500)
    assert "million pixels" in refused(client.upload(png(20, 30, seed=77)), 422)
    monkeypatch.setattr(page_app, "MAX_UPLOAD", 1000)
    refused(client.upload(bytes(5000)), 413)
    # without a length, in pieces
    with socket.create_connection(("127.0.0.1", client.port)) as one:
        one.sendall(b"POST /api/pictures HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(3):
            one.sendall(b"200\r\n" + bytes(512) + b"\r\n")
        assert one.recv(100).startswith(b"HTTP/1.1 413")


def test_uploads_under_way_together(client, hostile, png, monkeypatch):
    monkeypatch.setattr(page_app, "MAX_UPLOADING", 5000)
    with socket.create_connection(("127.0.0.1", client.port)) as one:
        head = b"POST /api/pictures HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9999\r\n\r\n"
        one.sendall(head + bytes(4000))
        until(lambda: hostile.page.uploading == 4000)
        answer = client.upload(png(30, 40, seed=78))
        assert "again later" in refused(answer, 503) and answer.headers["Retry-After"]
    until(lambda: hostile.page.uploading == 0)
    assert client.upload(png(30, 40, seed=78)).status == 201


def test_heads_that_do_not_end(client, monkeypatch):
    monkeypatch.setattr(page_server, "HEAD_SECONDS", 0.5)
    begun = [b"", b"GET / HTTP/1.1\r\nX: ", b"GET /icon.svg HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET "]
    sockets = [socket.create_connection(("127.0.0.1", client.port), timeout=10) for _ in begun]
    for one, data in zip(sockets, begun, strict=True):
        one.sendall(data)
    end = time.monotonic() + 10
    with suppress(ConnectionError):  # it is hung up on
        while time.monotonic() < end:  # a byte again and again helps no one
            sockets[1].sendall(b"a")
            sockets[2].sendall(b"a")
            time.sleep(0.1)
    assert time.monotonic() < end
    for one in sockets:
        with suppress(ConnectionError), one:
            while one.recv(1 << 16):
                pass


def test_an_upload_that_stops(client, monkeypatch):
    monkeypatch.setattr(page_app, "UPLOAD_PAUSE", 0.2)
    with socket.create_connection(("127.0.0.1", client.port)) as one:
        one.sendall(b"POST /api/pictures HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9999\r\n\r\nabc")
        assert one.recv(100).startswith(b"HTTP/1.1 408")


def test_an_upload_that_is_cut(client, hostile):
    with socket.create_connection(("127.0.0.1", client.port)) as one:
        one.sendall(b"POST /api/pictures HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9999\r\n\r\nabc")
        time.sleep(0.1)
    until(lambda: not list(hostile.page.folder.iterdir()))


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:8765"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": ""},
        {"Host": "[::1]evil"},
    ],
)
def test_dns_rebinding(client, headers):
    for path in ("/", "/api/pictures", "/iiif/tiny-clit/00/info.json"):
        refused(client("GET", path, headers=headers), 421)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
    ],
)
def test_another_sites_page_changes_nothing(client, png, opened, headers):
    before = client.get("/api/pictures").body
    refused(client("POST", "/api/pictures?name=x.png", png(seed=9), headers), 403)
    refused(client("POST", "/api/example", headers=headers), 403)
    refused(client("DELETE", f"/api/pictures/{opened}", headers=headers), 403)
    refused(client("POST", f"/api/pictures/{opened}/saves", b'{"scale": 2}', headers), 403)
    if "Sec-Fetch-Mode" not in headers or headers["Sec-Fetch-Mode"] != "navigate":
        refused(client("GET", "/api/pictures", headers=headers), 403)
    assert client.get("/api/pictures").body == before


def test_pictures_are_open_to_viewers_elsewhere_by_their_secret_names_only(client, opened):
    elsewhere = {"Origin": "https://viewer.example", "Sec-Fetch-Site": "cross-site"}
    found = client("GET", f"/iiif/bicubic/{opened}/full/max/0/default.png", headers=elsewhere)
    assert found.status == 200 and found.headers["Access-Control-Allow-Origin"] == "*"
    assert len(opened) == 32
    assert "Access-Control-Allow-Origin" not in client("GET", "/api/models").headers
    asked = {**elsewhere, "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "accept"}
    preflight = client("OPTIONS", f"/iiif/bicubic/{opened}/info.json", headers=asked)
    assert preflight.status == 204 and preflight.headers["Access-Control-Allow-Origin"] == "*"
    assert "Accept" in preflight.headers["Access-Control-Allow-Headers"]
    refused(client("OPTIONS", f"/iiif/bicubic/{opened}/info.json", headers={"Host": "evil.example"}), 421)
    for path in ("/api/pictures", f"/api/pictures/{opened}/saves", "/"):
        answer = client("OPTIONS", path, headers=asked)
        assert refused(answer, 403) and "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd", "/..%2f..%2fetc/passwd", "/%2e%2e/app.py", "/../app.py", "//etc/passwd",
        "/nothing", "/api/nothing", "/iiif/a/b/c", "/iiif/tiny-clit/..%2F..%2Fapp/info.json",
        "/iiif/..%2f..%2fweights/00/info.json", "/api/saves/..%2f..%2fx/file", "/api/pictures/%00",
        "/iiif/tiny-clit/%FF%FE/info.json", "/api/saves/x/file",
    ],
)  # fmt: skip
def test_paths_that_lead_nowhere(client, path):
    answer = client("GET", path)
    assert answer.status in (404, 405) and b"root:" not in bytes(str(answer.body), "utf-8")


@pytest.mark.parametrize(
    ("size", "status"),
    [
        ("^99999,", 400), ("^16383,16383", 400), ("^pct:100000", 400), ("^4097,4097", 400), ("^0,0", 400),
        ("9" * 4000 + ",", 400), ("^1e9,", 400), ("-5,", 400), ("%00", 400), ("^٣٠,", 400),
    ],
)  # fmt: skip
def test_sizes_that_are_too_much(client, opened, size, status):
    from urllib.parse import quote

    refused(client.get(f"/iiif/tiny-clit/{opened}/full/{quote(size, safe=',:^!%')}/0/default.png"), status)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400), (b"{", 400), (b"[]", 400), (b"\xff\xfe", 400), (b"[" * 60000, 400),
        (b"x" * 70000, 413),
        (b'{"scale": 1e999}', 400), (b'{"scale": NaN}', 400), (b'{"scale": "4"}', 400),
        (b'{"scale": true}', 400),
        (b'{"scale": -1}', 400), (b'{"scale": 1000}', 413), (b'{"width": 1000000, "height": 1000000}', 400),
        (b'{"scale": 2, "width": 9}', 400), (b"{}", 400), (b'{"scale": 2, "box": [0, 0, 99, 99]}', 400),
        (b'{"scale": 2, "box": [5, 5, 5, 5]}', 400), (b'{"scale": 2, "box": "all"}', 400),
        (b'{"scale": 2, "box": [NaN, 0, 1, 1]}', 400), (b'{"scale": 2, "format": "exe"}', 400),
        (b'{"scale": 2, "format": "../x.png"}', 400), (b'{"scale": 2, "format": ["png"]}', 400),
        (b'{"scale": 2, "model": "../../weights"}', 404),
        (b'{"scale": 2, "path": "/etc/passwd"}', 400),
        (b'{"scale": 2, "quality": 101, "format": "jpeg"}', 400),
    ],
)  # fmt: skip
def test_wishes_that_make_no_sense(client, opened, body, status):
    refused(client("POST", f"/api/pictures/{opened}/saves", body, JSON), status)


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\x02\0", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\0" * 2000,
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 1000000 + b"\r\n\r\n",
        b"POST /api/pictures HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -5\r\n\r\n",
        b"POST /api/pictures HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil\r\n\r\n",
    ],
)  # fmt: skip
def test_bytes_that_are_no_request(client, raw):
    with socket.create_connection(("127.0.0.1", client.port), timeout=5) as one:
        try:
            one.sendall(raw)
            answer = one.recv(200)
        except ConnectionError:
            answer = b""
    assert answer[:12] in (b"", b"HTTP/1.1 400", b"HTTP/1.1 422", b"HTTP/1.1 421")
    assert client.get("/").status == 200


def test_methods_that_are_not_offered(client, opened):
    for method in ("PUT", "PATCH", "TRACE", "CONNECT", "XYZZY"):
        assert client(method, f"/api/pictures/{opened}").status in (400, 405)
    assert client("POST", f"/iiif/tiny-clit/{opened}/info.json").status == 405


def test_a_hundred_requests_that_nobody_reads(client, opened):
    sockets = []
    for i in range(100):
        one = socket.create_connection(("127.0.0.1", client.port))
        address = f"/iiif/tiny-clit/{opened}/full/^{1500 + i},/0/default.png"
        one.sendall(f"GET {address} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        sockets.append(one)
    assert client.get("/api/status").status == 200  # what is small is answered meanwhile
    for one in sockets:
        one.close()
    client.wait("/api/status", lambda status: status["waiting"] == 0)


def test_html_in_a_name_stays_text(client, png):
    name = "<img src=x onerror=alert(1)>.png"
    answer = client("POST", "/api/pictures?name=%3Cimg%20src=x%20onerror=alert(1)%3E.png", png(seed=5))
    assert answer.body["name"] == name
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_an_error_of_ours_is_told_at_the_terminal_only(client, opened, monkeypatch, capfd):
    def broken(*_):
        raise RuntimeError("/secret/path")

    monkeypatch.setattr("clit_zoo.page.page.window", broken)
    answer = client.get(f"/iiif/tiny-clit/{opened}/1,1,5,5/^31,/0/default.png")
    assert answer.status == 500 and "secret" not in str(answer.body)
    assert "/secret/path" in capfd.readouterr().err


def test_a_token_is_asked_for(start, png):
    client = start(hosts=None, token="s3cret-token").client
    for path in ("/", "/api/pictures", "/main.js", "/iiif/tiny-clit/00/info.json"):
        refused(client.get(path), 401)
        refused(client.get(f"{path}?token=wrong"), 401)
        refused(client.get(path, Cookie="clit_zoo_token=wrong"), 401)
        refused(client.get(path, Authorization="Bearer ü".encode().decode("latin-1")), 401)
    refused(client("OPTIONS", "/api/pictures"), 401)
    assert client("OPTIONS", "/iiif/tiny-clit/00/info.json").status == 204  # browsers send no token with it
    page = client.get("/?token=s3cret-token")
    assert page.status == 200
    cookie = page.headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
    assert client.get("/api/pictures", Cookie=cookie.split(";")[0]).status == 200
    assert client.get("/api/pictures", Authorization="Bearer s3cret-token").status == 200
    refused(client("POST", "/api/pictures", png()), 401)


def program(*words, folder):
    return subprocess.Popen(
        [sys.executable, "-m", "clit_zoo", "serve", "--no-browser", "--device", "cpu", *words],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder,
        env={**os.environ, "TMPDIR": str(folder / "tmp")},
    )  # fmt: skip


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_control_c_ends_it_at_once_and_leaves_no_file(tmp_path, png):
    import signal

    (tmp_path / "tmp").mkdir()
    (tmp_path / "a.png").write_bytes(png(60, 80))
    process = program("--port", "0", "a.png", folder=tmp_path)
    line = process.stdout.readline()
    client = Client(int(line.split(":")[2].split("/")[0]))
    (picture,) = client.get("/api/pictures").body["pictures"]
    assert picture["name"] == "a.png" and str(tmp_path) not in json.dumps(picture)
    client("POST", f"/api/pictures/{picture['id']}/saves", json.dumps({"scale": 90}))
    with socket.create_connection(("127.0.0.1", client.port)) as one:  # an upload and a tile under way
        one.sendall(b"POST /api/pictures HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9999\r\n\r\nabc")
        address = f"/iiif/edsr-light-lit/{picture['id']}/full/^2000,/0/default.png"
        with socket.create_connection(("127.0.0.1", client.port)) as other:
            other.sendall(f"GET {address} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            client.wait("/api/status", lambda status: status["encoded_bytes"] > 0)
            assert list((tmp_path / "tmp").iterdir())
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            told, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and told.strip() == "Stopped."
    assert time.monotonic() - began < 10  # 1 s on a machine that does nothing else
    assert not list((tmp_path / "tmp").iterdir())


def test_what_the_command_refuses(tmp_path, capfd, monkeypatch):
    from clit_zoo.commands import cli

    monkeypatch.chdir(tmp_path)
    (tmp_path / "no.png").write_bytes(b"no picture")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for words, code, sentence in [
            (["no.png"], 1, "not a picture"),
            (["missing.png"], 1, "No such file"),
            (["--port", port], 1, "take another --port"),
            (["--host", "no.such.host.invalid"], 1, "take another --port or --host"),
            (["--port", "99999"], 2, "not in the range"),
            (["no.png"] * 13, 2, "12 can be open"),
            (["-m", "no-such-model"], 1, "no model called"),
        ]:
            assert cli.run(["serve", "--no-browser", *words]) == code
            assert sentence in capfd.readouterr().err, words


def test_without_the_extra(monkeypatch, capfd):
    from clit_zoo.commands import cli

    monkeypatch.setitem(sys.modules, "clit_zoo.page.server", None)
    monkeypatch.setitem(cli.EXTRAS, "clit_zoo.page.server", cli.EXTRAS["uvicorn"])
    assert cli.run(["serve"]) == 1
    assert "is not installed: pip install 'clit-zoo[page]'" in capfd.readouterr().err


def test_animations_and_odd_kinds_are_pictures_too(client):
    frames = [Image.new("RGB", (9, 7), color) for color in ("red", "blue")]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    told = client.upload(file.getvalue(), "moving.gif").body
    assert "moving.gif holds several frames" in told["notices"][0]
