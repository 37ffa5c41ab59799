"""How often chance alone opens the breaker of a healthy fleet, and how soon a real outage does.

Simulated with the product's own rules in virtual time: each worker calls without a pause. Ours is the product, the
peer a run of failures alone, as it would open without the question to the fleet; in the steady state it is five in a
row, whatever the fleet's size. Both see the same calls. Every figure is the same in every run.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from .measuring import Effort, Row
from .simulated_fleet import Breaker, Fleet, Outage, Took, constant, judged, mixed

__all__ = ["Fleet", "Start", "false_trips", "notice_s", "opened", "run", "steady"]

CALL_S = 30.0
FLEETS = (1, 10, 50, 200, 1000)
ERROR_RATES = (0.02, 0.1, 0.2)
HOUR_S = 3600.0
OUTAGES = 5
BEFORE_OUTAGE_S = 120.0
"""So long a fleet works well first: its rate of calls has been measured by then."""
START_S = 60.0
USUAL = mixed(15.0, 30.0)


class Start(NamedTuple):
    """A fleet that starts, or that a recovery lets in; ``rate`` is the calls a minute that are known by then."""

    name: str
    starts: str
    workers: int
    error_rate: float
    good: Took = USUAL
    failed_s: float = 1.0
    retries: int = 0
    loops: bool = False
    rate: float = 0.0

    def fleet(self, seed: int) -> Fleet:
        return Fleet(
            self.workers,
            self.error_rate,
            self.good,
            constant(self.failed_s),
            starts=self.starts,
            retries=self.retries,
            loops=self.loops,
            seed=seed,
        )


STARTS = (
    *(Start("cold start", "cold", workers, rate) for workers in (50, 200, 1000) for rate in (0.02, 0.05, 0.1)),
    *(
        Start("ramp", "ramp", workers, rate, rate=2.5 * workers)
        for workers in (50, 200, 1000)
        for rate in (0.02, 0.05, 0.1)
    ),
    Start("cold start, calls of 1 s", "cold", 200, 0.1, constant(1.0)),
    Start("cold start, calls of 2 s", "cold", 200, 0.1, constant(2.0)),
    Start("cold start, calls of 120 s", "cold", 200, 0.1, constant(120.0)),
    Start("cold start, calls of 1-120 s", "cold", 200, 0.1, mixed(1.0, 120.0)),
    Start("cold start, failures after 0.1 s", "cold", 200, 0.1, failed_s=0.1),
    Start("cold start, failures after 5 s", "cold", 200, 0.1, failed_s=5.0),
    Start("cold start, each failure three times", "cold", 200, 0.02, retries=2),
    Start("cold start, each failure three times", "cold", 200, 0.1, retries=2),
    Start("cold start, one worker loops", "cold", 200, 0.02, loops=True),
)
OUTAGE_KINDS = (
    ("503 after 0.1 s", Outage(BEFORE_OUTAGE_S, 0.1)),
    ("503 after 1 s", Outage(BEFORE_OUTAGE_S, 1.0)),
    ("hangs of 10 s", Outage(BEFORE_OUTAGE_S, 10.0)),
    ("503, calls under way break", Outage(BEFORE_OUTAGE_S, 1.0, 0.05)),
    ("503, calls under way break over 2 s", Outage(BEFORE_OUTAGE_S, 1.0, 2.0)),
)


def run(effort: Effort) -> Iterator[Row]:
    hours, starts = effort.simulated_h, max(1, round(10 * effort.simulated_h))
    for workers in FLEETS:
        for error_rate in ERROR_RATES:
            ours, plain = false_trips(steady(workers, error_rate), hours)
            yield Row(f"trips in {hours:g} h: {workers} workers, {error_rate:.0%} errors", ours, "trips", plain)
    for start in STARTS:
        ours, plain = opened(start, starts)
        name = f"{start.name}: {start.workers} workers, {start.error_rate:.0%} errors, of {starts}"
        yield Row(name, ours, "opened", plain)
    for kind, outage in OUTAGE_KINDS:
        for workers in FLEETS:
            seen = [notice_s(replace(steady(workers, 0.02), seed=seed, outage=outage)) for seed in range(OUTAGES)]
            ours, plain = (statistics.median(times) for times in zip(*seen, strict=True))
            yield Row(f"noticed: {workers} workers, {kind}, median", ours, "s", plain)
    for idle in (1, 2):
        kind, outage = OUTAGE_KINDS[0]
        opened_s = judged(Breaker(Fleet(1 + idle, 0.0, constant(CALL_S), idle=idle, outage=outage)), 2 * outage.at)
        assert opened_s is not None
        yield Row(f"noticed: 1 worker beside {idle} idle, {kind}", opened_s - outage.at, "s")


def steady(workers: int, error_rate: float) -> Fleet:
    """One that has been at it for long."""
    return Fleet(workers, error_rate, constant(CALL_S))


def false_trips(fleet: Fleet, hours: float) -> tuple[int, int]:
    """How often the breaker opens in a fleet whose upstream is well: ours, and a run of five alone."""
    ours, plain = Breaker(fleet), Breaker(fleet, asks=False, is_scaled=False)
    trips, trips_plain = 0, 0
    for call in fleet.calls(hours * HOUR_S):
        if ours.takes(call):
            trips += 1
            ours.close()
        if plain.takes(call):
            trips_plain += 1
            plain.close()
    return trips, trips_plain


def opened(start: Start, times: int) -> tuple[int, int]:
    """How many of so many starts open the breaker of a fleet whose upstream is well: ours, and a run alone."""
    found = [
        sum(
            judged(Breaker(start.fleet(seed), asks=asks, rate=start.rate), START_S) is not None
            for seed in range(times)
        )
        for asks in (True, False)
    ]
    return found[0], found[1]


def notice_s(fleet: Fleet) -> tuple[float, float]:
    """Seconds from the beginning of a total outage until the breaker opens: ours, and by a run alone."""
    return _notice_s(fleet, asks=True), _notice_s(fleet, asks=False)


def _notice_s(fleet: Fleet, *, asks: bool) -> float:
    outage = fleet.outage or Outage(BEFORE_OUTAGE_S)
    # The same calls once more.
    fleet = replace(fleet, outage=outage)
    breaker = Breaker(fleet, asks=asks)
    for call in fleet.calls(outage.at + 20 * CALL_S):
        if breaker.takes(call):
            if breaker.opened_s > outage.at:
                return breaker.opened_s - outage.at
            breaker.close()
    raise AssertionError("a total outage was not noticed")
