"""How a model is trained: every setting that changes the weights that come out."""

from dataclasses import dataclass

from ..errors import ConfigError
from ..model import SuperResolver
from .cascade import stage_parameters
from .degrade import DEGRADATIONS
from .losses import LOSSES
from .optim import OPTIMIZERS, SCHEDULES
from .strategies import BLOCK, QUERIES, STRATEGIES


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
        lowest = {
            "steps": 1,
            "batch": 1,
            "accumulate": 1,
            "warmup": 0,
            "clip": 0,
            "seed": 0,
            "freeze_stages": 0,
        }
        for name, low in lowest.items():
            if not getattr(self, name) >= low:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be {low} or more.")
        if self.seed >= 1 << 63:
            raise ConfigError(f"seed is {self.seed}; it must be below 2**63.")
        if not BLOCK <= self.patch <= 512:
            raise ConfigError(f"patch is {self.patch}; it must be from {BLOCK} to 512 pixels.")
        if not 0 < self.lr <= 1:
            raise ConfigError(f"lr is {self.lr:g}; it must be above 0 and at most 1.")
        if not 0 <= self.ema < 1:
            raise ConfigError(f"ema is {self.ema:g}; it must be from 0 (no average) to below 1.")
        if not 0 <= self.drawings <= 1:
            raise ConfigError(f"drawings is {self.drawings:g}; it is a share from 0 to 1.")
        for name, known in (
            ("strategy", STRATEGIES),
            ("queries", QUERIES),
            ("degrade", (None, *DEGRADATIONS)),
            ("loss", LOSSES),
            ("optimizer", OPTIMIZERS),
            ("schedule", SCHEDULES),
        ):
            if getattr(self, name) not in known:
                names = ", ".join(filter(None, known))
                raise ConfigError(f"{name} {getattr(self, name)!r} is none of {names}.")

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
        if self.batch % parts:
            raise ConfigError(
                f"a batch of {self.batch} does not divide into {parts} equal parts ({count} processes, "
                f"accumulate {self.accumulate})."
            )
        size = self.batch // parts
        first = rank * self.accumulate * size
        return [range(first + i * size, first + (i + 1) * size) for i in range(self.accumulate)]
