"""What `import clit_zoo` shows."""

import importlib
import inspect
import subprocess
import sys

import pytest

import clit_zoo


def test_what_is_listed_is_the_public_face():
    face = {"ClitZooError", "SuperResolver", "__version__", "create_model", "from_pretrained"}
    face |= {"list_models", "recommend"}
    assert set(dir(clit_zoo)) == set(clit_zoo.__all__) == face
    for name in face:
        assert getattr(clit_zoo, name) is not None


def test_torch_is_imported_when_it_is_needed():
    code = (
        "import sys, clit_zoo; assert 'torch' not in sys.modules; clit_zoo.SuperResolver;"
        "assert 'torch' in sys.modules; assert 'SuperResolver' in vars(clit_zoo)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


API = [
    "clit_zoo.model",
    "clit_zoo.pretrained",
    "clit_zoo.geometry",
    "clit_zoo.errors",
    "clit_zoo.encoders.base",
    "clit_zoo.decoders.base",
    "clit_zoo.convert",
    "clit_kernels",
]


@pytest.mark.parametrize("name", API)
def test_everything_public_says_what_it_is(name):
    """Classes, functions and methods of the API pages have docstrings."""
    module = importlib.import_module(name)
    for title, member in vars(module).items():
        own = getattr(member, "__module__", None) == name and not title.startswith("_")
        if not (own and (inspect.isclass(member) or inspect.isfunction(member))):
            continue
        assert inspect.getdoc(member), f"{name}.{title}"
        if inspect.isclass(member):
            for part, function in vars(member).items():
                if inspect.isfunction(function) and not part.startswith("_"):
                    assert inspect.getdoc(function), f"{name}.{title}.{part}"
