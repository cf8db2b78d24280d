"""A training step of a small cascade, for the tests of autocast, checkpoints and compilation."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from clit_zoo.decoders import clit
from clit_zoo.decoders import compiled as ops
from clit_zoo.geometry import Blocks, Coords, Pixels, Raster, Where
from clit_zoo.model import SuperResolver
from clit_zoo.zoo.config import ModelConfig

KINDS = ("points", "raster", "blocks", "grid")
"""The four kinds of ``Where``: coordinates, training's raster and blocks, and every pixel."""

MAPS = ((4, 5), (7, 9))
"""Maps of the two stages."""

Predict = Callable[[SuperResolver, Tensor], Tensor]


def small_model(backend: str) -> SuperResolver:
    """Two stages with random weights, the decoder's doubled so that the image does not hide its part."""
    torch.manual_seed(0)
    encoder = {"name": "edsr", "channels": 8, "blocks": 1}
    decoder = {"name": "clit", "dim": 8, "heads": 2, "radius": 1, "stages": 2, "hidden_dims": [16, 12]}
    model = SuperResolver(ModelConfig("small", encoder, decoder), backend=backend)
    with torch.no_grad():
        for p in model.decoder.parameters():
            p.mul_(2)
    return model


def image() -> Tensor:
    """(2, 3, 4, 5) in [0, 1]."""
    return torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(1))


def predict(kind: str) -> Predict:
    """The call of the model, at positions that never change; both stages take part."""
    generator = torch.Generator().manual_seed(2)
    coords = torch.rand(2, 9, 2, generator=generator) * 2 - 1
    cell = torch.tensor([[2 / 40, 2 / 50]]).expand(2, 2)
    where: Where
    if kind == "points":
        where = Coords(coords, cell, MAPS)
    elif kind == "raster":
        where = Raster(torch.rand(2, 1, 4, 5, 2, generator=generator) - 0.5, cell, MAPS)
    elif kind == "blocks":
        corner, within = coords[:, :2].unsqueeze(2), torch.rand(2, 2, 4, 2, generator=generator)
        where = Blocks(0.8 * corner + 0.2 * within, cell, MAPS, 0.1)
    else:
        where = Pixels.whole((18, 23))
    return lambda model, x: model.decode(model.encode(x), where)


def step(
    model: SuperResolver, call: Predict, *, autocast: torch.dtype | None = None, wide: bool = False
) -> tuple[Tensor, list[Tensor]]:
    """Output and all parameters' gradients of one step; ``wide`` computes it in float64."""
    dtype = torch.float64 if wide else torch.float32
    with torch.autocast("cpu", autocast, enabled=autocast is not None):
        out = call(model.to(dtype), image().to(dtype))
    (out.to(dtype) - 0.3).square().mean().backward()
    grads = [p.grad for p in model.parameters()]
    assert all(g is not None for g in grads)
    return out.detach(), [g for g in grads if g is not None]


def share(grads: list[Tensor], truth: list[Tensor]) -> Tensor:
    """All gradients in one row, each as a share of its true gradient's largest entry.

    The projection's bias has a true gradient of zero, as it adds the same to all taps' logits: shares are
    of at least 1e-3.
    """
    scales = [t.abs().max().clamp(min=1e-3) for t in truth]
    return torch.cat([(g.double() / s).flatten() for g, s in zip(grads, scales, strict=True)])


def assert_as_good(found: Tensor, plain: Tensor, truth: Tensor) -> None:
    """At most twice the error of the formulas in plain PyTorch in the same precision."""
    error, allowed = ((t.double() - truth.double()).abs() for t in (found, plain))
    assert error.max() <= 2 * allowed.max(), f"max {error.max():.2e}, plain {allowed.max():.2e}"
    rms, allowed_rms = (e.square().mean().sqrt() for e in (error, allowed))
    assert rms <= 2 * allowed_rms, f"RMS {rms:.2e}, plain {allowed_rms:.2e}"


def check_autocast(backend: str, kind: str, dtype: torch.dtype) -> None:
    """A step of ``backend`` under autocast is as exact as the reference's, and learns in float32."""
    call = predict(kind)
    truth, true_grads = step(small_model("reference"), call, wide=True)
    plain, plain_grads = step(small_model("reference"), call, autocast=dtype)
    out, grads = step(small_model(backend), call, autocast=dtype)
    assert out.dtype == torch.float32 and all(g.dtype == torch.float32 for g in grads)
    assert (out - truth).abs().max() > 1e-5, "nothing was computed in lower precision"
    assert_as_good(out, plain, truth)
    parts = [share(g, true_grads) for g in (grads, plain_grads, true_grads)]
    assert_as_good(*parts)


def checkpointed(where: str, reentrant: bool, kind: str, monkeypatch) -> Predict:
    """The call with torch.utils.checkpoint around the decoder or around every stage."""
    if where == "decoder":
        call = predict(kind)

        def around_decoder(model: SuperResolver, x: Tensor) -> Tensor:
            decoder = model.decoder
            decode = type(decoder).decode

            def run(prepared, where, **options):
                return checkpoint(
                    lambda base, image: decode(decoder, type(prepared)(base, image), where, **options),
                    *prepared,
                    use_reentrant=reentrant,
                )

            monkeypatch.setattr(decoder, "decode", run)
            return call(model, x)

        return around_decoder
    stage = clit.decode_stage

    def around_stage(stage_call, **options):
        def run(q, k, v, previous, base):
            return stage(stage_call._replace(q=q, k=k, v=v, previous=previous, base=base), **options)

        tensors = (getattr(stage_call, name) for name in ("q", "k", "v", "previous", "base"))
        return checkpoint(run, *tensors, use_reentrant=reentrant)

    monkeypatch.setattr(clit, "decode_stage", around_stage)
    return predict(kind)


def check_checkpoint(
    backend: str, kind: str, where: str, reentrant: bool, autocast: torch.dtype | None, monkeypatch
) -> None:
    """A checkpoint changes no gradient.

    A reentrant one runs the forward pass without gradients, which the ops do tile by tile: then outputs,
    and through the loss gradients, may differ by rounding (16-bit outputs of a stage by a unit of theirs).
    """
    calls = []
    stage = ops.decode_stage_eager
    monkeypatch.setattr(ops, "decode_stage_eager", lambda *a, **b: calls.append(1) or stage(*a, **b))
    out, grads = step(small_model(backend), predict(kind), autocast=autocast)
    assert len(calls) == 2
    call = checkpointed(where, reentrant, kind, monkeypatch)
    other_out, other_grads = step(small_model(backend), call, autocast=autocast)
    assert len(calls) == 2 + 4, "nothing was computed again"
    if not reentrant:
        assert torch.equal(other_out, out)
        assert all(torch.equal(a, b) for a, b in zip(other_grads, grads, strict=True))
        return
    limit = 1e-5 if autocast is None else 2 * torch.finfo(autocast).eps
    assert (other_out - out).abs().max() <= limit * float(out.max() - out.min())
    difference = share(other_grads, grads) - share(grads, grads)
    assert difference.abs().max() <= limit
