"""Pictures and round trips that the imaging tests share."""

import functools
from dataclasses import replace

import imagecodecs
import numpy as np
import tifffile
import torch
from PIL import Image, ImageCms
from PIL.PngImagePlugin import putchunk

from clit_zoo import imaging
from clit_zoo.geometry import Pixels
from clit_zoo.imaging.picture import to_samples

ORIENTATION, EXIF_IFD, GPS_IFD = 0x0112, 0x8769, 0x8825


def nearest(image, size):
    """A stand-in for a model that keeps every value exactly."""
    return torch.nn.functional.interpolate(image, size=size, mode="nearest")


def rendered(picture, size, model=nearest):
    """What a model's view does with a picture."""
    color = model(imaging.fill_hidden(picture.color, picture.alpha), size)
    alpha = None if picture.alpha is None else imaging.enlarge_alpha(picture.alpha, Pixels.whole(size))
    planes = color.mean(1, keepdim=True) if picture.gray else color
    planes = planes if alpha is None else torch.cat((planes, alpha), 1)
    return replace(picture, samples=planes.clamp(0, 1))


def enlarged(path, target, scale=2, **options):
    """read -> enlarge by pixel repetition -> write: returns the notices."""
    picture = imaging.read(path)
    result = rendered(picture, (picture.height * scale, picture.width * scale))
    return [*picture.notices, *imaging.write(result, target, **options)]


@functools.cache  # the profile holds the time it was made at
def profile(space):
    if space == "RGB ":
        return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    body = bytearray(profile("RGB "))
    body[16:20] = space.encode()
    return bytes(body)


def camera_exif(orientation=1):
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif[0x8298] = "© Jörg"
    exif[ORIENTATION] = orientation
    exif[EXIF_IFD] = {
        0x9003: "2024:05:06 07:08:09",
        0x829A: 0.004,
        0xA002: 10,
        0xA003: 6,
        0x9286: b"ASCII\0\0\0hi",
    }
    exif[GPS_IFD] = {1: "N", 2: (48.0, 8.0, 14.25)}
    return exif


def deep_png(path, samples, chunks=()):
    """A PNG of uint16 samples, with further chunks (name, data) before its pixels."""
    whole = imagecodecs.png_encode(np.ascontiguousarray(samples))
    with open(path, "wb") as file:
        file.write(whole[:33])
        for name, data in chunks:
            putchunk(file, name, data)
        file.write(whole[33:])


def write_deep(path, samples, **tags):
    """A PNG or TIFF of uint16 (h, w, c) samples."""
    samples = samples if samples.shape[-1] > 1 else samples[..., 0]
    if path.suffix == ".png":
        return deep_png(path, samples)
    channels = 1 if samples.ndim == 2 else samples.shape[-1]
    return tifffile.imwrite(
        path,
        samples,
        photometric="rgb" if channels > 2 else "minisblack",
        planarconfig="contig" if channels > 1 else None,
        extrasamples=["unassalpha"] if channels in (2, 4) else None,
        **tags,
    )


def read_deep(path):
    samples = imagecodecs.png_decode(path.read_bytes()) if path.suffix == ".png" else tifffile.imread(path)
    return samples if samples.ndim == 3 else samples[..., None]


def as_uint16(path):
    return to_samples(imaging.read(path), torch.uint16)[0]
