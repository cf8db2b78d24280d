"""The light models' weights travel: checkout -> sdist -> wheel, where they lie inside the package."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = ("config.json", "model.safetensors", "README.md")


def build(source: Path, target: Path, kind: str) -> Path:
    code = f"import setuptools.build_meta as b, sys; b.build_{kind}(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(target)], cwd=source, check=True, capture_output=True)
    return next(target.iterdir())


@pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="needs the source tree")
def test_weights_reach_the_wheel(tmp_path):
    pytest.importorskip("setuptools", minversion="77")
    source = tmp_path / "source"
    for folder in ("clit_zoo", "kernels"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    files = [
        "pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "CITATION.cff", "CHANGELOG.md",
        "Makefile",
    ]  # fmt: skip
    for name in files:
        shutil.copy(ROOT / name, source)
    for model in ("edsr-light-some", "rdn-some"):
        (source / "weights" / model).mkdir(parents=True)
        for name in (*FILES, "train.log"):
            (source / "weights" / model / name).write_text(name)

    sdist = build(source, tmp_path / "sdist", "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    beside = {"CITATION.cff", "CHANGELOG.md", "Makefile"}
    assert not [name for name in beside if not (unpacked / name).exists()]
    assert [folder.name for folder in (unpacked / "weights").iterdir()] == ["edsr-light-some"]
    with zipfile.ZipFile(build(unpacked, tmp_path / "wheel", "wheel")) as wheel:
        names = set(wheel.namelist())
    assert {name for name in names if "weights/" in name} == {
        f"clit_zoo/weights/edsr-light-some/{name}" for name in FILES
    }
    page = {"page/openapi.json", "page/viewer/main.js", "page/viewer/astronaut.webp"}
    needed = {"zoo/registry.py", "py.typed", "evaluation/published.txt", *page}
    assert {"clit_kernels/__init__.py", *(f"clit_zoo/{name}" for name in needed)} <= names
    assert not any(name.startswith(("tests/", "weights/", "kernels/")) for name in names)
