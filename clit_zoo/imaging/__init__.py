"""Pictures in and out: file, PIL image, array or tensor <-> float tensor (B, 3, h, w) in [0, 1].

`enlarge` is the whole trip for a model's `upscale`; `read`, `enlarge_picture` and `write` are the same trip
for files, keeping 16 bits, alpha, ICC profile, EXIF and resolution.
"""

from .any_kind import decode, encode, enlarge, enlarge_picture
from .files import MAX_INPUT_PIXELS, Header, probe, read
from .formats import OUTPUT_FORMATS, OutputFormat, check_output, format_of, is_picture_name
from .picture import Picture
from .write import flattened, write

__all__ = [
    "MAX_INPUT_PIXELS",
    "OUTPUT_FORMATS",
    "Header",
    "OutputFormat",
    "Picture",
    "check_output",
    "decode",
    "encode",
    "enlarge",
    "enlarge_picture",
    "flattened",
    "format_of",
    "is_picture_name",
    "probe",
    "read",
    "write",
]
