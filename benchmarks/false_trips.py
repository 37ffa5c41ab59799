"""How often chance alone opens the breaker of a healthy fleet, and how soon a real outage does.

Simulated with the product's own rules in virtual time: each worker calls without a pause, a call takes 30 s and ends
well, or fails after 1 s. Ours is the threshold that grows with the fleet's calls, the peer is five in a row whatever
its size; both see the same calls. Every figure is the same in every run.
"""

from __future__ import annotations

import heapq
import random
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from openrouter_guard.rules import record as records
from openrouter_guard.rules.breaker import Closed, Policy
from openrouter_guard.rules.record import Record
from openrouter_guard.rules.signals import SUCCESS, Effect, ErrorType, Signal

from .measuring import Effort, Row

__all__ = ["Fleet", "false_trips", "notice_s", "run"]

FAILURE = Signal(Effect.FAILURE, ErrorType.SERVICE_UNAVAILABLE)
CALL_S, FAILED_CALL_S = 30.0, 1.0
FLEETS = (1, 10, 50, 200, 1000)
ERROR_RATES = (0.02, 0.1, 0.2)
HOUR_S, MINUTE_S = 3600.0, 60.0
OUTAGES = 9
BEFORE_OUTAGE_S = 120.0
"""So long a fleet works well first: its rate of calls has been measured by then."""


def run(effort: Effort) -> Iterator[Row]:
    hours = effort.simulated_h
    for workers in FLEETS:
        for error_rate in ERROR_RATES:
            ours, plain = false_trips(Fleet(workers, error_rate), hours)
            yield Row(f"trips in {hours:g} h: {workers} workers, {error_rate:.0%} errors", ours, "trips", plain)
    for workers in FLEETS:
        seen = [notice_s(Fleet(workers, 0.02, seed)) for seed in range(OUTAGES)]
        ours, plain = (statistics.median(times) for times in zip(*seen, strict=True))
        yield Row(f"a total outage is noticed: {workers} workers, median", ours, "s", plain)


@dataclass(frozen=True, slots=True)
class Fleet:
    """Workers that call without a pause; so many of their calls fail, each by chance."""

    workers: int
    error_rate: float
    seed: int = 0

    def calls(self, until_s: float, outage_s: float = float("inf")) -> Iterator[tuple[float, int, bool]]:
        """The end of each call in its order, whose it was, and whether it failed.

        From ``outage_s`` on every call that begins fails; those that are under way end as they would have.
        """
        lot = random.Random(self.seed)
        # They begin at any moment, as if they had been at it for long.
        ends = [(lot.uniform(0, CALL_S), worker, lot.random() < self.error_rate) for worker in range(self.workers)]
        heapq.heapify(ends)
        while ends[0][0] < until_s:
            at_s, worker, failed = ends[0]
            yield at_s, worker, failed
            fails = at_s >= outage_s or lot.random() < self.error_rate
            heapq.heapreplace(ends, (at_s + (FAILED_CALL_S if fails else CALL_S), worker, fails))


@dataclass(slots=True)
class Breaker:
    """The shared breaker of a simulated fleet.

    Attributes:
        is_scaled: Whether its threshold grows with the calls; else it is the first one for ever.
    """

    workers: int
    is_scaled: bool
    policy: Policy = Policy()
    record: Record = field(init=False)
    _calls: int = 0
    _since_s: float = 0.0

    def __post_init__(self) -> None:
        self.record = Record(epoch=1, live_reporters=self.workers)

    def opens(self, at_s: float, worker: int, *, failed: bool) -> bool:
        """Count the end of a call; whether that opened it. Then it is closed again, for the next one."""
        self._measure(at_s)
        if not failed and not self.record.breaker.failures:
            return False
        counted = records.counted(self.record, FAILURE if failed else SUCCESS, f"w{worker}")
        settled = records.settled(counted, now_s=at_s, policy=self.policy, by="simulation")
        is_open = not isinstance(settled.breaker, Closed)
        self.record = replace(self.record, breaker=Closed()) if is_open else settled
        return is_open

    def _measure(self, at_s: float) -> None:
        """The calls per minute, as the store's script measures them."""
        self._calls += 1
        if self.is_scaled and at_s - self._since_s >= MINUTE_S:
            rate = self._calls * MINUTE_S / (at_s - self._since_s)
            self.record = replace(self.record, calls_per_minute=rate)
            self._calls, self._since_s = 0, at_s


def false_trips(fleet: Fleet, hours: float) -> tuple[int, int]:
    """How often the breaker opens in a fleet whose upstream is well: ours, and that with a fixed threshold."""
    ours, plain = Breaker(fleet.workers, True), Breaker(fleet.workers, False)
    trips, trips_plain = 0, 0
    for at_s, worker, failed in fleet.calls(hours * HOUR_S):
        trips += ours.opens(at_s, worker, failed=failed)
        trips_plain += plain.opens(at_s, worker, failed=failed)
    return trips, trips_plain


def notice_s(fleet: Fleet) -> tuple[float, float]:
    """Seconds from the beginning of a total outage until the breaker opens: ours, and that with a fixed threshold."""
    return _notice_s(fleet, is_scaled=True), _notice_s(fleet, is_scaled=False)


def _notice_s(fleet: Fleet, *, is_scaled: bool) -> float:
    breaker = Breaker(fleet.workers, is_scaled)
    for at_s, worker, failed in fleet.calls(BEFORE_OUTAGE_S + 10 * CALL_S, BEFORE_OUTAGE_S):
        if breaker.opens(at_s, worker, failed=failed) and at_s > BEFORE_OUTAGE_S:
            return at_s - BEFORE_OUTAGE_S
    raise AssertionError("a total outage was not noticed")
