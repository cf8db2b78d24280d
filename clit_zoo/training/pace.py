"""How fast a run is, and how much of its time it waits for data."""


class Pace:
    """Sums over steps; validating and saving do not count.

    Attributes:
        steps: counted; seconds: spent on them; waited: of these, for data.
    """

    def __init__(self) -> None:
        self.steps, self.seconds, self.waited = 0, 0.0, 0.0

    def add(self, seconds: float, waited: float) -> None:
        """Count a step."""
        self.steps += 1
        self.seconds += seconds
        self.waited += waited

    @property
    def speed(self) -> float:
        """Steps a second."""
        return self.steps / self.seconds if self.seconds else 0.0

    @property
    def waiting(self) -> float:
        """Share of the time spent waiting for data."""
        return self.waited / self.seconds if self.seconds else 0.0
