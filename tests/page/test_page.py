"""The page's server over a real connection: what a person's browser and other programs get."""

import gc
import io
import json
import socket
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from clit_zoo.errors import ImageError
from clit_zoo.imaging import large as imaging_large
from clit_zoo.page import app as page_app
from clit_zoo.page import pictures as page_pictures
from clit_zoo.page import saves as page_saves


@pytest.mark.parametrize("scale", [2, 3.7, 8])
def test_a_tile_is_the_crop_of_the_whole_to_the_bit(client, tiny, noise, scale):
    array = noise(37, 41)
    id = client.opened(array)
    whole = tiny.upscale(array, scale)
    height, width = whole.shape[:2]
    base = f"/iiif/tiny-clit/{id}"
    for left, top, right, bottom in [
        (0, 0, 64, 64),
        (11, 7, 75, 71),
        (width - 19, height - 5, width, height),
    ]:
        part = client.get(f"{base}@{scale}/{left},{top},{right - left},{bottom - top}/max/0/default.tif")
        assert part.status == 200, part.body
        assert np.array_equal(tifffile.imread(io.BytesIO(part.body)), whole[top:bottom, left:right])
        # the same without a canvas: a region in percent, and its size
        place = (100 * left / width, 100 * top / height, 100 * (right - left) / width)
        percent = ",".join(f"{share:.15f}" for share in (*place, 100 * (bottom - top) / height))
        part = client.get(f"{base}/pct:{percent}/^{right - left},{bottom - top}/0/default.tif")
        assert part.status == 200, part.body
        assert np.array_equal(tifffile.imread(io.BytesIO(part.body)), whole[top:bottom, left:right])


def test_tiles_at_the_largest_scale(client, noise):
    id = client.opened(noise(37, 41))
    for x, y, w, h in [(7936, 33024, 256, 256), (40960, 36864, 40, 136), (11, 7, 90, 91)]:
        part = client.get(f"/iiif/tiny-clit/{id}@1000/{x},{y},{w},{h}/max/0/default.png")
        assert part.status == 200, part.body


def test_info_and_what_the_standard_wants_of_a_server(client, noise):
    id = client.opened(noise())
    base = f"/iiif/tiny-clit/{id}"
    moved = client.get(base)
    assert moved.status == 303 and moved.headers["Location"].endswith(f"{base}/info.json")
    found = client.get(f"{base}/info.json")
    assert found.body["id"] == f"http://127.0.0.1:{client.port}{base}"
    assert (found.body["width"], found.body["height"], found.body["profile"]) == (30, 20, "level2")
    assert found.headers["Access-Control-Allow-Origin"] == "*"
    linked = client.get(f"{base}/info.json", Accept="application/ld+json")
    assert linked.headers["Content-Type"].startswith("application/ld+json")
    larger = client.get(f"{base}@2.5/info.json").body
    assert (larger["width"], larger["height"]) == (75, 50) and larger["id"].endswith("@2.5")
    for address, status in [
        (f"/iiif/nothing/{id}/info.json", 404),
        ("/iiif/tiny-clit/00/info.json", 404),
        (f"{base}/full/max/0/default.gif", 400),
        (f"{base}/full/max/45/default.png", 501),
        (f"{base}/full/31,/0/default.png", 400),
        (f"{base}/full/max/0", 404),
    ]:
        answer = client.get(address)
        assert answer.status == status and answer.body["error"], address


def test_the_kinds_of_answers(client, noise):
    id = client.opened(noise())
    for form, name in [("jpg", "JPEG"), ("png", "PNG"), ("webp", "WEBP"), ("tif", "TIFF")]:
        answer = client.get(f"/iiif/bicubic/{id}/2,3,10,8/^25,/90/color.{form}")
        assert answer.headers["Content-Type"] == f"image/{name.lower()}"
        if form != "tif":
            with Image.open(io.BytesIO(answer.body)) as image:
                assert (image.format, image.size) == (name, (20, 25))


def test_an_upload_is_told_and_encoded_with_progress(client, png):
    answer = client.upload(png(31, 45, dpi=(300, 300)), "über/ein\x00 Bild.png")
    assert answer.status == 201
    told = answer.body
    assert (told["name"], told["width"], told["height"], told["bits"]) == ("ein Bild.png", 45, 31, 8)
    assert told["model"] == "tiny-clit" and told["closed"] == [] and told["encoded"] == {}
    assert client("POST", f"/api/pictures/{told['id']}/encode").status == 202
    path = f"/api/pictures/{told['id']}"
    assert client.wait(path, lambda one: one["encoded"].get("tiny-clit") == 1)["id"] == told["id"]
    # the same file again is the same picture
    assert client.upload(png(31, 45, dpi=(300, 300)), "copy.png").body["id"] == told["id"]
    assert told["id"] in [one["id"] for one in client.get("/api/pictures").body["pictures"]]
    assert client("DELETE", path).status == 204
    assert client.get(path).status == 404
    assert client.get(f"/iiif/tiny-clit/{told['id']}/full/max/0/default.png").status == 404


@pytest.mark.parametrize(
    ("form", "suffix"), [("png", "png"), ("tiff", "tif"), ("webp", "webp"), ("jpeg", "jpg")]
)
def test_saved_whole_with_its_metadata(client, tiny, png, form, suffix):
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    data = png(20, 30, exif=exif, dpi=(300, 300))
    id = client.upload(data, "photo.png").body["id"]
    wish = {"model": "tiny-clit", "scale": 3.7, "format": form, "quality": 100}
    started = client("POST", f"/api/pictures/{id}/saves", json.dumps(wish))
    assert started.status == 202, started.body
    path = f"/api/saves/{started.body['id']}"
    done = client.wait(path, lambda one: one["state"] in ("done", "failed"))
    assert (done["state"], done["progress"], done["name"]) == ("done", 1, f"photo_x3.7_tiny-clit.{suffix}")
    file = client("GET", f"{path}/file", raw=True)
    assert f"photo_x3.7_tiny-clit.{suffix}" in file.headers["Content-Disposition"]
    wanted = np.asarray(tiny.upscale(Image.open(io.BytesIO(data)), 3.7))
    with Image.open(io.BytesIO(file.body)) as image:
        found = np.asarray(image)
        assert image.getexif()[0x010F] == "a camera"
        assert form == "webp" or image.info["dpi"] == pytest.approx((300, 300), abs=0.01)
    assert found.shape == wanted.shape
    assert np.array_equal(found, wanted) if form != "jpeg" else np.abs(found - wanted.astype(int)).mean() < 3
    assert client("DELETE", path).status == 204 and client.get(path).status == 404


def test_a_part_saved_is_the_crop(client, tiny, noise):
    array = noise(20, 30)
    id = client.opened(array)
    wish = {"scale": 2.5, "box": [3.3, 2.2, 20, 18.9], "format": "tiff"}
    path = f"/api/saves/{client('POST', f'/api/pictures/{id}/saves', json.dumps(wish)).body['id']}"
    client.wait(path, lambda one: one["state"] == "done")
    found = tifffile.imread(io.BytesIO(client("GET", f"{path}/file", raw=True).body))
    assert np.array_equal(found, tiny.upscale(array, 2.5, box=(3.3, 2.2, 20, 18.9)))
    for wish, size in [
        ({"width": 90}, (60, 90)), ({"height": 33, "box": [0, 0, 10, 20]}, (33, 16)),
        ({"width": 31, "height": 77}, (77, 31)), ({"scale": 0.5, "model": "bicubic"}, (10, 15)),
    ]:  # fmt: skip
        answer = client("POST", f"/api/pictures/{id}/saves", json.dumps(wish))
        assert (answer.body["height"], answer.body["width"]) == size
        client("DELETE", f"/api/saves/{answer.body['id']}")


def test_transparency_goes_on_white_in_a_jpeg(client, noise):
    array = noise(8, 9, 4, np.uint8)
    array[..., 3] = 0
    id = client.opened(array, photometric="rgb", extrasamples=["unassalpha"])
    answer = client("POST", f"/api/pictures/{id}/saves", json.dumps({"scale": 2, "format": "jpeg"}))
    path = f"/api/saves/{answer.body['id']}"
    done = client.wait(path, lambda one: one["state"] == "done")
    assert "transparency was laid on white" in done["notices"]
    with Image.open(io.BytesIO(client("GET", f"{path}/file", raw=True).body)) as image:
        assert np.asarray(image).min() > 250


def test_saves_are_listed_and_cancelled_between_their_rows_and_tiles_come_meanwhile(
    start, noise, monkeypatch
):
    monkeypatch.setattr("clit_zoo.tiles.CHUNK_PIXELS", 1 << 16)
    served = start()
    client = served.client
    id = client.opened(noise(40, 50, seed=3))
    wish = json.dumps({"scale": 60, "format": "tiff"})
    first, second = (client("POST", f"/api/pictures/{id}/saves", wish).body for _ in range(2))
    path = f"/api/saves/{first['id']}"
    assert client.get(f"{path}/file").status == 409
    client.wait(path, lambda one: one["progress"] > 0)
    assert client.get(f"/iiif/tiny-clit/{id}/1,0,5,5/^20,20/0/default.png").status == 200
    listed = client.get("/api/saves").body["saves"]
    assert [(one["id"], one["state"]) for one in listed] == [
        (first["id"], "working"), (second["id"], "working"),
    ]  # fmt: skip
    for one in listed:
        assert client("DELETE", f"/api/saves/{one['id']}").status == 204
    assert client.get("/api/saves").body == {"saves": []}
    end = time.monotonic() + 10
    while list(served.page.folder.iterdir()):
        assert time.monotonic() < end
        time.sleep(0.02)
    assert all(opened.saves == 0 for opened in served.pictures)


def test_a_large_save_goes_to_the_disk_band_by_band(client, tiny, noise, monkeypatch):
    for module in (imaging_large, page_saves):
        monkeypatch.setattr(module, "LARGE_BYTES", 10_000)
    monkeypatch.setattr(imaging_large.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(page_saves.imaging, "write", None)
    array = noise(20, 30, dtype=np.uint8)
    id = client.opened(array)
    post = f"/api/pictures/{id}/saves"
    refused = client("POST", post, json.dumps({"scale": 4, "format": "png"}))
    assert refused.status == 413 and "take TIFF" in refused.body["error"]
    for wish, wanted in [
        ({"scale": 4}, tiny.upscale(array, 4)),
        ({"width": 20, "height": 1000}, None),  # narrower and taller
    ]:
        path = f"/api/saves/{client('POST', post, json.dumps({**wish, 'format': 'tiff'})).body['id']}"
        done = client.wait(path, lambda one: one["state"] in ("done", "failed"))
        assert done["state"] == "done", done
        found = tifffile.imread(io.BytesIO(client("GET", f"{path}/file", raw=True).body))
        assert np.array_equal(found, wanted) if wanted is not None else "bicubic" in done["name"]
        client("DELETE", path)
    monkeypatch.setattr(imaging_large.shutil, "disk_usage", lambda path: SimpleNamespace(free=5))
    path = f"/api/saves/{client('POST', post, json.dumps({'scale': 4, 'format': 'tiff'})).body['id']}"
    failed = client.wait(path, lambda one: one["state"] == "failed")
    assert "GB free" in failed["notices"][0] and "/" not in failed["notices"][0]
    client("DELETE", path)


def test_where_it_looks(client, tiny, noise):
    array = noise(20, 30)
    id = client.opened(array)
    told = client.get(f"/api/pictures/{id}/attention?x=11.3&y=7.8&scale=9").body
    wanted = tiny.open(array).attention(11.3, 7.8, 9)
    assert len(told["stages"]) == len(wanted) == 2
    for stage, glance in zip(told["stages"], wanted, strict=True):
        assert stage["box"] == pytest.approx(glance.box)
        torch.testing.assert_close(torch.tensor(stage["heads"]), glance.weights)
    for query, status in [
        ("x=a&y=1", 400),
        ("x=31&y=1", 422),
        ("x=1&y=1&model=bicubic", 400),
        ("x=nan&y=1", 422),
    ]:
        answer = client.get(f"/api/pictures/{id}/attention?{query}")
        assert answer.status == status and answer.body["error"]


@pytest.fixture
def saving(start):
    """A client of a server whose saves wait."""
    served, go_on = start(), threading.Event()
    served.page.saves._worker.run("first", lambda: go_on.wait(60))
    yield served.client
    go_on.set()


def test_the_thirteenth_picture_closes_the_oldest_idle_one(saving, png, monkeypatch):
    monkeypatch.setattr(page_pictures, "MAX_PICTURES", 3)
    client = saving
    ids = [client.upload(png(seed=seed), f"{seed}.png").body["id"] for seed in range(3)]
    client.get(f"/api/pictures/{ids[0]}")  # looked at
    save = client("POST", f"/api/pictures/{ids[1]}/saves", json.dumps({"scale": 2})).body
    told = client.upload(png(seed=3), "3.png").body
    assert told["closed"] == ["2.png"]
    answer = client.get(f"/iiif/tiny-clit/{ids[2]}/full/max/0/default.png")
    assert answer.status == 404 and "closed to make room" in answer.body["error"]
    assert client.upload(png(seed=4), "4.png").body["closed"] == ["0.png"]
    client("DELETE", f"/api/saves/{save['id']}")
    monkeypatch.setattr(page_pictures, "MAX_HELD_PIXELS", 1300)
    assert len(client.upload(png(seed=5), "5.png").body["closed"]) == 2


def test_a_picture_there_is_no_room_for_closes_none(saving, png, monkeypatch):
    monkeypatch.setattr(page_pictures, "MAX_HELD_PIXELS", 1300)
    client = saving
    idle, saved = (client.upload(png(seed=seed), f"{seed}.png").body["id"] for seed in range(2))
    client("POST", f"/api/pictures/{saved}/saves", json.dumps({"scale": 2}))
    answer = client.upload(png(30, 30), "large.png")
    assert answer.status == 503 and "being saved" in answer.body["error"]
    assert client.get(f"/api/pictures/{idle}").status == 200


def test_a_picture_closed_while_it_is_encoded_ends_what_waits_for_it(
    start, tiny, noise, monkeypatch, capfd, caplog
):
    gate = threading.Event()
    monkeypatch.setattr(page_pictures.Models, "get", lambda self, name: gate.wait(30) and tiny)
    served = start()
    client, tiles = served.client, []
    id = client.opened(noise())
    left = client("POST", f"/api/pictures/{id}/saves", json.dumps({"scale": 3})).body
    client("DELETE", f"/api/saves/{left['id']}")
    save = client("POST", f"/api/pictures/{id}/saves", json.dumps({"scale": 2})).body
    asking = threading.Thread(
        target=lambda: tiles.append(client.get(f"/iiif/tiny-clit/{id}/full/^60,/0/default.png"))
    )
    asking.start()
    while not served.page.answers._under_way:
        time.sleep(0.01)
    assert client("DELETE", f"/api/pictures/{id}").status == 204
    try:
        ended = client.wait(f"/api/saves/{save['id']}", lambda one: one["state"] == "failed", 10)
        assert ended["notices"] == ["this picture was closed"]
        asking.join(10)
        assert (tiles[0].status, tiles[0].body["error"]) == (404, "this picture was closed")
        gc.collect()
        assert not capfd.readouterr().err and not caplog.records
    finally:
        gate.set()


def test_views_are_held_within_bytes(start, noise, monkeypatch):
    served = start()
    client = served.client
    ids = [client.opened(noise(seed=seed)) for seed in range(3)]
    for id in ids:
        assert client.get(f"/iiif/tiny-clit/{id}/full/^60,/0/default.png").status == 200
    assert len(served.page.views._shown) == 3
    monkeypatch.setattr(page_pictures, "MAX_ENCODED_BYTES", served.page.views.nbytes // 3)
    client.get(f"/iiif/tiny-clit/{ids[1]}/full/^61,/0/default.png")
    assert list(served.page.views._shown) == [(ids[1], "tiny-clit")]


def test_a_client_that_leaves_frees_the_worker(served, client, noise):
    id = client.opened(noise(40, 50, seed=5))
    client.get(f"/iiif/tiny-clit/{id}/0,0,2,2/^9,/0/default.png")
    sockets = []
    for size in range(1900, 1920):
        sockets.append(socket.create_connection(("127.0.0.1", client.port)))
        address = f"/iiif/tiny-clit/{id}/full/^{size},/0/default.png"
        sockets[-1].sendall(f"GET {address} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    client.wait("/api/status", lambda status: status["waiting"] >= 19)
    for one in sockets:
        one.close()
    client.wait("/api/status", lambda status: status["waiting"] == 0)
    assert not served.page.answers._under_way


def test_the_example_and_the_models(client):
    told = client("POST", "/api/example").body
    assert (told["width"], told["height"]) == (512, 512)
    models = {model["name"]: model for model in client.get("/api/models").body["models"]}
    assert models["tiny-clit"]["attention"] and not models["bicubic"]["attention"]
    assert "edsr-light-lit" in models


def test_every_route_is_described(served, client):
    described = client.get("/api/openapi.json").body
    assert described["openapi"].startswith("3.1")
    routes = {
        (route.path, method.lower())
        for route in served.app.routes
        for method in getattr(route, "methods", None) or ()
        if method != "HEAD"
    }
    paths = {
        (path, method)
        for path, item in described["paths"].items()
        for method in item
        if method != "parameters"
    }
    assert routes == paths


def test_the_viewer_needs_nothing_from_elsewhere(client):
    page = client.get("/")
    assert page.status == 200 and "default-src 'none'" in page.headers["Content-Security-Policy"]
    files = sorted(path.name for path in (page_app.HERE / "viewer").iterdir())
    for name in files:
        answer = client("GET", f"/{name}", raw=True)
        assert answer.status == 200
        if not name.endswith(".webp"):
            assert "://" not in answer.body.decode().replace("http://www.w3.org/2000/svg", "")


def test_a_save_that_cannot_be_written(client, noise, monkeypatch):
    def full(*_):
        raise ImageError("cannot write: no space left")

    monkeypatch.setattr(page_saves.imaging, "write", full)
    id = client.opened(noise())
    path = f"/api/saves/{client('POST', f'/api/pictures/{id}/saves', json.dumps({'scale': 2})).body['id']}"
    failed = client.wait(path, lambda one: one["state"] == "failed")
    assert "no space left" in failed["notices"][0]


def test_four_viewers_at_once(client, noise):
    """Each gets every tile it asks for, and none waits for all of the others'."""
    id = client.opened(noise(40, 50, seed=6))
    slowest = []

    def view(name):
        for i in range(6):
            began = time.monotonic()
            tile = client.get(
                f"/iiif/tiny-clit/{id}/{i},{name},9,9/^6{name},/0/default.png", **{"X-Viewer": f"v{name}"}
            )
            assert tile.status == 200
            slowest.append(time.monotonic() - began)

    threads = [threading.Thread(target=view, args=[n]) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(slowest) == 24
