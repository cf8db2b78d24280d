"""Pictures in and out: file, PIL image, array or tensor <-> float tensor (B, 3, h, w) in [0, 1].

``decode`` and ``encode`` are the two ends of a model's ``upscale``; ``read`` and ``write`` are those of
files, keeping 16 bits, alpha, ICC profile, EXIF, XMP, IPTC and resolution.
"""

import logging

from .alpha import enlarge_alpha, fill_hidden
from .any_kind import decode, encode
from .files import MAX_INPUT_PIXELS, Header, probe, read
from .formats import check_output, is_picture_name, output_format
from .metadata import Metadata
from .picture import Picture
from .write import flattened, write

__all__ = [
    "MAX_INPUT_PIXELS",
    "Header",
    "Metadata",
    "Picture",
    "check_output",
    "decode",
    "encode",
    "enlarge_alpha",
    "fill_hidden",
    "flattened",
    "is_picture_name",
    "output_format",
    "probe",
    "read",
    "write",
]

# Remarks on odd but intact files; what matters is in our notices and errors.
for _reader in ("imagecodecs", "tifffile"):
    logging.getLogger(_reader).addHandler(logging.NullHandler())
