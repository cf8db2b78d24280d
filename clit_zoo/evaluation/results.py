"""Scores of single images, and their averages."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Score:
    """One image at one scale."""

    dataset: str
    protocol: str
    scale: float
    image: str
    lr: str  # where the low-resolution picture came from, as ``dataset.Pair`` has it
    psnr: float  # dB; infinite for an exact output
    ssim: float | None
    seconds: float  # spent enlarging, when it was done


@dataclass(frozen=True)
class Skipped:
    """An image that could not be scored; ``scale`` is None where it could not even be read."""

    dataset: str
    image: str
    scale: float | None
    reason: str


@dataclass(frozen=True)
class Mean:
    """The averages of one dataset at one scale: the mean of the images' dB, as every paper has it."""

    dataset: str
    protocol: str
    scale: float
    lr: str
    images: int
    psnr: float
    ssim: float | None


@dataclass
class Results:
    """What an evaluation found. ``a + b`` joins those of two folders; ``a.psnr("Set5", 2)`` is one figure."""

    model: str
    scores: list[Score] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    protocols: dict[str, str] = field(default_factory=dict)  # dataset -> the protocol in words

    def __add__(self, other: "Results") -> "Results":
        return Results(
            self.model,
            self.scores + other.scores,
            self.skipped + other.skipped,
            self.protocols | other.protocols,
        )

    def means(self) -> list[Mean]:
        """One per dataset and scale, in the order they were evaluated."""
        groups: dict[tuple[str, str, float], list[Score]] = {}
        for score in self.scores:
            groups.setdefault((score.dataset, score.protocol, score.scale), []).append(score)
        return [_mean(*key, group) for key, group in groups.items()]

    def psnr(self, dataset: str, scale: float) -> float:
        """The mean PSNR in dB of a dataset at a scale. KeyError where nothing was scored."""
        return self._at(dataset, scale).psnr

    def ssim(self, dataset: str, scale: float) -> float | None:
        """The mean SSIM; None where an image has none. KeyError where nothing was scored."""
        return self._at(dataset, scale).ssim

    def _at(self, dataset: str, scale: float) -> Mean:
        return {(mean.dataset, mean.scale): mean for mean in self.means()}[dataset, scale]


def _mean(dataset: str, protocol: str, scale: float, scores: list[Score]) -> Mean:
    sources = sorted({score.lr for score in scores})
    ssims = [score.ssim for score in scores if score.ssim is not None]
    count = len(scores)
    # An average over some of the images would look like one over all.
    ssim = sum(ssims) / count if len(ssims) == count else None
    psnr = sum(score.psnr for score in scores) / count
    return Mean(dataset, protocol, scale, " and ".join(sources), count, psnr, ssim)
