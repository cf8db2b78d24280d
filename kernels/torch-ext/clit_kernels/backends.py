"""Choosing who computes an op: "auto" falls back, a backend asked for by name never does."""

import logging
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor

from .triton_support import why_not_triton

BACKENDS = ("auto", "triton", "torch", "reference")

_log = logging.getLogger("clit_kernels")

_not_built: set[tuple[object, ...]] = set()
"""Op, device, dtype and sizes whose kernels Triton failed to build: later calls do not try again."""


def why_not_maps(backend: str, maps: Tensor) -> str | None:
    """Why ``backend`` cannot serve any call on maps of this one's device and dtype, or None."""
    return why_not_triton(maps) if backend == "triton" else None


def choose(op: str, backend: str, why_not: Callable[[str], str | None]) -> str:
    """Resolve ``backend`` for this call of ``op``.

    ``why_not`` says in a sentence why a backend cannot serve the call, or None where it can.

    Raises:
        ValueError: the name is not one of ``BACKENDS``, or the backend asked for cannot serve this call.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend {backend!r} is unknown; take one of {', '.join(BACKENDS)}")
    for name in ("triton", "torch") if backend == "auto" else (backend,):
        reason = why_not(name)
        if reason is None:
            return name
        _log.debug("%s: not %s: %s", op, name, reason)
    raise ValueError(f"{op}: backend {backend!r} cannot serve this call: {reason}")


def serve(
    op: str,
    backend: str,
    like: Tensor,
    sizes: tuple[object, ...],
    *,
    why_not: Callable[[str], str | None],
    reference: Callable[[], Tensor],
    torch: Callable[[], Tensor],
    triton: Callable[[], Tensor],
) -> Tensor:
    """The result of the backend chosen; under "auto" that of ``torch`` where Triton cannot build the kernels.

    A missing C compiler, or too little shared memory for a tile, shows only when a kernel is built. Errors
    from elsewhere (memory, bad arguments) are raised as they are. ``sizes``, tiles among them, and the device
    and dtype of ``like`` decide which kernels are built.

    Raises:
        ValueError: as ``choose`` does.
    """
    chosen = choose(op, backend, why_not)
    if chosen == "reference":
        return reference()
    case = (op, like.device, like.dtype, sizes)
    if chosen == "torch" or (backend == "auto" and case in _not_built):
        return torch()
    try:
        return triton()
    except Exception as error:
        if backend != "auto" or not from_triton(error):
            raise
        _not_built.add(case)
        warnings.warn(
            f"{op}: Triton failed to build its kernel for {like.dtype} on {like.device} "
            f"({in_a_line(error)}); backend 'torch' computes it from now on: the same result, slower",
            RuntimeWarning,
            stacklevel=3,
        )
    return torch()


@contextmanager
def explained(op: str) -> Iterator[None]:
    """Add the remedy to an error that Triton raises in the backward pass of ``op``."""
    try:
        yield
    except Exception as error:
        if from_triton(error):
            error.add_note(f"{op}: Triton failed in the backward pass; train with backend='torch'.")
        raise


def from_triton(error: Exception) -> bool:
    """Whether the error was raised in Triton and says that a kernel cannot be built.

    Its launcher also reports a full memory and tensors that are not on the device.
    """
    words = str(error)
    if "out of memory" in words.lower() or "cannot be accessed from Triton" in words:
        return False
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_globals.get("__name__", "").partition(".")[0] == "triton" for frame, _ in frames)


def in_a_line(error: BaseException) -> str:
    """The error's type and its first words."""
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words[:200]}" if words else type(error).__name__
