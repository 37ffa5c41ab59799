"""The cost and the benefit of the longest wait of an open breaker, in simulated time, by the product's rules."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from statistics import fmean
from typing import NamedTuple

from openrouter_guard.rules.breaker import Policy
from openrouter_guard.rules.signals import OpenRouterState

from .measuring import Effort, Row
from .recovery import SLOT_S, Outage, Service, recovery

__all__ = ["Cost", "cost", "run"]

LONGEST_S = (10.0, 15.0, 30.0)
OUTAGES_S = (60.0, 600.0, 3600.0)
LENGTHS_S = (60.0, 180.0, 600.0, 1800.0, 3600.0)
DOWN, WELL = OpenRouterState.SERVICE_UNAVAILABLE, OpenRouterState.ACTIVE


class Cost(NamedTuple):
    """Of outages that end at any moment.

    Attributes:
        calls: Sent while down, on average.
        mean_s: From the return to the first trial call, on average,
        most_s: and at most.
        closed_s: From the return to the closed breaker, on average.
    """

    calls: float
    mean_s: float
    most_s: float
    closed_s: float


Key = Callable[[float, float], Service]
"""A health service beside the fleet, by how long the outage lasts and when it checked last."""
KEYS: dict[str, Key | None] = {
    "no service": None,
    "/key fails": lambda lasts_s, last_s: Service(lambda at: DOWN if 0 <= at < lasts_s else WELL, last_s),
    "/key answers": lambda _lasts_s, last_s: Service(lambda _at: WELL, last_s),
}


def run(effort: Effort) -> Iterator[Row]:
    """Calls spent while the upstream is down, and what is lost once it is well."""
    runs = effort.simulated_outages
    for longest_s in LONGEST_S:
        for lasts_s in OUTAGES_S:
            found = cost(longest_s, lasts_s, runs=runs)
            name = f"wait of {longest_s:g} s at most, outage of {lasts_s / 60:g} min"
            yield Row(f"{name}: trial calls", found.calls, "calls")
            yield Row(f"{name}: lost on average", found.mean_s, "s")
            yield Row(f"{name}: lost at most", found.most_s, "s")
    for lasts_s in LENGTHS_S:
        for name, key in KEYS.items():
            found = cost(Policy().longest_wait_s, lasts_s, key, runs=runs)
            name = f"outage of {lasts_s / 60:g} min, {name}"
            yield Row(f"{name}: trial calls", found.calls, "calls")
            yield Row(f"{name}: until the first trial", found.mean_s, "s")
            yield Row(f"{name}: until closed, calls of 5 s", found.closed_s, "s")


def cost(longest_s: float, lasts_s: float, key: Key | None = None, *, runs: int) -> Cost:
    """What outages cost.

    Args:
        longest_s: The longest wait.
        lasts_s: How long the outage lasts, give or take half a minute.
        key: The health service; None: there is none.
        runs: How many outages.
    """
    drawn, policy = random.Random(1), Policy(longest_wait_s=longest_s)
    outages = [Outage(lasts_s + drawn.uniform(-30, 30), seed=drawn.randrange(2**30)) for _ in range(runs)]
    services = [key and key(outage.lasts_s, drawn.uniform(-SLOT_S, 0)) for outage in outages]
    ends = [recovery(outage, policy, service) for outage, service in zip(outages, services, strict=True)]
    tried_at = [end.tried_at for end in ends]
    return Cost(fmean(end.calls for end in ends), fmean(tried_at), max(tried_at), fmean(end.closed_s for end in ends))
