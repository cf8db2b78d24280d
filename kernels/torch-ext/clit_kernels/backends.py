"""Choosing who computes an op: ``auto`` falls back quietly, a backend asked for by name never does."""

import logging
from collections.abc import Callable

BACKENDS = ("auto", "triton", "hoisted", "reference")

_log = logging.getLogger("clit_kernels")


def choose(op: str, backend: str, why_not: Callable[[str], str | None]) -> str:
    """Resolve ``backend`` for this call of ``op``.

    ``why_not`` says in a sentence why a backend cannot serve the call, or None where it can.

    Raises:
        ValueError: the name is not one of ``BACKENDS``, or the backend asked for cannot serve this call.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend {backend!r} is unknown; take one of {', '.join(BACKENDS)}")
    if backend == "auto":
        reason = why_not("triton")
        if reason is None:
            return "triton"
        _log.debug("%s: hoisted, not triton: %s", op, reason)
        return "hoisted"
    reason = why_not(backend)
    if reason is not None:
        raise ValueError(f"{op}: backend {backend!r} cannot serve this call: {reason}")
    return backend
