"""What all tests share: one compute thread, and how hostile cases are tried and counted."""

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy

# The tensors of the tests are small, and several tests may run beside each other.
torch.set_num_threads(1)

LONG_SHARE = float(os.environ.get("CLIT_ZOO_CAMPAIGN", "1"))
"""Of the long profile's cases that are tried: 0.1 takes a tenth of the time."""


@dataclass
class Campaign:
    """Hostile cases, few in the quick profile and many in the long one (``-m slow``).

    seen: how often each outcome came; told when all tests have run.
    """

    long: bool
    seen: Counter[str] = field(default_factory=Counter)

    def count(self, quick: int, long: int) -> int:
        """How many cases to try."""
        return max(1, round(long * LONG_SHARE)) if self.long else quick

    def __call__(
        self, attempt: Callable[[Any], str], cases: SearchStrategy, *, quick: int, long: int
    ) -> None:
        """Try ``attempt``, which returns the outcome's name, on cases drawn by hypothesis.

        The quick ones are the same every time; a failure is told with the smallest case that shows it.
        """

        def one(case: Any) -> None:
            self.seen[attempt(case)] += 1

        profile = settings(
            max_examples=self.count(quick, long),
            derandomize=not self.long,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        profile(given(cases)(one))()


_told = pytest.StashKey[list[str]]()


@pytest.fixture(params=["quick", pytest.param("long", marks=pytest.mark.slow)])
def campaign(request):
    campaign = Campaign(request.param == "long")
    yield campaign
    outcomes = ", ".join(f"{count:,} {outcome}" for outcome, count in campaign.seen.most_common())
    line = f"{request.node.name}: {campaign.seen.total():,} tried: {outcomes}"
    request.config.stash.setdefault(_told, []).append(line)


def pytest_terminal_summary(terminalreporter, config):
    if lines := config.stash.get(_told, []):
        terminalreporter.section("hostile cases")
        for line in lines:
            terminalreporter.write_line(line)
