"""What commands that compute share: the model, ready on its device."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..model import SuperResolver


def load(model: str, device: str, dtype: str | None, backend: str) -> SuperResolver:
    """The model, to compute on the cores that are free; the import of torch is left to this call.

    Raises:
        ClitZooError: it cannot be had, or ``backend`` cannot serve it there.
    """
    import clit_zoo

    from ..threads import use_free_cores

    use_free_cores()
    resolver = clit_zoo.from_pretrained(model, device=device, dtype=dtype or "auto", backend=backend)
    resolver.check_backend()
    return resolver
