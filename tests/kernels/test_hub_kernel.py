"""kernels/ as a Hub kernel: its build.toml, and its build as Hugging Face's ``kernels`` package loads it."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from op_cases import QUERIES, random_map, stage_weights

import clit_kernels

PROJECT = Path(__file__).resolve().parents[2] / "kernels"


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with build/torch-<backend> for every backend."""
    folder = tmp_path_factory.mktemp("kernel")
    command = [sys.executable, str(PROJECT / "build_local.py"), "--target", str(folder / "build")]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def test_the_project_is_named_as_its_package_and_has_no_init():
    general = tomllib.loads((PROJECT / "build.toml").read_text())["general"]
    assert (PROJECT / "torch-ext" / general["name"].replace("-", "_") / "__init__.py").is_file()
    assert general["edition"] == 5
    assert not (PROJECT / "__init__.py").exists()  # "kernels" is Hugging Face's package


def test_the_package_imports_nothing_beyond_torch_and_triton():
    """A build is loaded where only those two and the standard library are."""
    allowed = {*sys.stdlib_module_names, "torch", "triton"}
    for path in (PROJECT / "torch-ext" / "clit_kernels").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            assert {name.partition(".")[0] for name in names} <= allowed, f"{path.name}: {names}"


def test_a_build_holds_the_whole_package(built):
    package = PROJECT / "torch-ext" / "clit_kernels"
    files = {p.relative_to(package) for p in package.rglob("*") if p.suffix in (".py", ".json")}
    for variant in (built / "build").iterdir():
        assert {p.relative_to(variant) for p in variant.rglob("*.*") if p.is_file()} == {
            *files,
            Path("metadata.json"),
        }
        metadata = json.loads((variant / "metadata.json").read_text())
        assert variant.name == f"torch-{metadata['backend']['type']}" and metadata["id"].isidentifier()


def test_the_card_renders_and_its_example_runs():
    jinja2 = pytest.importorskip("jinja2")
    template = jinja2.Environment(trim_blocks=True).from_string((PROJECT / "CARD.md").read_text())
    card = template.render(
        repo_id="someone/clit-kernels", version=1, license="apache-2.0", functions=clit_kernels.__all__
    )
    assert "{" not in card.replace("{}", "") and "- `local_attention`" in card
    (example,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert 'get_kernel("someone/clit-kernels", version=1)' in example
    names = {"clit_kernels": clit_kernels}
    lines = [line for line in example.splitlines() if "get_kernel" not in line]
    exec("\n".join(lines).replace('device="cuda"', 'device="cpu"').replace("bfloat16", "float32"), names)
    assert names["attention"].shape == (1, 192 * 192, 8, 49)


def test_huggingface_kernels_reads_build_toml():
    rust = pytest.importorskip("kernels._rust", reason="Hugging Face's kernels package is not installed")
    backends = rust.Build.open(PROJECT).general.backends
    assert {str(b) for b in backends} == {"cpu", "cuda", "rocm"}


@pytest.mark.usefixtures("poisoned")
def test_huggingface_kernels_loads_the_build(built):
    load = pytest.importorskip("kernels.load", reason="Hugging Face's kernels package is not installed")
    loaded = load.get_local_kernel(built, backend="cpu")
    assert loaded is not clit_kernels and loaded.__all__ == clit_kernels.__all__
    size, queries = QUERIES["grid x2.5"]
    q, k = (random_map(8, size, seed) for seed in (1, 2))
    stage = stage_weights(8, 2, 1)
    args = (stage.proj_weight, stage.proj_bias, 2, 1)
    result = loaded.local_attention(loaded.AttentionCall(q, k, loaded.Grid(*queries), *args))
    expected = clit_kernels.local_attention(clit_kernels.AttentionCall(q, k, queries, *args))
    assert torch.equal(result, expected)
