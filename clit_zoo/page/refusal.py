"""What the page answers to a request that it does not serve."""

import traceback

from ..errors import ClitZooError, is_out_of_memory, said_by_system


class Refusal(ClitZooError):
    """An answer other than the one asked for: an HTTP status and a sentence."""

    def __init__(self, status: int, sentence: str):
        super().__init__(sentence)
        self.status = status


def sentence(error: Exception) -> str:
    """What a person is told of an error; of one that nobody foresaw, the terminal gets the rest."""
    if isinstance(error, ClitZooError):
        return str(error)
    if is_out_of_memory(error):
        return "there is not enough memory for this"
    if isinstance(error, OSError) and error.strerror:
        return said_by_system(error)
    traceback.print_exception(error)
    return "this failed on the server; its terminal says more"
