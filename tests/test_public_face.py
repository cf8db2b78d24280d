"""What `import clit_zoo` shows."""

import subprocess
import sys

import clit_zoo


def test_what_is_listed_is_the_public_face():
    face = {"ClitZooError", "SuperResolver", "__version__", "create_model", "from_pretrained", "list_models"}
    assert set(dir(clit_zoo)) == set(clit_zoo.__all__) == face
    for name in face:
        assert getattr(clit_zoo, name) is not None


def test_torch_is_imported_when_it_is_needed():
    code = (
        "import sys, clit_zoo; assert 'torch' not in sys.modules; clit_zoo.SuperResolver;"
        "assert 'torch' in sys.modules; assert 'SuperResolver' in vars(clit_zoo)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
