"""How a model is trained: every setting that changes the weights that come out."""

from dataclasses import asdict, dataclass
from typing import Any

from ..errors import ConfigError
from ..model import SuperResolver
from .cascade import stage_parameters
from .degrade import DEGRADATIONS
from .optim import OPTIMIZERS, SCHEDULES
from .patches import BLOCK, QUERIES, Draw
from .strategies import STRATEGIES


@dataclass(frozen=True)
class Recipe:
    """The defaults are the paper's (section 4.1), but for the number of steps.

    The paper trains one stage for 1,000 epochs of 1,000 steps, N stages for 500 N more.

    Attributes:
        steps: optimizer steps in all; the schedule ends there.
        batch: patches a step, over all processes; patch: their low-resolution side in pixels.
        accumulate: parts in which each process computes its share of the batch, to save memory.
        strategy: the scales, see ``strategies``.
        queries: the positions; degrade: what happens to the patches; drawings: the share of them that is
            made-up text and lines; see ``patches.Draw``.
        lr: top learning rate; warmup: steps to reach it.
        optimizer: "adam", or "muon" for matrices and kernels with Adam for the rest.
        schedule: "halving" (after each fifth of the run), "cosine" or "trapezoid".
        clip: largest gradient norm, 0 for none. ema: decay of the averaged weights, which are what is saved.
        freeze_encoder: train the decoder only. freeze_stages: train new stages only, leaving the first so
            many, the encoder and what all stages share as they are: factors that these alone serve come out
            unchanged, and no gradient goes through the encoder.
        bf16: compute in bfloat16 under autocast; the weights stay float32.
        compile: compile the encoder. channels_last: store kernels in that order.
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
    degrade: str = ""
    drawings: float = 0.0
    optimizer: str = "adam"
    lr: float = 1e-4
    schedule: str = "halving"
    warmup: int = 0
    clip: float = 0.0
    ema: float = 0.999
    freeze_encoder: bool = False
    freeze_stages: int = 0
    bf16: bool = False
    compile: bool = False
    channels_last: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low in (
            ("steps", 1),
            ("batch", 1),
            ("accumulate", 1),
            ("warmup", 0),
            ("seed", 0),
            ("freeze_stages", 0),
        ):
            if getattr(self, name) < low:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be {low} or more.")
        if self.seed >= 1 << 63:
            raise ConfigError(f"seed is {self.seed}; it must be below 2**63.")
        if not BLOCK <= self.patch <= 512:
            raise ConfigError(f"patch is {self.patch}; it must be from {BLOCK} to 512 pixels.")
        if not 0 < self.lr <= 1:
            raise ConfigError(f"lr is {self.lr:g}; it must be above 0 and at most 1.")
        if not 0 <= self.ema < 1:
            raise ConfigError(f"ema is {self.ema:g}; it must be from 0 (no average) to below 1.")
        if not self.clip >= 0:
            raise ConfigError(f"clip is {self.clip:g}; it must be 0 (no clipping) or more.")
        if not 0 <= self.drawings <= 1:
            raise ConfigError(f"drawings is {self.drawings:g}; it is a share from 0 to 1.")
        for name, known in (
            ("strategy", STRATEGIES),
            ("queries", QUERIES),
            ("degrade", ("", *DEGRADATIONS)),
            ("optimizer", OPTIMIZERS),
            ("schedule", SCHEDULES),
        ):
            if getattr(self, name) not in known:
                names = ", ".join(filter(None, known))
                raise ConfigError(f"{name} {getattr(self, name)!r} is none of {names}.")

    def lr_at(self, step: int) -> float:
        """The learning rate of a step."""
        return self.lr * SCHEDULES[self.schedule](step, self.steps, self.warmup)

    def draw(self, stages: int) -> Draw:
        """How the patches for a model of that many stages are drawn.

        Raises:
            ConfigError: the strategy trains one stage only, and there are more; or none is left to train.
        """
        if self.freeze_stages >= stages:
            raise ConfigError(
                f"freeze_stages {self.freeze_stages} leaves nothing to train: this model has {stages} stages."
            )
        if stages > 1 and self.strategy != "cumulative":
            raise ConfigError(
                f"strategy {self.strategy!r} trains one stage, and this model has {stages}: take "
                "'cumulative'."
            )
        return Draw(
            self.strategy, stages, self.freeze_stages, self.patch, self.queries, self.seed, self.degrade,
            self.drawings,
        )  # fmt: skip

    def freeze(self, model: SuperResolver) -> None:
        """Take ``requires_grad`` from the parameters that are not trained."""
        if self.freeze_encoder or self.freeze_stages:
            for p in model.encoder.parameters():
                p.requires_grad_(False)
        if self.freeze_stages:
            for p in model.decoder.parameters():
                p.requires_grad_(False)
            for p in stage_parameters(model.decoder, self.freeze_stages):
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

    def changes(self, other: dict[str, Any]) -> list[str]:
        """In words, where this differs from another recipe's settings."""
        mine = asdict(self)
        return [f"{k}: {other.get(k)} → {v}" for k, v in mine.items() if other.get(k) != v]
