"""``make docs``: the API page from the docstrings, into build/docs. A warning or a missing one stops it."""

import importlib
import sys
import warnings
from pathlib import Path

import pdoc

import clit_zoo

MODULES = (
    "clit_zoo",
    "clit_zoo.model",
    "clit_zoo.geometry",
    "clit_zoo.errors",
    "clit_zoo.encoders.base",
    "clit_zoo.decoders.base",
    "clit_zoo.convert",
    "clit_kernels",
)


def undocumented(name: str) -> list[str]:
    """The public classes and functions of a module, and their methods, that have no docstring."""
    found = []
    for member in pdoc.doc.Module(importlib.import_module(name)).members.values():
        own = member.own_members if isinstance(member, pdoc.doc.Class) else []
        callables = [part for part in (member, *own) if isinstance(part, pdoc.doc.Class | pdoc.doc.Function)]
        found += [p.fullname for p in callables if not p.name.startswith("_") and not p.docstring]
    return found


def main() -> int:
    """Write the page; the exit code."""
    for name in clit_zoo.__all__:
        getattr(clit_zoo, name)  # they are imported when first asked for, and pdoc does not ask
    missing = [part for name in MODULES for part in undocumented(name)]
    if missing:
        print(f"No docstring: {', '.join(missing)}", file=sys.stderr)
        return 1
    warnings.simplefilter("error", UserWarning)
    pdoc.render.configure(docformat="google", footer_text=f"clit_zoo {clit_zoo.__version__}")
    pdoc.pdoc(*MODULES, output_directory=Path(__file__).parents[1] / "build" / "docs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
