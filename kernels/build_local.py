"""Lay the kernels out as Hugging Face's ``kernels`` package loads them: build/torch-<backend>/.

    python kernels/build_local.py
    >>> clit_kernels = kernels.get_local_kernel(Path("kernels"))

A build of a kernel without compiled parts is a copy of its source, with a metadata.json made from build.toml.
Publishing is kernel-builder's task; this is for trying a checkout.
"""

import argparse
import hashlib
import json
import os
import shutil
import tempfile
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent


def sources(package: Path) -> list[Path]:
    """The files of a build, relative to ``package``."""
    found = (path for suffix in ("py", "json") for path in package.rglob(f"*.{suffix}"))
    return sorted(path.relative_to(package) for path in found)


def build(target: Path) -> list[Path]:
    """Write target/torch-<backend> for every backend of build.toml, replacing what is there."""
    general = tomllib.loads((HERE / "build.toml").read_text(encoding="utf-8"))["general"]
    name = general["name"].replace("-", "_")
    package = HERE / "torch-ext" / name
    files = sources(package)
    digest = hashlib.sha256(b"".join((package / file).read_bytes() for file in files)).hexdigest()[:7]
    target.mkdir(parents=True, exist_ok=True)
    made = []
    for backend in general["backends"]:
        metadata = {
            "name": general["name"],
            "id": f"_{name}_{backend}_{digest}",  # the module's name: several versions can be loaded at once
            "version": general["version"],
            "license": general["license"],
            "python-depends": general.get("python-depends", []),
            "backend": {"type": backend},
        }
        folder = Path(tempfile.mkdtemp(dir=target))
        for file in files:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(package / file, folder / file)
        (folder / "metadata.json").write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")
        variant = target / f"torch-{backend}"
        shutil.rmtree(variant, ignore_errors=True)
        os.replace(folder, variant)
        made.append(variant)
    return made


def main() -> None:
    """Build, and say where."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--target", type=Path, default=HERE / "build", help="default: kernels/build")
    for variant in build(parser.parse_args().target):
        print(variant)


if __name__ == "__main__":
    main()
