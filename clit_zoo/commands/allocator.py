"""How the C library's allocator treats the memory that tensors free.

By default it hands blocks above 32 MB back to the system at once, which then clears each page of the next one
again: a third of the time of encoding a tile of 572x572 pixels went there (1.7 of 6.9 s; 0.0 s so).
"""

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # malloc.h


def keep_freed_memory() -> None:
    """Let this process keep what it frees, for its next tensors. For commands only: a library does not decide
    it for its host, which can set MALLOC_MMAP_MAX_=0 and MALLOC_TRIM_THRESHOLD_=2147483647 instead.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:  # musl has none
        for setting, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 2**26)):
            mallopt(setting, value)
