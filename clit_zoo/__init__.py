"""Arbitrary-scale super-resolution: one model enlarges a picture by any factor.

>>> import clit_zoo
>>> model = clit_zoo.from_pretrained("edsr-light-lit")
>>> model.upscale("photo.jpg", scale=3.7).save("photo_large.png")

The names below are the whole public face. Beside them: `clit_zoo.geometry` for positions, `clit_zoo.errors`,
`clit_zoo.encoders.base` and `clit_zoo.decoders.base` for what a paper must bring, and the program `clit-zoo`.
"""

from typing import TYPE_CHECKING, Any

from .errors import ClitZooError
from .zoo.registry import list_models

if TYPE_CHECKING:
    from .choice import recommend
    from .model import SuperResolver
    from .pretrained import create_model, from_pretrained

__version__ = "0.1.0"

__all__ = [
    "ClitZooError",
    "SuperResolver",
    "__version__",
    "create_model",
    "from_pretrained",
    "list_models",
    "recommend",
]

_LAZY = {
    "SuperResolver": "model",
    "create_model": "pretrained",
    "from_pretrained": "pretrained",
    "recommend": "choice",
}


def __getattr__(name: str) -> Any:
    # importing torch takes seconds; `clit-zoo list` and `--help` need none of it
    if name in _LAZY:
        from importlib import import_module

        globals()[name] = value = getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
