"""Follows the credit: when it runs out at the rate of the last hour."""

from __future__ import annotations

import math
from collections import deque
from itertools import pairwise

__all__ = ["SHORTEST_S", "WINDOW_S", "Spending"]

WINDOW_S = 3600.0
"""Period of the rate."""
SHORTEST_S = 600.0
"""A shorter observation says nothing: one large call may be all of it."""


class Spending:
    """The balances of one scope in the last hour, as health checks found them."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque()

    def saw(self, balance_usd: float | None, at: float) -> None:
        """Note the balance at *at* (Unix seconds; 0: never); None stands for a key without a limit."""
        last = self._seen[-1][0] if self._seen else 0.0
        if balance_usd is None or at < last:  # a clock that was set back, too
            self._seen.clear()
        if balance_usd is None or at in (0.0, last):
            return
        self._seen.append((at, balance_usd))
        while len(self._seen) > 1 and self._seen[1][0] <= at - WINDOW_S:
            self._seen.popleft()

    def seconds_to_empty(self, now: float) -> float | None:
        """Return when the credit runs out, from *now* on; infinite if nothing is spent, None if that is unknown."""
        if not self._seen or (took_s := self._seen[-1][0] - self._seen[0][0]) < SHORTEST_S:
            return None
        # A top-up is no negative spending.
        spent_usd = sum(max(before - after, 0.0) for (_, before), (_, after) in pairwise(self._seen))
        if not spent_usd:
            return math.inf
        until, balance_usd = self._seen[-1]
        return max(balance_usd * took_s / spent_usd - (now - until), 0.0)
