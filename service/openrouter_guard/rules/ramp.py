"""The ramp by which a fleet comes back: a few calls at first, all of them within a call length or two.

The successful trial has shown the duration of a call: the ramp follows that, and not the clock. It counts calls of
the whole fleet, over all its processes and their tasks.

    calls begun
        │              ╭── steady, a quarter above the healthy rate, for those that still wait
    all │           ╭──╯
        │        ╭──╯
        │      ╭─╯
    few │──────╯                   a failure: goes on as fast as it was, and no faster, until the next success
        └────────────────────▶ time
"""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["CALL_S", "LASTS_CALLS", "UNKNOWN_CALL_S", "Ramp"]

LASTS_CALLS = 2.0
"""Number of call lengths that a ramp takes if nothing fails."""
GROWS_CALLS = 1.2
"""By this time as many calls have begun as the whole fleet makes at a time."""
POWER = 1.5
"""Exponent of time: a larger one lets fewer calls go at first and more at the end.

1 lets equally many go throughout. At the end of the growth, and from then on, a quarter more calls begin
per second than at the healthy rate.
"""
LONG_CALL_S = 15.0
"""With longer calls, the ramp may take longer than its setting, in proportion.

Otherwise a fleet with long calls would come back faster than it ever calls.
"""
CALL_S = (0.5, 60.0)
"""Limits for the duration of a call."""
UNKNOWN_CALL_S = 5.0
AHEAD_S = 60.0
"""No caller is given a later turn: by then there is news."""
HELD_S = 5.0
"""Until the first success after a rate limit or on probation, this often as many may try as while half-open.

If their results are lost, others follow.
"""


@dataclass(frozen=True, slots=True)
class Ramp:
    """A ramp in progress. Times are Unix seconds of Redis' clock.

    Attributes:
        starts_at: When it began.
        until: Latest time at which all calls may go.
        first: Number of calls that may begin at once, in the whole fleet.
        calls: Number of calls that the whole fleet makes at a time while all is well.
        call_s: Duration of one call.
        processes: Number of processes that share it.
        failing_since: Since when calls have failed without a success in between; infinite after a success.
        is_held: True if no call has succeeded yet: then it does not grow.
    """

    starts_at: float
    until: float
    first: float
    calls: float
    call_s: float
    processes: int = 1
    failing_since: float = math.inf
    is_held: bool = False

    @property
    def lasts_s(self) -> float:
        """Its duration if nothing fails."""
        return min(LASTS_CALLS * self.call_s, self.until - self.starts_at)

    @property
    def ends_at(self) -> float:
        """Time at which all calls may go."""
        return self.until if self.is_held or self.failing_since < self._planned_end else self._planned_end

    @property
    def _planned_end(self) -> float:
        return self.starts_at + self.lasts_s

    def begun(self, at: float) -> float:
        """Return how many calls of the whole fleet may have begun by then; never less for a later time."""
        passed_s = max(at - self.starts_at, 0.0)
        if self.is_held:
            return self.first * (1 + passed_s / HELD_S)
        grown_s = min(passed_s, max(self.failing_since - self.starts_at, 0.0))
        return self._grown(grown_s) + self._rate(grown_s) * (passed_s - grown_s)

    def share(self, at: float) -> float:
        """Return the share of the fleet's calls that may be in progress, from 0 to 1."""
        passed_s = max(min(at, self.failing_since) - self.starts_at, 0.0)
        return min((self.first if self.is_held else self._grown(passed_s)) / self.calls, 1.0)

    def begins_at(self, calls: float, now: float) -> float:
        """Return when this many more calls of the whole fleet may have begun; at the ramp's end at the latest."""
        wanted, early, late = self.begun(now) + calls, now, min(self.ends_at, now + AHEAD_S)
        if late <= now or self.begun(late) < wanted:
            return max(late, now)
        while late - early > 1e-3:
            middle = (early + late) / 2
            early, late = (early, middle) if self.begun(middle) >= wanted else (middle, late)
        return late

    @property
    def _grows_s(self) -> float:
        return min(GROWS_CALLS * self.call_s, self.lasts_s)

    @property
    def _rest(self) -> float:
        """The growing part, in addition to the pace of trial calls, which continues."""
        return max(self.calls - self.first * (1 + self._grows_s / self.call_s), 0.0)

    def _grown(self, passed_s: float) -> float:
        growing_s, steady_s = min(passed_s, self._grows_s), max(passed_s - self._grows_s, 0.0)
        grown = self.first * (1 + growing_s / self.call_s) + self._rest * math.pow(growing_s / self._grows_s, POWER)
        return grown + self._rate(passed_s) * steady_s

    def _rate(self, passed_s: float) -> float:
        """Calls that may begin per second."""
        grown = math.pow(min(passed_s / self._grows_s, 1.0), POWER - 1)
        return self.first / self.call_s + POWER * self._rest / self._grows_s * grown
