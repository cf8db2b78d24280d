"""Which model suits a picture: one that expects clean pixels, or one that also cleans."""

import os
from typing import Any, NamedTuple

from PIL import Image

from . import imaging
from .errors import ConfigError
from .imaging.quality import jpeg_quality, middle, noise_level
from .model import SuperResolver
from .pretrained import from_pretrained

CLEAN, PHOTO = "edsr-light-lit", "edsr-light-lit-photo"
QUALITY_BOUND = 88
NOISE_BOUND = 2.5
"""Of 200 files of known quality (25 of B100 at half size) these bounds pick the better model by PSNR for 189;
92 and 2 did so for 173."""


class Choice(NamedTuple):
    """A model for a picture.

    Attributes:
        name: of the model.
        reason: why, in words.
    """

    name: str
    reason: str


def choose(picture: Any) -> Choice:
    """The model that suits a picture, and why.

    Args:
        picture: a path, PIL image, array or tensor, as ``SuperResolver.upscale`` takes them. Only a file, or
            a PIL image as it was opened, still says how it was compressed; of others the noise alone counts.

    Raises:
        ImageError: it is no picture.
    """
    kind, quality = _compression(picture)
    if quality is not None and quality < QUALITY_BOUND:
        return Choice(PHOTO, f"{kind} of quality {quality}, below {QUALITY_BOUND}")
    decoded = imaging.decode(picture)
    noise = noise_level(decoded.part(*middle(decoded.height, decoded.width))[0])
    if noise > NOISE_BOUND:
        return Choice(PHOTO, f"noise of {noise:.1f} levels, above {NOISE_BOUND:g}")
    stored = "no lossy compression known" if quality is None else f"{kind} of quality {quality}"
    return Choice(CLEAN, f"{stored}, noise of {noise:.1f} levels")


def recommend(picture: Any) -> str:
    """The name of the model that suits a picture; see ``choose``."""
    return choose(picture).name


def between(strength: float, **options: Any) -> SuperResolver:
    """A model that cleans so much: its weights lie between those of the clean model and the photo model.

    The photo model was trained from the clean one, so a mean of their weights does what a mean of their
    outputs does, in the time of one (Wang et al., "Deep network interpolation", CVPR 2019). With an early
    photo model the two means agreed to 0.07 dB on JPEGs and noise of Set14 at ×2; on clean pictures the mean
    of weights was 0.11 to 0.55 dB lower.

    Args:
        strength: 0 is the clean model, 1 the photo model.
        options: as ``from_pretrained`` takes them.

    Raises:
        ConfigError: ``strength`` is not from 0 to 1.
    """
    if not 0 <= strength <= 1:
        raise ConfigError(f"strength {strength:g} is not from 0 to 1")
    model, photo = (from_pretrained(name, **options) for name in (CLEAN, PHOTO))
    ends = photo.state_dict()
    starts = model.state_dict()
    model.load_state_dict({key: starts[key].float().lerp(ends[key].float(), strength) for key in starts})
    model.config = model.config.with_overrides(name=name_at(strength))
    return model


def name_at(strength: float) -> str:
    """What outputs call the model ``between`` the two."""
    return f"{PHOTO}-{strength:g}"


def _compression(picture: Any) -> tuple[str, int | None]:
    """The lossy format that a picture came in, and its quality; None where neither is known."""
    if isinstance(picture, str | os.PathLike):
        header = imaging.probe(picture)
        return header.format.upper().replace("WEBP", "WebP"), header.quality
    return "JPEG", jpeg_quality(picture) if isinstance(picture, Image.Image) else None
