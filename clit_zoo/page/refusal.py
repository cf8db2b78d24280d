"""What the page answers to a request that it does not serve."""

from ..errors import ClitZooError


class Refusal(ClitZooError):
    """An answer other than the one asked for: an HTTP status and a sentence."""

    def __init__(self, status: int, sentence: str):
        super().__init__(sentence)
        self.status = status
