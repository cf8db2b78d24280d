"""PIL images in any mode <-> Picture."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image, ImageCms, TiffImagePlugin

from ..errors import ImageError
from . import metadata
from .picture import Origin, Picture, from_samples, to_samples

# Modes whose samples are read as they stand; the others are converted to one of these first.
_PLAIN = {"L", "LA", "RGB", "RGBA"}
_SIXTEEN = {"I;16", "I;16L", "I;16B", "I;16N"}


def from_pil(image: Image.Image, source: str, kind: str = "pil") -> Picture:
    """Upright Picture of a PIL image; colour spaces other than gray and RGB are converted.

    kind "path": the image was opened here, and its first frame is taken; a caller's image ("pil") is taken at
    the frame it stands at, and stays there.
    """
    if 0 in image.size:
        raise ImageError(f"{source} has no pixels: its size is {image.width}×{image.height}.")
    notices = []
    # Counting goes through the frames and back, which undoes what loading did: so first count, then load.
    frames = _frames(image) if kind == "path" else 1
    if frames > 1:
        notices.append(f"{source} holds {frames} frames or pages: only the first is enlarged.")
    sides_exchanged = _load(image)
    orientation, exif = metadata.read_exif(image.getexif)
    icc, dpi = image.info.get("icc_profile") or None, _resolution(image)
    bits, mode = 8, image.mode

    if mode in _SIXTEEN:
        bits, samples = 16, np.asarray(image).astype(np.uint16)
    elif mode == "I":
        bits, samples = 16, _sixteen_from_int32(np.asarray(image), source)
    elif mode == "F":
        bits, samples = 32, np.asarray(image)
    else:
        plain, notice = _plain(image, icc, source)
        if notice:
            notices.append(notice)
            icc = None
        samples = np.asarray(plain)

    if orientation > 1:
        samples = metadata.upright(samples, orientation)
    if dpi and (sides_exchanged or orientation > 4):
        dpi = dpi[::-1]
    samples = samples if samples.ndim == 3 else samples[:, :, None]
    color, alpha, gray = from_samples(samples, source)
    return Picture(
        color=color,
        alpha=alpha,
        gray=gray,
        bits=bits,
        icc=metadata.fitting_icc(icc, gray),
        exif=exif,
        dpi=dpi,
        notices=tuple(notices),
        source=source,
        origin=Origin(kind, mode=mode),
    )


def to_pil(picture: Picture) -> tuple[Image.Image, list[str]]:
    """A PIL image (8 bits; "I;16", "I" or "F" for gray) and notices of what PIL could not hold."""
    notices = []
    deep = picture.gray and picture.alpha is None
    if picture.bits == 32 and deep:
        image = Image.fromarray(to_samples(picture, np.float32)[0, :, :, 0])
    elif picture.bits == 16 and deep:
        samples = to_samples(picture, np.uint16)[0, :, :, 0]
        image = Image.fromarray(samples.astype(np.int32) if picture.origin.mode == "I" else samples)
    else:
        if picture.bits > 8:
            notices.append(
                f"{picture.source} has {picture.bits} bits per sample and a PIL image of this kind holds 8; "
                "use clit_zoo.imaging.read and write to keep them."
            )
        samples = to_samples(picture, np.uint8)[0]
        image = Image.fromarray(samples[:, :, 0] if samples.shape[-1] == 1 else samples)
    exif = metadata.exif_for(picture.exif, picture.width, picture.height)
    image.info |= {
        key: value
        for key, value in (("icc_profile", picture.icc), ("exif", exif), ("dpi", picture.dpi))
        if value is not None
    }
    return image, notices


def has_alpha(image: Image.Image) -> bool:
    return image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or image.has_transparency_data


def _plain(image: Image.Image, icc: bytes | None, source: str) -> tuple[Image.Image, str | None]:
    """The image in a mode of `_PLAIN`, and a notice if its colours were converted."""
    if image.mode == "LAB" or (image.mode == "CMYK" and icc is not None):
        try:
            profile: Any = (
                ImageCms.createProfile("LAB")
                if image.mode == "LAB"
                else ImageCms.ImageCmsProfile(io.BytesIO(icc or b""))
            )
            converted = ImageCms.profileToProfile(
                image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
            if converted is not None:
                return converted, f"{source}: {image.mode} colours were converted to sRGB."
        except ImageCms.PyCMSError:
            pass  # a broken profile: convert without it
    if image.mode in _PLAIN and not (image.has_transparency_data and image.mode in ("L", "RGB")):
        return image, None
    gray = image.mode in ("1", "L", "La", "LA")
    target = ("LA" if gray else "RGBA") if has_alpha(image) else ("L" if gray else "RGB")
    try:
        plain = image.convert(target)
    except ValueError as error:
        raise ImageError(
            f"{source}: pictures of PIL mode {image.mode!r} cannot be enlarged ({error}); convert it to RGB."
        ) from error
    if image.mode in ("CMYK", "YCbCr", "HSV", "LAB"):
        return plain, f"{source}: {image.mode} colours were converted to RGB."
    return plain, None


def _sixteen_from_int32(samples: np.ndarray, source: str) -> np.ndarray:
    low, high = int(samples.min()), int(samples.max())
    if low < 0 or high > 65535:
        raise ImageError(
            f"{source} holds 32-bit integers from {low} to {high}; they must lie in 0…65535: rescale them."
        )
    return samples.astype(np.uint16)


def _load(image: Image.Image) -> bool:
    """Decode the pixels; whether width and height were exchanged, as Pillow does with a TIFF turned aside."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        image.load()
        return False
    turned = image.tag_v2.get(metadata.ORIENTATION, 1) in range(5, 9)  # Pillow drops the tag in loading
    image.load()
    width, height = image.tag_v2.get(256), image.tag_v2.get(257)
    return turned or (width != height and image.size == (height, width))


def _frames(image: Image.Image) -> int:
    # An MPO's further pictures are previews or the other eye; a PSD's are layers of the first.
    if image.format in ("MPO", "PSD"):
        return 1
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # counting reads the whole file, and a damaged tail must not lose the first frame
        image.seek(0)
        return 1


def _resolution(image: Image.Image) -> tuple[float, float] | None:
    try:
        x, y = image.info["dpi"]
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            absent = [size for tag, size in ((282, x), (283, y)) if tag not in image.tag_v2]
            if 1 in absent:  # what Pillow says of a file that says nothing
                return None
        return metadata.plausible_dpi(float(x), float(y))
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
