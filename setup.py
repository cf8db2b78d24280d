"""What pyproject.toml cannot say: weights/ lies beside the package in the source, inside it when installed.

A wheel carries the light models; the others come with a checkout, or from the Hub.
An editable install finds weights/ in the checkout (see clit_zoo/zoo/registry.py) and copies nothing.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithWeights(build_py):
    def run(self):
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib, "clit_zoo", "weights")
        shutil.rmtree(target, ignore_errors=True)  # a model that is no longer there must not linger
        for weights in sorted(Path("weights").glob("edsr-light-*/model.safetensors")):
            folder = target / weights.parent.name
            folder.mkdir(parents=True)
            for name in ("config.json", "model.safetensors", "README.md"):
                shutil.copyfile(weights.parent / name, folder / name)


setup(cmdclass={"build_py": BuildWithWeights})
