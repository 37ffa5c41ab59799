"""What the longest wait of an open breaker costs, and what it buys: outages in simulated time, by the very rules."""

from __future__ import annotations

import random
from collections.abc import Iterator
from statistics import fmean

from openrouter_guard.rules.breaker import Policy

from .measuring import Effort, Row
from .recovery import Outage, recovery

__all__ = ["cost", "run"]

LONGEST_S = (20.0, 30.0, 60.0)
OUTAGES_S = (60.0, 600.0, 3600.0)
RUNS = 300


def run(_effort: Effort) -> Iterator[Row]:
    """Calls spent while the upstream is down, and what is lost once it is well."""
    for longest_s in LONGEST_S:
        for lasts_s in OUTAGES_S:
            calls, mean_s, most_s = cost(longest_s, lasts_s)
            name = f"wait of {longest_s:g} s at most, outage of {lasts_s / 60:g} min"
            yield Row(f"{name}: trial calls", calls, "calls")
            yield Row(f"{name}: lost on average", mean_s, "s")
            yield Row(f"{name}: lost at most", most_s, "s")


def cost(longest_s: float, lasts_s: float) -> tuple[float, float, float]:
    """Calls while down, and seconds from the return to the first trial call: the mean, and the most.

    Args:
        longest_s: The longest wait.
        lasts_s: How long the outage lasts, give or take half a minute.
    """
    drawn, policy = random.Random(1), Policy(longest_wait_s=longest_s)
    outages = [Outage(lasts_s + drawn.uniform(-30, 30), seed=drawn.randrange(2**30)) for _ in range(RUNS)]
    ends = [recovery(outage, policy) for outage in outages]
    return fmean(end.calls for end in ends), fmean(end.tried_s for end in ends), max(end.tried_s for end in ends)
