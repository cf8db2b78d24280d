"""``clit-zoo upscale --iiif``: the server's tiles as a folder that any web server shows."""

import json
import math

import pytest
from PIL import Image

import clit_zoo
from clit_zoo.commands import cli, threads
from clit_zoo.page import iiif


@pytest.fixture
def run(tiny, monkeypatch, tmp_path, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(clit_zoo, "from_pretrained", lambda *_, **__: tiny)
    monkeypatch.setattr(threads, "use_free_cores", lambda: 1)

    def call(*words):
        code = cli.run([*words, "-m", "edsr-light-lit", "--iiif", "https://example.org/my/"])
        return code, "".join(capfd.readouterr())

    return call


def test_the_folder_is_what_the_server_gives(run, client, png, tmp_path):
    data = png(70, 90)
    (tmp_path / "a photo.png").write_bytes(data)
    assert run("upscale", "a photo.png", "-s", "3.7", "-o", "out")[0] == 0
    (folder,) = (tmp_path / "out").iterdir()
    assert folder.name == "a photo_x3.7_edsr-light-lit"
    info = json.loads((folder / "info.json").read_text())
    assert (
        info["id"] == "https://example.org/my/a%20photo_x3.7_edsr-light-lit" and info["profile"] == "level0"
    )
    assert (info["width"], info["height"]) == (333, 259)
    files = {str(path.relative_to(folder)) for path in folder.rglob("*.jpg")}
    assert files == {f"{address}.jpg" for address in iiif.tiles((259, 333))}
    id = client.upload(data).body["id"]
    for file in files:
        assert (folder / file).read_bytes() == client.get(f"/iiif/tiny-clit/{id}@3.7/{file}").body, file
    for address, size in (("256,256,77,3/77,3", (77, 3)), ("full/max", (333, 259))):
        with Image.open(folder / address / "0" / "default.jpg") as image:
            assert image.size == size
    assert math.prod((info["width"], info["height"])) <= info["maxArea"]


def test_again_and_refused(run, png, tmp_path):
    (tmp_path / "a.png").write_bytes(png(9, 9))
    assert run("upscale", "a.png", "-o", "out")[0] == 0
    assert run("upscale", "a.png", "-o", "out")[0] == 1
    code, told = run("upscale", "a.png", "-o", "out", "--skip-existing")
    assert code == 0 and "exists" in told
    for words in (["--overwrite"], ["--format", "png"], ["--quality", "9"]):
        assert run("upscale", "a.png", "-o", "other", *words)[0] == 2
    assert not (tmp_path / "other").exists()


def test_a_failure_leaves_nothing(run, png, tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(png(70, 90))
    seen = []

    def fails(*_):
        seen.append(1)
        if len(seen) == 3:
            raise OSError(28, "No space left on device")
        return b"tile"

    monkeypatch.setattr("clit_zoo.page.static.encoded", fails)
    code, told = run("upscale", "a.png", "-o", "out")
    assert code == 1 and "No space left on device" in told
    assert not list((tmp_path / "out").iterdir())


def test_an_address_that_is_none(monkeypatch, tmp_path, capfd):
    monkeypatch.chdir(tmp_path)
    for address in ("example.org", "https://", "https://x/?a", "ftp://x"):
        assert cli.run(["upscale", "a.png", "--iiif", address]) == 1
        assert "no web address" in capfd.readouterr().err
