"""How a model is trained: every setting that changes the weights that come out."""

from dataclasses import dataclass

from ..model import SuperResolver
from ..zoo.schema import require
from .cascade import stage_parameters
from .degrade import DEGRADATIONS
from .losses import LOSSES
from .optim import OPTIMIZERS, SCHEDULES
from .strategies import BLOCK, QUERIES, STRATEGIES

_MANY = 10**9
_RANGES: dict[str, tuple[float, float]] = {
    "steps": (1, _MANY), "batch": (1, _MANY), "accumulate": (1, _MANY), "warmup": (0, _MANY),
    "clip": (0, _MANY), "freeze_stages": (0, _MANY), "seed": (0, 2**63 - 1), "patch": (BLOCK, 512),
    "lr": (1e-12, 1), "ema": (0, 0.999999), "drawings": (0, 1),
}  # fmt: skip
_CHOICES = {
    "strategy": STRATEGIES, "queries": QUERIES, "degrade": (None, *DEGRADATIONS), "loss": LOSSES,
    "optimizer": OPTIMIZERS, "schedule": SCHEDULES,
}  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """The defaults are the CLIT paper's (section 4.1), but for the number of steps.

    The paper trains one stage for 1,000,000 steps, and N stages for 500,000 N more.

    Attributes:
        steps: optimizer steps in all; the schedule ends there.
        batch: patches a step, over all processes.
        accumulate: parts in which each process computes its share of the batch, to save memory.
        patch: low-resolution side of a patch in pixels.
        strategy: which scales a step trains, one of ``strategies.STRATEGIES``.
        queries: which positions. "uniform" draws p * p of the patch's pixels as the authors do. "stratified"
            draws one near each low-resolution pixel, which takes no gathers, or, where a step passes several
            stages, small blocks spread evenly over the patch, which take no large maps.
        degrade: what happens to the patches, one of ``degrade.DEGRADATIONS``; None for clean ones, reduced by
            antialiased bicubic.
        drawings: share of the patches that are made-up text and lines instead of photographs.
        loss: one of ``losses.LOSSES``.
        optimizer: "adam", or "muon" for matrices and kernels with Adam for the rest.
        lr: top learning rate.
        schedule: "halving" (after each fifth of the run), "cosine" or "trapezoid".
        warmup: steps to reach the top learning rate.
        clip: largest gradient norm, 0 for none.
        ema: decay of the averaged weights, which are what is saved.
        freeze_encoder: train the decoder only.
        freeze_stages: freeze a cascade's first n stages, the encoder and shared layers; scales that need only
            those stages give the same output as before.
        bf16: compute in bfloat16 under autocast; the weights stay float32. None: on GPUs that can.
        compile: compile the encoder.
        channels_last: store convolution kernels in that order.
        seed: of patches, positions and new weights.

    Raises:
        ConfigError: a value is out of range.
    """

    steps: int
    batch: int = 32
    accumulate: int = 1
    patch: int = 48
    strategy: str = "cumulative"
    queries: str = "stratified"
    degrade: str | None = None
    drawings: float = 0.0
    loss: str = "l1"
    optimizer: str = "adam"
    lr: float = 1e-4
    schedule: str = "halving"
    warmup: int = 0
    clip: float = 0.0
    ema: float = 0.999
    freeze_encoder: bool = False
    freeze_stages: int = 0
    bf16: bool | None = None
    compile: bool = False
    channels_last: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            require(low <= value <= high, name, value, f"{low:g} to {high:g}")
        for name, known in _CHOICES.items():
            value = getattr(self, name)
            require(value in known, name, value, f"one of {', '.join(filter(None, known))}")

    def lr_at(self, step: int) -> float:
        """The learning rate of a step."""
        return self.lr * SCHEDULES[self.schedule](step, self.steps, self.warmup)

    def freeze(self, model: SuperResolver) -> None:
        """Take ``requires_grad`` from the parameters that are not trained.

        Raises:
            ConfigError: stages are to be frozen, and the decoder has none.
        """
        if self.freeze_stages:
            trained = stage_parameters(model, self.freeze_stages)
        elif self.freeze_encoder:
            trained = model.decoder.parameters()
        else:
            return
        model.requires_grad_(False)
        for p in trained:
            p.requires_grad_(True)

    def share_of(self, rank: int, count: int) -> list[range]:
        """The samples of one of ``count`` processes, in the parts that it computes one after the other.

        Raises:
            ConfigError: the batch does not divide so.
        """
        parts = count * self.accumulate
        allowed = f"a multiple of {parts} ({count} processes, accumulate {self.accumulate})"
        require(self.batch % parts == 0, "batch", self.batch, allowed)
        size = self.batch // parts
        first = rank * self.accumulate * size
        return [range(first + i * size, first + (i + 1) * size) for i in range(self.accumulate)]
