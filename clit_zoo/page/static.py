"""A picture as a folder of tiles that any web server can show: the IIIF Image API 3.0 at level 0."""

import json
import math
import re
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

from ..errors import ClitZooError, ImageError
from ..geometry import Size
from ..imaging import Picture
from ..model import SuperResolver
from . import iiif
from .pixels import encoded, window


def write_static(
    picture: Picture,
    model: SuperResolver,
    size: Size,
    folder: Path,
    address: str,
    *,
    progress: Callable[[float], None] = lambda share: None,
) -> None:
    """Write the tiles of a picture's enlargement, each decoded for its scale: the whole folder or nothing.

    Args:
        picture: one, not a batch.
        model: enlarges it.
        size: (H, W) of the enlargement.
        folder: must not exist.
        address: of the folder on the web, which info.json states.
        progress: called with the share of the pixels done.

    Raises:
        ImageError: the folder cannot be written.
    """
    info = {**iiif.info(address, size), "profile": "level0", "preferredFormats": ["jpg"]}
    for name in ("extraFormats", "extraQualities", "extraFeatures"):
        del info[name]
    asks: dict[iiif.Ask, list[str]] = {}
    for name in iiif.tiles(size):
        asks.setdefault(iiif.parse([*name.split("/")[:3], "default.jpg"], size), []).append(name)
    total, done = sum(math.prod(ask.size) for ask in asks), 0
    view, part = model.open(picture), folder.parent / f".{folder.name}.{uuid.uuid4().hex[:12]}.part"
    across, down = picture.width / size[1], picture.height / size[0]
    try:
        part.mkdir(parents=True)
        for ask, names in asks.items():
            left, top, right, bottom = ask.region
            high, wide = picture.height, picture.width
            box = (left * across, top * down, min(right * across, wide), min(bottom * down, high))
            data = encoded(list(window(picture, view, box, ask.size)), ask)
            for name in names:
                file = part / f"{name}.jpg"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(data)
            done += math.prod(ask.size)
            progress(done / total)
        (part / "info.json").write_text(json.dumps(info, indent=1) + "\n")
        part.rename(folder)
    except OSError as error:
        raise ImageError(f"cannot write {folder}: {error.strerror}; give another -o.") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def check_address(address: str) -> str:
    """An address without its last slash.

    Raises:
        ClitZooError: it is none.
    """
    if not re.match(r"https?://[^/]", address) or any(c.isspace() or c in "?#" for c in address):
        raise ClitZooError(f"{address!r} is no web address such as https://example.org/pictures")
    return address.rstrip("/")
