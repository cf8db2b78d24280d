"""Pictures and round trips that the imaging tests share."""

import functools

import numpy as np
import tifffile
import torch
from PIL import Image, ImageCms

from clit_zoo import imaging

ORIENTATION, EXIF_IFD, GPS_IFD = 0x0112, 0x8769, 0x8825


def nearest(image, size):
    return torch.nn.functional.interpolate(image, size=size, mode="nearest")


def enlarged(path, target, scale=2, **options):
    """read -> enlarge by pixel repetition -> write: returns the notices."""
    picture = imaging.read(path)
    size = (picture.height * scale, picture.width * scale)
    result = imaging.enlarge_picture(picture, size, nearest)
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


def write_deep(path, samples):
    if path.suffix == ".png":
        with open(path, "wb") as file:
            imaging.png.write_png(file, samples)
    else:
        channels = samples.shape[-1]
        tifffile.imwrite(
            path,
            samples if channels > 1 else samples[..., 0],
            photometric="rgb" if channels > 2 else "minisblack",
            planarconfig="contig" if channels > 1 else None,
            extrasamples=["unassalpha"] if channels in (2, 4) else None,
        )


def read_deep(path):
    if path.suffix == ".png":
        with open(path, "rb") as file:
            return imaging.png.read_png(file)[0]
    samples = tifffile.imread(path)
    return samples if samples.ndim == 3 else samples[..., None]


def as_uint16(path):
    return imaging.picture.to_samples(imaging.read(path), np.uint16)[0]
