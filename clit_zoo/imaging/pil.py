"""PIL images in any mode <-> Picture."""

import io
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
from PIL import Image, ImageCms, TiffImagePlugin

from ..errors import ImageError
from . import metadata
from .metadata import Metadata, fitting_icc
from .picture import SAMPLE_TYPES, Origin, Picture, bands, from_samples, to_samples

SEVERAL = "holds several frames or pages: only the first is enlarged."

# Modes whose samples are read as they stand; the others are converted to one of these first.
_PLAIN = {"L", "LA", "RGB", "RGBA"}
_SIXTEEN = {"I;16", "I;16L", "I;16B", "I;16N"}


def from_pil(
    image: Image.Image, source: str, kind: str = "pil", exact: Callable[[], np.ndarray] | None = None
) -> Picture:
    """The upright Picture of a PIL image; colour spaces other than gray and RGB are converted.

    Args:
        image: of any mode. The frame it stands at is taken, and it stays there.
        source: its name in messages.
        kind: "path" where the image was opened here, and a note on further frames is due.
        exact: gives the samples where Pillow would cut their bits; called when Pillow has found no damage.

    Raises:
        ImageError: its mode or its values cannot be enlarged.
    """
    notices = []
    # Looking for frames moves to the second and back, which undoes what loading did: first look, then load.
    if kind == "path" and _is_several(image):
        notices.append(f"{source} {SEVERAL}")
    sides_exchanged = _load(image)
    exif = exif_of(image)
    orientation = metadata.orientation_of(exif)
    kept = _metadata(image, exif, exchanged=sides_exchanged or orientation > 4)
    if exact is not None:
        samples = exact()
    elif image.mode in _SIXTEEN:
        samples = np.asarray(image).astype(np.uint16)
    elif image.mode == "I":
        samples = _sixteen_from_int32(np.asarray(image), source)
    elif image.mode == "F":
        samples = np.asarray(image)
    else:
        plain, notice = _plain(image, kept.icc, source)
        if notice:
            notices.append(notice)
            kept = kept._replace(icc=None)
        samples = _samples(plain)
    if image.info.get("bit_depth", 8) > 8:  # pillow-heif's, and AVIF's by files.py
        notices.append(f"{source}: its {image.info['bit_depth']}-bit samples were read as 8 bits.")
    return upright_picture(
        samples,
        orientation,
        source,
        metadata=kept,
        notices=tuple(notices),
        origin=Origin(kind, mode=image.mode),
    )


def upright_picture(
    samples: np.ndarray, orientation: int, source: str, *, metadata: Metadata, **kept: Any
) -> Picture:
    """The Picture of stored samples (h, w) or (h, w, c), turned by their EXIF orientation."""
    if orientation > 4:  # 5–8 exchange rows and columns
        samples = samples.swapaxes(0, 1)
    flips = {2: (1,), 3: (0, 1), 4: (0,), 6: (1,), 7: (0, 1), 8: (0,)}.get(orientation, ())
    gray = samples.ndim == 2 or samples.shape[2] < 3
    metadata = metadata._replace(icc=fitting_icc(metadata.icc, gray))
    return from_samples(np.flip(samples, flips), source, metadata=metadata, **kept)


def to_pil(picture: Picture) -> tuple[Image.Image, list[str]]:
    """A PIL image (8 bits; "I;16", "I" or "F" for gray) and notices of what PIL could not hold."""
    notices = []
    deep = picture.channels == 1 and picture.bits > 8
    if picture.bits > 8 and not deep:
        notices.append(
            f"{picture.source} has {picture.bits} bits per sample and a PIL image of this kind holds 8; "
            "use clit_zoo.imaging.read and write to keep them."
        )
    samples = to_samples(picture, SAMPLE_TYPES[picture.bits if deep else 8])[0]
    image = Image.fromarray(samples[:, :, 0] if samples.shape[-1] == 1 else samples)
    if picture.origin.mode == "I" and image.mode == "I;16":
        image = image.convert("I")
    kept = picture.metadata.of_size((picture.height, picture.width))
    info = {"icc_profile": kept.icc, "exif": kept.exif, "xmp": kept.xmp, "dpi": kept.dpi}
    image.info |= {key: value for key, value in info.items() if value is not None}
    return image, notices


def has_alpha(image: Image.Image) -> bool:
    """Whether the image has transparency in any of Pillow's forms."""
    return image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or image.has_transparency_data


def _plain(image: Image.Image, icc: bytes | None, source: str) -> tuple[Image.Image, str | None]:
    """The image in a mode of ``_PLAIN``, and a notice if its colours were converted."""
    if image.mode == "LAB" or (image.mode == "CMYK" and icc is not None):
        with suppress(ImageCms.PyCMSError):  # a broken profile: convert without it
            lab = image.mode == "LAB"
            profile: Any = (
                ImageCms.createProfile("LAB") if lab else ImageCms.ImageCmsProfile(io.BytesIO(icc or b""))
            )
            srgb = ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(image, profile, srgb, outputMode="RGB")
            if converted is not None:
                return converted, f"{source}: {image.mode} colours were converted to sRGB."
    if image.mode in _PLAIN and not (image.has_transparency_data and image.mode in ("L", "RGB")):
        return image, None
    gray = image.mode in ("1", "L", "La", "LA")
    target = ("LA" if gray else "RGBA") if has_alpha(image) else ("L" if gray else "RGB")
    plain = image.convert(target)
    if image.mode in ("CMYK", "YCbCr", "HSV", "LAB"):
        return plain, f"{source}: {image.mode} colours were converted to RGB."
    return plain, None


def _samples(image: Image.Image) -> np.ndarray:
    """Its samples, in bands: Pillow hands them out by way of three copies."""
    channels = len(image.getbands())
    samples = np.empty((image.height, image.width, channels)[: 2 + (channels > 1)], np.uint8)
    for rows in bands(image.height, image.width):
        samples[rows] = np.asarray(image.crop((0, rows.start, image.width, rows.stop)))
    return samples


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


def _is_several(image: Image.Image) -> bool:
    # An MPO's further pictures are previews or the other eye; a PSD's are layers of the first.
    if image.format in ("MPO", "PSD"):
        return False
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # damage behind the first frame must not lose it
        image.seek(0)
        return True


def exif_of(image: Image.Image) -> Image.Exif:
    """Its EXIF; empty where that is malformed."""
    with suppress(Exception):  # it raises almost anything, and the pixels are what matters
        return image.getexif()
    return Image.Exif()


def _metadata(image: Image.Image, exif: Image.Exif, *, exchanged: bool) -> Metadata:
    """What Pillow has read beside the pixels; ``exchanged``: the sides will be, and so the resolutions."""
    info, dpi = image.info, _resolution(image)
    resources = info.get("photoshop")  # of a JPEG, by number
    return Metadata(
        icc=info.get("icc_profile") or None,
        exif=metadata.clean_exif(exif),
        xmp=metadata.clean_xmp(info.get("xmp")),
        iptc=resources.get(0x0404) if isinstance(resources, dict) else None,
        dpi=dpi[::-1] if dpi and exchanged else dpi,
    )


def _resolution(image: Image.Image) -> tuple[float, float] | None:
    with suppress(KeyError, TypeError, ValueError, ZeroDivisionError):
        x, y = image.info["dpi"]
        tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {282: x, 283: y}
        # 1 is what Pillow says of a file that says nothing
        if not any(size == 1 and tag not in tags for tag, size in ((282, x), (283, y))):
            return metadata.plausible_dpi(x, y)
    return None
