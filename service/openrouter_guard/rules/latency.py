"""The latency of calls as counts between fixed bounds: many workers add to them, and percentiles follow from them.

The day's metrics hold one counter per bound, ``latency_ms_le_1500``: the calls of at most 1.5 s and more than the
bound before. The counters are not cumulative, so a call changes only one of them. ``latency_ms_le_inf`` counts calls
longer than the last bound, ``latency_ms_sum`` the milliseconds of all.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .parsing import whole

__all__ = ["BOUNDS_MS", "FIELDS", "SUM", "Latency", "index_of", "merged", "of_counters"]

BOUNDS_MS: tuple[int, ...] = tuple(digit * 10**power for power in range(5) for digit in (10, 15, 20, 30, 50, 70))
"""Upper bounds from 10 ms to 700 s, each 1.3 to 1.7 times the one before."""
FIELDS = (*(f"latency_ms_le_{bound}" for bound in BOUNDS_MS), "latency_ms_le_inf")
"""The counters' names, shortest calls first."""
SUM = "latency_ms_sum"
_COUNTER_MOST = 10**15
_BOUNDS_S: tuple[float, ...] = tuple(bound / 1000 for bound in BOUNDS_MS)


def index_of(took_s: float) -> int:
    """Return the index in ``FIELDS`` for a call of this duration."""
    return bisect_left(_BOUNDS_S, took_s)


@dataclass(frozen=True, slots=True)
class Latency:
    """The latency of the calls in some period.

    Attributes:
        counts: Number of calls between two bounds, in the order of ``FIELDS``.
        sum_s: Total duration in seconds.
    """

    counts: tuple[int, ...] = (0,) * len(FIELDS)
    sum_s: float = 0.0

    @property
    def calls(self) -> int:
        return sum(self.counts)

    @property
    def mean_s(self) -> float | None:
        return self.sum_s / self.calls if self.calls else None

    def percentile_s(self, percent: float) -> float | None:
        """Return the time that *percent* of the calls did not exceed, in seconds; None without any call.

        Between two bounds the calls are assumed to be evenly spread by the logarithm of their time, so the error is
        less than the distance of the two. Longer calls count as the last bound.
        """
        left = self.calls * percent / 100
        for index, count in enumerate(self.counts):
            if count and left <= count:
                return _between(index, left / count)
            left -= count
        return _BOUNDS_S[-1] if self.calls else None


def of_counters(day: Mapping[str, object]) -> Latency:
    """Return the latency in the metrics of a day; a missing or invalid counter counts as 0."""
    return Latency(tuple(_count(day.get(name)) for name in FIELDS), _count(day.get(SUM)) / 1000)


def merged(parts: Iterable[Latency]) -> Latency:
    """Combine the latency of several days."""
    known = list(parts)
    columns = zip(*(part.counts for part in known), strict=True)
    return Latency(tuple(map(sum, columns)), sum(part.sum_s for part in known)) if known else Latency()


def _between(index: int, share: float) -> float:
    """Return the time at *share* (0 to 1) of the way from the bound before to this one."""
    upper_s = _BOUNDS_S[min(index, len(_BOUNDS_S) - 1)]
    if index == 0:
        return upper_s * share
    lower_s = _BOUNDS_S[index - 1]
    return lower_s * math.pow(upper_s / lower_s, share)


def _count(value: object) -> int:
    return whole(value, _COUNTER_MOST)
